"""When may Flyte's cached answer be given? While what it points to outside the lake is still there.

And what makes two inputs the same? Their content: an object's keys are sorted before Flyte makes a key of it, and
before an answer is handed on, so that their order changes nothing.

An answer's model names such a field: ``path: Annotated[str, Artifact()]``. Locally a cached answer whose artifact is
gone is dropped, and the task runs again. On a cluster Flyte's own service answers and looks at nothing; there
``--overwrite-cache`` does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

import msgpack  # type: ignore[import-untyped]
from flytekit import FlyteContext, PythonFunctionTask
from flytekit.configuration import LocalConfig
from flytekit.core import local_cache
from flytekit.core.constants import MESSAGEPACK
from flytekit.core.local_cache import LocalTaskCache
from flytekit.core.promise import Promise, translate_inputs_to_literals
from flytekit.core.task import TaskPlugins
from flytekit.core.type_engine import TypeEngine
from flytekit.models.literals import Binary, Literal, LiteralCollection, LiteralMap, Scalar, Union
from pydantic import BaseModel


@runtime_checkable
class Condition(Protocol):
    """Marks a field of an answer: what must be so for the answer to stand."""

    def lacks(self, value: str) -> str:
        """What is not as it must be, in words; empty if all is well."""
        ...


@dataclass(frozen=True)
class Artifact:
    """The field is the path of a file or folder that the answer is worthless without; an empty one is none."""

    def lacks(self, value: str) -> str:
        return "" if not value or Path(value).exists() else f"{value} is gone"


@dataclass(frozen=True)
class Destination:
    """The field names where the task put something outside the lake; it must be where the settings send it now.

    Attributes:
        now: gives the place that counts now; empty if nothing is there.
    """

    now: Callable[[], str]

    def lacks(self, value: str) -> str:
        now = self.now()
        return "" if not value or value == now else f"it went to {value} and not to {now or 'what is there now'}"


#: While a task runs because its cached answer could not be given: what that one lacked.
UNUSABLE: ContextVar[str] = ContextVar("unusable", default="")


@dataclass(frozen=True)
class Kept:
    """Task configuration that makes a task a ``KeptTask``."""


class KeptTask(PythonFunctionTask[Kept]):  # type: ignore[misc]  # flytekit publishes no types
    """A Python task with canonical inputs and outputs whose cached answers are looked at before they are given."""

    _gone: str = ""

    def local_execute(self, ctx: FlyteContext, **kwargs: object) -> object:
        literals = translate_inputs_to_literals(
            ctx,
            incoming_values=kwargs,
            flyte_interface_types=self.interface.inputs,
            native_types=self.get_input_types(),
        )
        inputs = LiteralMap({name: canonical(literal) for name, literal in literals.items()})
        self._gone = self._forget_if_gone(ctx, inputs)
        return super().local_execute(ctx, **{name: Promise(name, value) for name, value in inputs.literals.items()})

    def execute(self, **kwargs: object) -> object:
        token = UNUSABLE.set(self._gone)
        try:
            return super().execute(**kwargs)
        finally:
            UNUSABLE.reset(token)

    def dispatch_execute(self, ctx: FlyteContext, input_literal_map: LiteralMap) -> object:
        made = super().dispatch_execute(ctx, input_literal_map)
        if not isinstance(made, LiteralMap):
            return made
        return LiteralMap({name: canonical(literal) for name, literal in made.literals.items()})

    def _forget_if_gone(self, ctx: FlyteContext, inputs: LiteralMap) -> str:
        """Drop the cached answer if it can't be given; what it lacks."""
        local = LocalConfig.auto()
        if not (self.metadata.cache and local.cache_enabled) or local.cache_overwrite:
            return ""
        conditional = {n: t for n, t in self.python_interface.outputs.items() if any(True for _ in _conditions_in(t))}
        if not conditional:
            return ""
        key = (self.name, self.metadata.cache_version, inputs, self.metadata.cache_ignore_input_vars)
        cached = LocalTaskCache.get(*key)
        if cached is None:
            return ""
        for name, annotation in conditional.items():
            value = TypeEngine.to_python_value(ctx, cached.literals[name], annotation)
            for lacking in what_lacks(value):
                LocalTaskCache._cache.delete(local_cache._calculate_cache_key(*key))
                return lacking
        return ""


TaskPlugins.register_pythontask_plugin(Kept, KeptTask)


def what_lacks(value: object) -> Iterator[str]:
    """What the artifacts and destinations in a value lack, in words."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            for condition in field.metadata:
                if isinstance(condition, Condition) and isinstance(inner, str) and (lacking := condition.lacks(inner)):
                    yield lacking
            yield from what_lacks(inner)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from what_lacks(item)


def without_places(value: object) -> object:
    """A value as plain data without the fields that say where something lies: what two machines must agree on."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return {
            name: without_places(getattr(value, name))
            for name, field in fields
            if not any(isinstance(mark, Condition) for mark in field.metadata)
        }
    if isinstance(value, Mapping):
        return {name: without_places(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return without_places(value._asdict())
    if isinstance(value, (list, tuple)):
        return [without_places(item) for item in value]
    return value


def canonical(literal: Literal) -> Literal:
    """The literal with the keys of every object in it sorted."""
    if literal.collection is not None:
        return Literal(collection=LiteralCollection([canonical(item) for item in literal.collection.literals]))
    if literal.map is not None:
        return Literal(map=LiteralMap({name: canonical(item) for name, item in literal.map.literals.items()}))
    if literal.scalar is not None and literal.scalar.union is not None:
        union = literal.scalar.union
        return Literal(scalar=Scalar(union=Union(value=canonical(union.value), stored_type=union.stored_type)))
    binary = literal.scalar.binary if literal.scalar is not None else None
    if binary is None or binary.tag != MESSAGEPACK:
        return literal
    value = msgpack.packb(_sorted(msgpack.unpackb(binary.value, strict_map_key=False)))
    return Literal(
        scalar=Scalar(binary=Binary(value=value, tag=binary.tag)), hash=literal.hash, metadata=literal.metadata
    )


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value, key=repr)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _conditions_in(annotation: object, seen: frozenset[object] = frozenset()) -> Iterator[Condition]:
    """The conditions in a type, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        for field in annotation.model_fields.values():
            yield from (mark for mark in field.metadata if isinstance(mark, Condition))
            yield from _conditions_in(field.annotation, seen | {annotation})
    else:
        for argument in get_args(annotation):
            yield from _conditions_in(argument, seen)
