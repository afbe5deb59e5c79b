"""What is a contract in Spark? Its types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.table import ColumnType

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
