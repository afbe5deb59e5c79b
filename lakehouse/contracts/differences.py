"""How does a declared contract differ from a table as it stands? Column by column, and what each difference means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from lakehouse.contracts.arrow import is_list
from lakehouse.contracts.delta_schema import CHANGE_FEED, check_constraints
from lakehouse.contracts.stored_schema import StoredColumn, declared_column, rule_of, stored_column, stored_schema
from lakehouse.contracts.table import Contract, Rule

#: additive: the table takes it as it is. widening: in one commit that writes the rows anew. tightening: additive, if
#: the stored rows keep it, else breaking. breaking: refused.
ChangeKind = Literal["additive", "widening", "tightening", "breaking"]

#: What is done to the table, or would have to be.
Action = Literal[
    "add column",
    "remove column",
    "widen type",
    "change type",
    "allow nulls",
    "require",
    "loosen rule",
    "tighten rule",
    "constraint",
    "key",
    "event time",
    "subject",
    "describe",
    "partition",
    "cluster",
    "change feed",
]


class Change(BaseModel):
    """One thing in which the declaration differs from the table.

    Attributes:
        column: its name, with ``[]`` for a list's elements; empty for the table as a whole.
        kind: what it means for the table.
        action: what is done.
        text: one sentence without its full stop.
        breaks: stored rows that break it, once they were counted.
        rule: what becomes stricter or looser.
        constraint: name of the CHECK constraint.
        examples: the keys of up to five of them.
    """

    model_config = ConfigDict(frozen=True)

    column: str
    kind: ChangeKind
    action: Action
    text: str
    rule: Rule | None = Field(default=None, exclude=True)
    constraint: str | None = Field(default=None, exclude=True)
    breaks: int | None = None
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


def differences(
    contract: Contract,
    schema: pa.Schema,
    configuration: Mapping[str, str] | None = None,
    *,
    partition_by: Sequence[str] | None = None,
    description: str | None = None,
) -> tuple[Change, ...]:
    """Compare a contract with a stored table; nothing for one that was made by this very contract.

    Args:
        contract: as declared.
        schema: the table's, with its columns' metadata.
        configuration: the table's properties, which hold its CHECK constraints; None compares none.
        partition_by: the table's partition columns; None compares none.
        description: the table's own; None compares none.
    """
    return tuple(_changes(contract, schema, configuration, partition_by, description))


def _changes(
    contract: Contract,
    schema: pa.Schema,
    configuration: Mapping[str, str] | None,
    partition_by: Sequence[str] | None,
    description: str | None,
) -> Iterator[Change]:
    stored = {field.name: field for field in schema}
    clock = next((f.name for f in schema if (kept := stored_column(f.metadata)) and kept.event_time), None)
    for field, column in zip(stored_schema(contract), contract.columns, strict=True):
        if field.name not in stored:
            yield _added(field.name, field)
            continue
        found = stored[field.name]
        required = {rule.column for rule in column.rules if rule.kind == "required"}
        of_type = [*_field_changes(field.name, found, field, required)]
        yield from of_type
        before = stored_column(found.metadata)
        if before is not None:
            yield from _role_changes(field.name, before, declared_column(contract, column), clock)
            # What the rules say of nested fields that come or go is said by that.
            moved = tuple(change.column for change in of_type if change.action in ("add column", "remove column"))
            for change in _rule_changes(before, declared_column(contract, column)):
                if not f"{change.column}.".startswith(tuple(f"{path}{end}" for path in moved for end in ".[")):
                    yield change
        if (found.metadata or {}).get(b"comment", b"").decode() != column.description:
            yield Change(
                column=field.name,
                kind="additive",
                action="describe",
                text=f"column {field.name} is described as {column.description!r}",
            )
    for name in stored:
        if name not in contract.names:
            yield _removed(name, stored[name])
    if configuration is not None:
        yield from _constraint_changes(contract, schema, configuration)
        # One that a table keeps undeclared, by Spark say, is left on.
        if contract.change_feed and configuration.get(CHANGE_FEED, "false").lower() != "true":
            yield Change(
                column="", kind="additive", action="change feed", text="the table begins to keep a change data feed"
            )
    if partition_by is not None and tuple(partition_by) != contract.partition_by:
        yield Change(
            column="",
            kind="breaking",
            action="partition",
            text=f"the table is partitioned by {_names(partition_by)} and declared by {_names(contract.partition_by)}",
        )
    if description is not None and description != contract.description:
        yield Change(
            column="", kind="additive", action="describe", text=f"the table is described as {contract.description!r}"
        )


def _field_changes(path: str, stored: pa.Field, declared: pa.Field, required: Set[str]) -> Iterator[Change]:
    """Type and nullability; ``required`` names the paths below that may not be null."""
    yield from _type_changes(path, stored.type, declared.type, required)
    if stored.nullable and not declared.nullable:
        yield Change(
            column=path,
            kind="tightening",
            action="require",
            text=f"column {path} becomes required",
            rule=Rule(path, "required"),
        )
    elif declared.nullable and not stored.nullable:
        yield Change(column=path, kind="additive", action="allow nulls", text=f"column {path} becomes optional")


def _type_changes(path: str, stored: pa.DataType, declared: pa.DataType, required: Set[str]) -> Iterator[Change]:
    if is_list(stored) and is_list(declared):
        yield from _type_changes(f"{path}[]", stored.value_type, declared.value_type, required)
    elif pa.types.is_struct(stored) and pa.types.is_struct(declared):
        there = {field.name: field for field in stored}
        for field in declared:
            below = f"{path}.{field.name}"
            if field.name in there:
                yield from _type_changes(below, there[field.name].type, field.type, required)
            elif below in required:
                yield _added(below, field.with_nullable(False))
            else:  # with the rows: readers disagree about files whose nested models lack a field
                yield _added(below, field).model_copy(update={"kind": "widening"})
        for name in there.keys() - {field.name for field in declared}:
            yield _removed(f"{path}.{name}", there[name])
    elif not same_type(stored, declared):
        wider = _is_wider(declared, stored)
        yield Change(
            column=path,
            kind="widening" if wider else "breaking",
            action="widen type" if wider else "change type",
            text=f"column {path} is stored as {stored} and declared {declared}",
        )


def _added(path: str, field: pa.Field) -> Change:
    if field.nullable:
        text = f"column {path} ({field.type}) is new, optional"
        return Change(column=path, kind="additive", action="add column", text=text)
    return Change(
        column=path,
        kind="breaking",
        action="add column",
        text=f"column {path} ({field.type}) is new and required, and the stored rows don't have it",
    )


def _removed(path: str, field: pa.Field) -> Change:
    text = f"column {path} ({field.type}) is stored and no longer declared"
    return Change(column=path, kind="breaking", action="remove column", text=text)


def _role_changes(name: str, before: StoredColumn, after: StoredColumn, clock: str | None) -> Iterator[Change]:
    """Key, event time, subject and clustering; a first event time (there was no ``clock``) decides of later rows."""
    for role, action in (("key", "key"), ("event_time", "event time"), ("subject", "subject")):
        was, now = getattr(before, role), getattr(after, role)
        if was != now:
            words = role.replace("_", " ")
            yield Change(
                column=name,
                kind="additive" if role == "subject" or (role == "event_time" and clock is None) else "breaking",
                action=action,
                text=f"column {name} {'is now' if now else 'is no longer'} {'part of the ' * (role == 'key')}{words}",
            )
    if before.cluster != after.cluster:
        yield Change(
            column=name,
            kind="additive",
            action="cluster",
            text=f"column {name} is {'clustered by' if after.cluster is not None else 'no longer clustered by'}",
        )


def _rule_changes(before: StoredColumn, after: StoredColumn) -> Iterator[Change]:
    old = {(column, kind): value for column, kind, value in before.rules}
    new = {(column, kind): value for column, kind, value in after.rules}
    for stored in before.rules:
        rule = rule_of(stored)
        if (rule.column, rule.kind) not in new:
            yield Change(
                column=rule.column,
                kind="additive",
                action="loosen rule",
                text=f"rule {rule.name!r} is dropped",
                rule=rule,
            )
    for declared in after.rules:
        rule = rule_of(declared)
        place = (rule.column, rule.kind)
        if place in old and old[place] == rule.value:
            continue
        was = f", it was {rule_of((*place, old[place])).name!r}" if place in old else ""
        looser = place in old and _is_looser(rule, old[place])
        yield Change(
            column=rule.column,
            kind="additive" if looser else "tightening",
            action="loosen rule" if looser else "tighten rule",
            text=f"rule {rule.name!r} is {'looser' if looser else 'stricter' if was else 'new'}{was}",
            rule=rule,
        )


def _is_looser(rule: Rule, before: object) -> bool:
    """Whether whatever kept the rule with its value before keeps it now."""
    now = rule.value
    if isinstance(now, tuple) and isinstance(before, tuple):
        return set(before) <= set(now)
    if not isinstance(now, (int, float)) or not isinstance(before, (int, float)):
        return False
    return (
        now <= before
        if rule.kind in ("ge", "gt", "min_length")
        else (rule.kind in ("le", "lt", "max_length") and now >= before)
    )


def _constraint_changes(contract: Contract, schema: pa.Schema, configuration: Mapping[str, str]) -> Iterator[Change]:
    """CHECK constraints that are missing, other or no longer declared; those that nobody declared are left alone.

    What they say is compared with what the stored rules say: Delta keeps their text in a form of its own.
    """
    prefix = "delta.constraints."
    present = {key.removeprefix(prefix) for key in configuration if key.startswith(prefix)}
    declared = check_constraints(contract)
    before = check_constraints(_as_stored(contract, schema))
    # A column that is only now added holds nulls, which keep every constraint.
    old = tuple(column for column in contract.columns if column.name in schema.names)
    to_check = check_constraints(replace(contract, columns=old))
    for name, sql in declared.items():
        if name not in present or (name in before and before[name] != sql):
            yield Change(
                column="",
                # Of one that is replaced, the rules' own changes are held against the rows.
                kind="additive" if name in present or name not in to_check else "tightening",
                action="constraint",
                text=f"CHECK constraint {name} is {'replaced by' if name in present else 'new:'} {sql}",
                constraint=name,
            )
    for name in before:
        if name in present and name not in declared:
            yield Change(
                column="",
                kind="additive",
                action="constraint",
                text=f"CHECK constraint {name} is dropped",
                constraint=name,
            )


def _as_stored(contract: Contract, schema: pa.Schema) -> Contract:
    """The contract with the rules and nullability that the table keeps."""
    fields = {field.name: field for field in schema}
    columns = []
    for column in contract.columns:
        if column.name in fields:
            found = stored_column(fields[column.name].metadata)
            rules = column.rules if found is None else tuple(rule_of(rule) for rule in found.rules)
            columns.append(replace(column, rules=rules, nullable=fields[column.name].nullable))
    return replace(contract, columns=tuple(columns))


def same_type(stored: pa.DataType, declared: pa.DataType) -> bool:
    """Whether a stored type is the declared one; Arrow has several layouts for one and the same text or list."""
    if is_list(stored) and is_list(declared):
        return same_type(stored.value_type, declared.value_type)
    if pa.types.is_struct(stored) and pa.types.is_struct(declared):
        there = {field.name: field.type for field in stored}
        names = [field.name for field in declared]
        return sorted(there) == sorted(names) and all(same_type(there[f.name], f.type) for f in declared)
    if _is_text(stored) and _is_text(declared):
        return True
    return bool(stored == declared)


def _is_wider(declared: pa.DataType, stored: pa.DataType) -> bool:
    """Whether every value of the stored type is one of the declared type, exactly."""
    types = pa.types
    if types.is_signed_integer(stored):
        if types.is_signed_integer(declared):
            return bool(declared.bit_width > stored.bit_width)
        if types.is_float64(declared):
            return bool(stored.bit_width <= 32)  # a double holds integers up to 53 bits
        digits = {8: 3, 16: 5, 32: 10, 64: 19}[stored.bit_width]
        return types.is_decimal(declared) and bool(declared.precision - declared.scale >= digits)
    if types.is_float32(stored):
        return bool(types.is_float64(declared))
    if types.is_decimal(stored) and types.is_decimal(declared):
        more = declared.precision - declared.scale >= stored.precision - stored.scale
        return bool(more and declared.scale >= stored.scale)
    return False


def _is_text(arrow: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow))


def _names(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "nothing"
