"""What depends on a table in the layers above the lakehouse? Tasks, feature views and prompts, read from the code."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, get_args, get_origin

if TYPE_CHECKING:
    from lakehouse.contracts.evolution import Plan


def with_dependents(plans: list[Plan]) -> list[Plan]:
    """The plans with what they touch above the lakehouse; only plans with changes are looked at.

    A task depends on the tables whose snapshots are in its signature, a feature view on the table that it is derived
    from, a prompt on every table that has all the fields of its input.
    """
    if not any(plan.changes for plan in plans):
        return plans
    from features.views import VIEW_TABLES
    from lakehouse.contracts.table import declared_tables

    tasks = dict(_tasks())
    prompts = dict(_prompts())
    views = {row_model.contract.table for row_model in VIEW_TABLES}

    def dependents(plan: Plan) -> Plan:
        if not plan.changes:
            return plan
        columns = set(declared_tables()[plan.table].contract.names)
        found = {
            "tasks": tuple(sorted(name for name, tables in tasks.items() if plan.table in tables)),
            "feature_views": tuple({plan.table} & views),
            "prompts": tuple(sorted(name for name, fields in prompts.items() if fields <= columns)),
        }
        return plan.model_copy(update={"touches": plan.touches.model_copy(update=found)})

    return [dependents(plan) for plan in plans]


def _tasks() -> Iterator[tuple[str, set[str]]]:
    """Each task of the project, and the tables that it takes or gives snapshots of."""
    import flytekit.configuration.plugin  # noqa: F401  (loads the project's own plug-in, which tasks.pyflyte is)
    from flytekit import PythonFunctionTask

    for package in ("tasks", "workflows"):
        for module in _modules(package):
            for value in vars(module).values():
                if isinstance(value, PythonFunctionTask):
                    signature = [*value.python_interface.inputs.values(), *value.python_interface.outputs.values()]
                    yield value.name, {table for annotation in signature for table in _tables_of(annotation)}


def _prompts() -> Iterator[tuple[str, set[str]]]:
    """Each component of the language model, and the fields of its input."""
    from models.llm.component import Component

    for module in _modules("models.llm"):
        for value in vars(module).values():
            if isinstance(value, Component):
                yield value.name, set(value.input.model_fields)


def _tables_of(annotation: object) -> Iterator[str]:
    from lakehouse.snapshot import Snapshot

    arguments = get_args(annotation)
    if get_origin(annotation) is Snapshot:
        yield from (row.contract.table for row in arguments if hasattr(row, "contract"))
    else:
        for argument in arguments:
            yield from _tables_of(argument)


def _modules(package: str) -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            yield import_module(module.name)
