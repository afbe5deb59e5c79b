"""Which stored rows break a rule that has become stricter? Counted over one column, with the keys of the first few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import getitem
from typing import TYPE_CHECKING, Annotated, Any, cast

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from lakehouse.contracts.arrow import records
from lakehouse.contracts.table import Contract, Rule, Table, declared_tables
from lakehouse.errors import MAX_EXAMPLES
from lakehouse.lake import Lakehouse

if TYPE_CHECKING:
    from deltalake import DeltaTable

#: How many rows break it, and the keys of the first five.
Broken = tuple[int, tuple[str, ...]]

#: pydantic's words for what breaks a rule.
_ERRORS = {
    "ge": {"greater_than_equal"},
    "gt": {"greater_than"},
    "le": {"less_than_equal"},
    "lt": {"less_than"},
    "multiple_of": {"multiple_of"},
    "min_length": {"string_too_short", "too_short"},
    "max_length": {"string_too_long", "too_long"},
    "pattern": {"string_pattern_mismatch"},
    "one_of": {"literal_error", "enum"},
}


def broken_rule(lake: Lakehouse, table: DeltaTable, row_model: type[Table], rule: Rule) -> Broken:
    """The stored rows that the declared column's own validation refuses for this rule; reads one column and the key."""
    contract = row_model.contract
    if rule.kind == "references":
        column = contract.column(rule.column)
        assert column.references is not None
        target = lake.latest(declared_tables()[column.references.table])
        known = set(target.arrow([column.references.column]).column(0).to_pylist()) | {None}
        return _counted(
            contract,
            ([row for row in rows if row[rule.column] not in known] for rows in _rows(table, contract, rule.column)),
        )
    field = row_model.model_fields[rule.top]
    # A call, since the type is made here. Markers such as Key mean nothing to pydantic, which leaves them alone.
    declared: Any = getitem(cast(Any, Annotated), (field.annotation, None, *field.metadata))
    adapter: TypeAdapter[Any] = TypeAdapter(list[declared])
    return _counted(
        contract,
        (
            [rows[n] for n in _refused(adapter, [r[rule.top] for r in rows], rule)]
            for rows in _rows(table, contract, rule.top)
        ),
    )


def broken_constraint(table: DeltaTable, contract: Contract, sql: str) -> Broken:
    """The stored rows that break a CHECK constraint of the contract's own; the table's columns may still lack some."""
    from deltalake import QueryBuilder

    key = [name for name in contract.key if name in pa.schema(table.schema().to_arrow()).names]
    chosen = ", ".join(f'"{name}"' for name in key)
    builder = QueryBuilder().register("stored", table)
    # The condition is the contract's own, quoted where it was made.
    found = pa.table(builder.execute(f"SELECT {chosen} FROM stored WHERE NOT ({sql})"))  # noqa: S608
    return found.num_rows, tuple(_named(row, key) for row in found.slice(0, MAX_EXAMPLES).to_pylist())


def _rows(table: DeltaTable, contract: Contract, column: str) -> Iterator[list[dict[str, Any]]]:
    wanted = list(dict.fromkeys([*contract.key, column]))
    for batch in pa.RecordBatchReader.from_stream(table.scan(columns=wanted)):
        yield list(records(pa.Table.from_batches([batch])))


def _refused(adapter: TypeAdapter[Any], values: list[Any], rule: Rule) -> list[int]:
    """Places of the values that break this very rule."""
    if rule.kind == "required":
        return [n for n, value in enumerate(values) if any(v is None for v in values_at(value, rule.steps[1:]))]
    try:
        adapter.validate_python(values)
    except ValidationError as error:
        words = _ERRORS.get(rule.kind)
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        at = [e for e in errors if rule.steps[1:] == _steps(e["loc"][1:]) and (words is None or e["type"] in words)]
        return list(dict.fromkeys(int(e["loc"][0]) for e in at))
    return []


def _steps(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Where pydantic found an error, as a rule's path has it."""
    return tuple("[]" if isinstance(step, int) else step for step in location)


def values_at(value: Any, steps: Sequence[str]) -> Iterator[Any]:
    """Every value that a rule's path leads to; below what is not there, there is none."""
    if not steps:
        yield value
    elif steps[0] == "[]":
        for below in value if isinstance(value, list) else ():
            yield from values_at(below, steps[1:])
    elif isinstance(value, dict):
        yield from values_at(value.get(steps[0]), steps[1:])


def _counted(contract: Contract, broken: Iterator[list[dict[str, Any]]]) -> Broken:
    count = 0
    examples: list[str] = []
    for rows in broken:
        count += len(rows)
        examples += [_named(row, list(contract.key)) for row in rows[: MAX_EXAMPLES - len(examples)]]
    return count, tuple(examples)


def _named(row: dict[str, Any], key: list[str]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in key)
