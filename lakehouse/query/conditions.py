"""What does a condition mean to each engine? What it means to Python: a null fulfils none, NaN only ``!=``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence, Set
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.snapshot import Condition, Value, quote_name

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_FUNCTIONS = {"=": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


def kept(rows: pa.Table, where: Sequence[Condition]) -> pa.Table:
    """The rows that fulfil all conditions."""
    for name, sign, value in where:
        column = rows[name]
        if sign == "in":
            found: Any = pa.chunked_array([pa.repeat(pa.scalar(False), rows.num_rows)])
            for item in cast("Sequence[Value]", value):
                found = pc.or_(found, pc.call_function("equal", [column, _scalar(item, column.type)]))
        else:
            found = pc.call_function(_FUNCTIONS[sign], [column, _scalar(cast(Value, value), column.type)])
        rows = rows.filter(found)
    return rows


def expression(where: Sequence[Condition], schema: pa.Schema) -> pc.Expression | None:
    """Conditions for pyarrow's datasets; None if there are none."""
    found = None
    for condition in where:
        one = _comparison(condition, schema)
        found = one if found is None else found & one
    return found


def sql(where: Sequence[Condition]) -> str | None:
    """Conditions on columns without NaN, in delta-rs's SQL dialect (DataFusion); None if there are none."""
    return " AND ".join(_condition_sql(condition) for condition in where) or None


def spark_rows(frame: DataFrame, where: Sequence[Condition], floating: Set[str]) -> DataFrame:
    """The rows of a Spark frame that fulfil all conditions; ``floating`` names the columns that may hold NaN."""
    from pyspark.sql import functions as F

    for name, sign, value in where:
        column = F.col(backquoted(name))
        values = list(value) if isinstance(value, (list, tuple)) else [cast(Value, value)]
        real = [F.lit(item) for item in values if not (isinstance(item, float) and math.isnan(item))]
        if sign == "in":
            frame = frame.where(column.isin(*real) if real else F.lit(False))
        elif not real:  # nothing but != holds between NaN and a value
            frame = frame.where(column.isNotNull() if sign == "!=" else F.lit(False))
        else:
            compared = _OPERATORS[sign](column, real[0])
            # To Spark, NaN is equal to itself and greater than any number.
            frame = frame.where(compared & ~F.isnan(column) if name in floating and sign != "!=" else compared)
    return frame


def backquoted(name: str) -> str:
    """A column's name for Spark, quoted."""
    return "`" + name.replace("`", "``") + "`"


def _comparison(condition: Condition, schema: pa.Schema) -> pc.Expression:
    name, sign, value = condition
    column = pc.field(name)
    kind = schema.field(name).type if name in schema.names else None
    if sign == "in":
        assert isinstance(value, Sequence) and not isinstance(value, str)
        equal = [column == _scalar(item, kind) for item in value]
        found = equal[0] if equal else pc.scalar(False)
        for one in equal[1:]:
            found = found | one
        return found
    scalar = _scalar(cast(Value, value), kind)
    return cast("pc.Expression", _OPERATORS[sign](column, scalar))


def _scalar(value: Value, kind: pa.DataType | None) -> pa.Scalar:
    """A value as Arrow has it; an instant in UTC, whatever zone it was given in."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return pa.scalar(value.astimezone(UTC), pa.timestamp("us", "UTC"))
    return pa.scalar(value, kind if isinstance(value, str) else None)


def _condition_sql(condition: Condition) -> str:
    column, operator, value = condition
    if operator == "in":
        assert isinstance(value, Sequence) and not isinstance(value, str)
        return f"{quote_name(column)} IN ({', '.join(_literal_sql(item) for item in value)})" if value else "false"
    return f"{quote_name(column)} {operator} {_literal_sql(cast(Value, value))}"


def _literal_sql(value: Value) -> str:
    """A value as a literal of delta-rs's SQL dialect (DataFusion)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return f"arrow_cast('{value}', 'Float64')"  # a bare inf would be a column's name
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime):
        utc = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        return f"arrow_cast('{utc}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, date):
        return f"arrow_cast('{value.isoformat()}', 'Date32')"
    return "'" + value.replace("'", "''") + "'"
