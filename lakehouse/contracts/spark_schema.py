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
    """
    if not _converts(found, declared):
        return f"CAST(NULL AS {spark_type(declared).simpleString()})"
    cast = f"try_cast(`{column}` AS {spark_type(declared).simpleString()})"
    if found.typeName() == "string":  # 3.50 need not be written as 3.5
        return cast
    return f"CASE WHEN try_cast({cast} AS {found.simpleString()}) = `{column}` THEN {cast} END"


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


def _converts(found: DataType, declared: ColumnType) -> bool:
    from pyspark.sql.types import ArrayType

    if declared.kind == "list":
        assert declared.item is not None
        return isinstance(found, ArrayType) and _converts(found.elementType, declared.item)
    return found.typeName() in _SOURCES[declared.kind]
