"""What did an execution's answer depend on, part by part? Written into the ledger, so that two can be compared.

The parts are those of the cache key: code by file, contracts by table, the environment's lock, the engines' versions,
and the inputs. Flyte's key is one digest over all of it, which can only say that something is different.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.snapshot import Snapshot
from tasks.cache import code, contracts, engine_versions, environment_digest

#: Digits of a digest that are kept of each file.
_DIGITS = 16
#: A value that takes more than this as JSON is kept by its digest alone.
_MAX_VALUE = 1 << 16
#: Such a value is an object with this one key.
DIGEST_ONLY = "sha256"

Part = Literal["code", "contract", "environment lock", "engine version", "input version", "parameter"]


class Key(BaseModel):
    """What an answer depends on.

    Attributes:
        code: digest of each project file behind the task, by path.
        contracts: fingerprint of each table in the signature, by table.
        lock: digest of the environment's lock.
        engines: version by package.
        inputs: each input as JSON; one that is long as ``{"sha256": …}``.
        gone: of a cached answer that was there and could not be used, what it lacked; empty otherwise.
    """

    model_config = ConfigDict(frozen=True)

    code: dict[str, str]
    contracts: dict[str, str]
    lock: str
    engines: dict[str, str]
    inputs: dict[str, object]
    gone: str = ""


class Change(BaseModel):
    """One thing that two keys do not have in common; None where one of them lacks it."""

    model_config = ConfigDict(frozen=True)

    part: Part
    name: str
    before: str | None
    after: str | None


def key_of(function: Callable[..., object], inputs: Mapping[str, object], *, gone: str = "") -> Key:
    """The key of one execution of a task's function."""
    return Key(
        code={path: digest[:_DIGITS] for path, digest in code(function).items()},
        contracts=contracts(function),
        lock=environment_digest(),
        engines=engine_versions(),
        inputs={name: _bounded(as_json(value)) for name, value in sorted(inputs.items())},
        gone=gone,
    )


def arguments(
    function: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """A call's arguments by name."""
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def as_json(value: object) -> object:
    """A value as JSON has it, objects with sorted keys: the same value gives the same text."""
    if isinstance(value, Snapshot):
        fingerprint = value.row.contract.fingerprint if hasattr(value.row, "contract") else ""
        return {
            "table": value.name,
            "version": value.version,
            "table_id": value.table_id,
            "fingerprint": fingerprint,
            "uri": value.uri,
        }
    if isinstance(value, BaseModel):
        return as_json(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(name): as_json(value[name]) for name in sorted(value, key=str)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict())
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def as_text(value: object) -> str:
    """A value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def changes(before: Key, after: Key) -> list[Change]:
    """What differs between two keys, part by part; nothing if the keys are the same."""
    found = [
        *_differences("code", before.code, after.code),
        *_differences("contract", before.contracts, after.contracts),
        *_differences("environment lock", {"requirements.lock": before.lock}, {"requirements.lock": after.lock}),
        *_differences("engine version", before.engines, after.engines),
    ]
    for name in dict.fromkeys([*before.inputs, *after.inputs]):
        found += _of_input(name, before.inputs.get(name), after.inputs.get(name))
    return found


def _differences(part: Part, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change(part=part, name=name, before=_short(before.get(name)), after=_short(after.get(name)))


def _of_input(name: str, before: object, after: object) -> Iterator[Change]:
    """What differs in one input: of a table its version, its identity or its contract; of an object, each field."""
    if before == after:
        return
    if _is_table(before) and _is_table(after):
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        if before["fingerprint"] != after["fingerprint"]:
            yield Change(
                part="contract",
                name=str(after["table"]),
                before=_short(before["fingerprint"]),
                after=_short(after["fingerprint"]),
            )
        if [before[key] for key in _IDENTITY] != [after[key] for key in _IDENTITY]:
            yield Change(
                part="input version", name=name, before=_reference(before, after), after=_reference(after, before)
            )
    elif isinstance(before, dict) and isinstance(after, dict) and DIGEST_ONLY not in {*before, *after}:
        for field in sorted({*before, *after}):
            yield from _of_input(f"{name}.{field}", before.get(field), after.get(field))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _of_input(f"{name}[{number}]", one, other)
    else:
        yield Change(part="parameter", name=name, before=_short(as_text(before)), after=_short(as_text(after)))


_IDENTITY = ("table", "version", "table_id", "uri")


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and {"table", "version", "table_id", "uri", "fingerprint"} <= value.keys()


def _reference(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    """``table@version``, with what tells it from the other if that does not."""
    reference = f"{one['table']}@{one['version']}"
    if (one["table"], one["version"]) != (other["table"], other["version"]):
        return reference
    told = "table_id" if one["table_id"] != other["table_id"] else "uri"
    return f"{reference} ({told} {one[told]})"


def _bounded(value: object) -> object:
    text = as_text(value)
    return value if len(text) <= _MAX_VALUE else {DIGEST_ONLY: hashlib.sha256(text.encode()).hexdigest()}


def _short(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
