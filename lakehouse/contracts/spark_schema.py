"""What is a contract in Spark? Its types, and which values of other types may stand for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.contracts.table import ColumnType

if TYPE_CHECKING:
    from pyspark.sql.types import DataType


def spark_type(column_type: ColumnType) -> DataType:
    """The Spark SQL type of a logical column type."""
    from pyspark.sql import types

    if column_type.kind == "list":
        assert column_type.item is not None
        return types.ArrayType(spark_type(column_type.item), containsNull=True)
    if column_type.kind == "struct":
        return types.StructType([types.StructField(m.name, spark_type(m.type)) for m in column_type.members])
    if column_type.kind == "decimal":
        return types.DecimalType(column_type.precision, column_type.scale)
    scalars: dict[str, type[DataType]] = {
        "int": types.LongType,
        "float": types.DoubleType,
        "bool": types.BooleanType,
        "str": types.StringType,
        "date": types.DateType,
        "datetime": types.TimestampType,
    }
    return scalars[column_type.kind]()


def as_declared(column: str, found: DataType, declared: ColumnType) -> str:
    """Spark SQL that brings a column of another type to its declared one; null where that would change the value.

    Text is read as what is declared, numbers become each other where nothing is lost (3.0 is an int, 3.7 is not), a
    date is the midnight it begins with. All else (a boolean as a number, a number as text or as an instant) is null.
    A list or a nested model is null as a whole if any part of it is; optional fields that it lacks are null.
    """
    value, kept = _converted(f"`{column}`", found, declared)
    return f"CAST(CASE WHEN {kept} THEN {value} END AS {spark_type(declared).simpleString()})"


def without_gaps(place: str, declared: ColumnType, depth: int = 0) -> str:
    """Spark SQL: whether no list in a value holds a null; a list[str] has no place for one either."""
    if declared.item is not None:
        item = f"item{depth}"
        whole = without_gaps(item, declared.item, depth + 1)
        return f"({place} IS NULL OR forall({place}, {item} -> {item} IS NOT NULL AND {whole}))"
    below = [without_gaps(f"{place}.`{m.name}`", m.type, depth) for m in declared.members]
    return " AND ".join(part for part in below if part != "true") or "true"


def _converted(place: str, found: DataType, declared: ColumnType, depth: int = 0) -> tuple[str, str]:
    """Two expressions: a value in its declared type, and whether nothing of it was lost by that."""
    from pyspark.sql.types import ArrayType, StructType

    target = spark_type(declared)
    if found == target:
        return place, "true"
    nothing = f"CAST(NULL AS {target.simpleString()})"
    if declared.item is not None and isinstance(found, ArrayType):
        item = f"item{depth}"
        value, kept = _converted(item, found.elementType, declared.item, depth + 1)
        return f"transform({place}, {item} -> {value})", f"({place} IS NULL OR forall({place}, {item} -> {kept}))"
    if declared.members and isinstance(found, StructType):
        values, keeps = [], []
        for member in declared.members:
            if member.name not in found.names:
                values.append(f"'{member.name}', CAST(NULL AS {spark_type(member.type).simpleString()})")
                continue
            value, kept = _converted(f"{place}.`{member.name}`", found[member.name].dataType, member.type, depth)
            values.append(f"'{member.name}', {value}")
            keeps.append(kept)
        whole = f"CASE WHEN {place} IS NOT NULL THEN named_struct({', '.join(values)}) END"
        return whole, f"({' AND '.join(keeps) or 'true'})"
    if declared.kind in ("list", "struct") or found.typeName() not in _SOURCES[declared.kind]:
        return nothing, f"({place} IS NULL)"
    cast = f"try_cast({place} AS {target.simpleString()})"
    # 3.50 need not be written as 3.5.
    same = (
        f"{cast} IS NOT NULL"
        if found.typeName() == "string"
        else f"try_cast({cast} AS {found.simpleString()}) = {place}"
    )
    return cast, f"({place} IS NULL OR coalesce({same}, false))"


_NUMBERS = ("byte", "short", "integer", "long", "float", "double", "decimal")
#: Spark's names of the types whose values may be meant by a declared kind.
_SOURCES: dict[str, tuple[str, ...]] = {
    "int": ("string", *_NUMBERS),
    "float": ("string", *_NUMBERS),
    "decimal": ("string", *_NUMBERS),
    "bool": ("string", "boolean"),
    "str": ("string",),
    "date": ("string", "date", "timestamp", "timestamp_ntz"),
    "datetime": ("string", "date", "timestamp", "timestamp_ntz"),
}
