"""Which rows could a table hold? Hypothesis strategies, made from a row model's contract, for tests of views.

Values keep the column's own rules (bounds, lengths, patterns, choices). Keys come from a handful of values, so that
rows meet, and datetimes from two months, so that windows fill and empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias

import pyarrow as pa
from hypothesis import strategies as st

from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Column, ColumnType, Contract

#: Generated datetimes lie from here, a midnight, on.
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
#: … to this many days later.
DAYS = 60

# As many different values of a key column are generated.
_KEYS = 3
# What a number without bounds is kept to.
_FAR = 1000

Row: TypeAlias = dict[str, object]
Values: TypeAlias = Mapping[str, st.SearchStrategy[object]]
_Rules: TypeAlias = Mapping[str, object]


def instants() -> st.SearchStrategy[datetime]:
    """Instants of the two months: midnights, or any minute."""
    minutes = st.integers(0, DAYS).map(lambda day: day * 24 * 60) | st.integers(0, DAYS * 24 * 60)
    return minutes.map(lambda minute: FIRST + timedelta(minutes=minute))


def row_lists(
    contract: Contract,
    columns: Sequence[str],
    *,
    few: Sequence[str] = (),
    values: Values | None = None,
    max_size: int = 12,
) -> st.SearchStrategy[list[Row]]:
    """Lists of rows with these columns.

    Args:
        contract: declares them.
        columns: names, in the order wanted.
        few: columns that have at most three different values, beside those of the key.
        values: strategies for columns, instead of those made from the contract.
        max_size: of a list.
    """
    given = values or {}
    made = {name: given.get(name, _column(contract.column(name), name in few)) for name in columns}
    return st.lists(st.fixed_dictionaries(made), max_size=max_size)


def as_table(contract: Contract, columns: Sequence[str], rows: Sequence[Row]) -> pa.Table:
    """The rows as a table with these columns."""
    schema = arrow_schema(contract)
    return pa.Table.from_pylist(list(rows), schema=pa.schema([schema.field(name) for name in columns]))


def _column(column: Column, few: bool) -> st.SearchStrategy[object]:
    counted = _few(column.type, _rules_at(column, column.name)) if column.key or few else None
    values = _values(column, column.type, column.name) if counted is None else counted
    return st.none() | values if column.nullable else values


def _rules_at(column: Column, path: str) -> _Rules:
    return {rule.kind: rule.value for rule in column.rules if rule.column == path}


def _few(kind: ColumnType, rules: _Rules) -> st.SearchStrategy[object] | None:
    """One of a few values; None where rules leave no simple way to count them."""
    if kind.kind == "int" and "multiple_of" not in rules:
        low, high = _range(rules, 1)
        return st.integers(max(low, 1) if high >= 1 else low, high if high < _KEYS else max(low, 1) + _KEYS - 1)
    if kind.kind == "str" and not {"pattern", "one_of"} & set(rules):
        return st.sampled_from([letter * max(_length(rules, "min_length", 1), 1) for letter in "abc"[:_KEYS]])
    return None


def _values(column: Column, kind: ColumnType, path: str) -> st.SearchStrategy[object]:
    """Values of a column, or of the part of it that a path leads to."""
    rules = _rules_at(column, path)
    if kind.kind in ("int", "float", "decimal"):
        return _numbers(kind, rules)
    if kind.kind == "bool":
        return st.booleans()
    if kind.kind == "str":
        return _texts(rules)
    if kind.kind == "datetime":
        return instants()
    if kind.kind == "date":
        return instants().map(lambda instant: instant.date())
    if kind.kind == "struct":
        parts = {member.name: _values(column, member.type, f"{path}.{member.name}") for member in kind.members}
        optional = {member.name: st.none() | parts[member.name] for member in kind.members if member.nullable}
        return st.fixed_dictionaries(parts | optional)
    assert kind.item is not None, f"no values are generated for the type {kind}"
    size = _length(rules, "min_length", 0)
    items = _values(column, kind.item, f"{path}[]")
    return st.lists(items, min_size=size, max_size=_length(rules, "max_length", size + 3))


def _numbers(kind: ColumnType, rules: _Rules) -> st.SearchStrategy[object]:
    """Whole multiples of a step, so that bounds and steps hold exactly; floats without a step are any in between."""
    if kind.kind == "float" and "multiple_of" not in rules:
        low, high = _bounds(rules)
        return st.floats(low, high, exclude_min="gt" in rules, exclude_max="lt" in rules, allow_subnormal=False)
    if kind.kind == "decimal":
        step = Decimal(str(rules.get("multiple_of", Decimal(1).scaleb(-kind.scale))))
        whole = _range(rules, step)
        return st.integers(*whole).map(lambda number: number * step)
    given = rules.get("multiple_of", 1)
    unit = float(str(given)) if kind.kind == "float" else int(str(given))
    return st.integers(*_range(rules, unit)).map(lambda number: number * unit)


def _range(rules: _Rules, step: float | Decimal) -> tuple[int, int]:
    """The least and the greatest number of steps that the bounds allow."""
    low, high = (Decimal(str(bound)) / Decimal(str(step)) for bound in _bounds(rules))
    first = math.floor(low) + 1 if "gt" in rules else math.ceil(low)
    last = math.ceil(high) - 1 if "lt" in rules else math.floor(high)
    return first, last


def _bounds(rules: _Rules) -> tuple[float, float]:
    low = next((float(str(rules[kind])) for kind in ("ge", "gt") if kind in rules), None)
    high = next((float(str(rules[kind])) for kind in ("le", "lt") if kind in rules), None)
    if low is None:
        low = -_FAR if high is None else high - _FAR
    return low, low + 2 * _FAR if high is None else high


def _texts(rules: _Rules) -> st.SearchStrategy[object]:
    choices = rules.get("one_of")
    if isinstance(choices, tuple):
        return st.sampled_from(choices)
    if "pattern" in rules:
        return st.from_regex(str(rules["pattern"]), fullmatch=True)
    size = _length(rules, "min_length", 0)
    return st.text("abc é", min_size=size, max_size=_length(rules, "max_length", size + 3))


def _length(rules: _Rules, kind: str, default: int) -> int:
    value = rules.get(kind, default)
    return min(int(str(value)), 100)
