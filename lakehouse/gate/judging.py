"""How is a staged batch read and judged? In the contract's types, each row with what it keeps and what it breaks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakehouse.contracts.arrow import is_list
from lakehouse.contracts.contract import ColumnType, Contract
from lakehouse.contracts.table import declared_tables
from lakehouse.errors import BatchSchemaError, UnknownTableError
from lakehouse.gate.deequ import RAW, REFERENCE, judge_rows
from lakehouse.gate.staging import Batch
from lakehouse.lake import Lakehouse
from lakehouse.privacy.tombstones import erased_values

#: Columns that judging adds.
ERASED = "__erased"
BROKEN = "__broken"
AS_IT_CAME = "__json"

#: The one rule of a row that names an erased person.
ERASED_RULE = "erased"

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession


def check_columns(lake: Lakehouse, contract: Contract, batch: Batch) -> None:
    """BatchSchemaError for a column that is missing, unknown or there twice; an optional one may be left out."""
    import pyarrow.parquet as pq

    schema = pq.read_schema(io.BytesIO(lake.storage.read(batch.path)))
    *brought, _ = schema.names  # staging adds the rows' numbers last
    missing = [c.name for c in contract.columns if not c.nullable and c.name not in brought]
    unknown = [name for n, name in enumerate(brought) if name not in contract.names or name in brought[:n]]
    for column in contract.columns:
        if brought.count(column.name) == 1:
            _compare_nested(column.name, column.type, schema.field(column.name).type, missing, unknown)
    if missing or unknown:
        raise BatchSchemaError.columns(
            contract.table, batch.batch_id, batch.rows, missing=missing, unknown=unknown, known=contract.names
        )


def _compare_nested(
    path: str, declared: ColumnType, brought: pa.DataType, missing: list[str], unknown: list[str]
) -> None:
    """Add the nested fields that a column lacks or has too many; one of another type is for each row to answer for."""
    import pyarrow as pa

    if declared.item is not None and is_list(brought):
        _compare_nested(f"{path}[]", declared.item, brought.value_type, missing, unknown)
    elif declared.members and pa.types.is_struct(brought):
        there = [field.name for field in brought]
        names = [member.name for member in declared.members]
        missing += [f"{path}.{m.name}" for m in declared.members if not m.nullable and m.name not in there]
        unknown += [f"{path}.{name}" for n, name in enumerate(there) if name not in names or name in there[:n]]
        for member in declared.members:
            if there.count(member.name) == 1:
                _compare_nested(f"{path}.{member.name}", member.type, brought.field(member.name).type, missing, unknown)


def typed_rows(spark: SparkSession, lake: Lakehouse, contract: Contract, batch: Batch) -> DataFrame:
    """The batch in the contract's types, with what the rules need to be asked.

    Each row has its number, ``__raw_<column>`` as the value came where it was cast, ``__ref_<column>`` whether a
    reference is there, and ``__erased``: whether it names a person who was erased.
    """
    from pyspark.sql import functions as F

    from lakehouse.contracts.spark_schema import as_declared, spark_type

    frame = staged = spark.read.parquet(f"{lake.root}/{batch.path}")
    for column in contract.columns:
        if column.name not in staged.columns:  # an optional one: it is null in every row
            frame = frame.withColumn(column.name, F.lit(None).cast(spark_type(column.type)))
        elif staged.schema[column.name].dataType != spark_type(column.type):
            frame = frame.withColumn(RAW + column.name, F.col(f"`{column.name}`"))
            declared = as_declared(column.name, staged.schema[column.name].dataType, column.type)
            frame = frame.withColumn(column.name, F.expr(declared))
    for column in contract.columns:
        if column.references is not None:
            frame = _with_reference(frame, lake, column.name, column.references.table, column.references.column, spark)
    return frame.withColumn(ERASED, F.expr(_names_an_erased_person(lake, contract, frame.columns)))


def judged_rows(rows: DataFrame, contract: Contract, batch: Batch) -> DataFrame:
    """Typed rows with a boolean for each rule, ``__broken``: the rules they break, and ``__json``: the row as it came.

    Of a row that names an erased person nothing is kept but that it does.
    """
    from pyspark.sql import functions as F

    brought = [name for name in rows.columns if name in contract.names]
    came = [F.col(f"`{RAW + name if RAW + name in rows.columns else name}`").alias(name) for name in brought]
    as_it_came = F.to_json(F.struct(*came), {"ignoreNullFields": "false"})
    rules = [F.when(~F.col(rule_column(rule.name)), F.lit(rule.name)) for rule in contract.rules]
    broken = F.filter(F.array(*rules), lambda name: name.isNotNull())
    judged = judge_rows(rows, contract, batch.day)
    judged = judged.withColumn(BROKEN, F.when(F.col(ERASED), F.array(F.lit(ERASED_RULE))).otherwise(broken))
    return judged.withColumn(AS_IT_CAME, F.when(F.col(ERASED), F.lit("{}")).otherwise(as_it_came))


def _names_an_erased_person(lake: Lakehouse, contract: Contract, present: Sequence[str]) -> str:
    """A condition in Spark SQL: a tombstone's value in its column, as declared or as it came."""
    asked = [
        tombstones.condition(name)
        for column, tombstones in erased_values(lake, contract).items()
        for name in (column, RAW + column)
        if name in present
    ]
    return " OR ".join(asked) or "false"


def _with_reference(
    frame: DataFrame, lake: Lakehouse, column: str, table: str, target: str, spark: SparkSession
) -> DataFrame:
    """Add ``__ref_<column>``: whether the value exists in the referenced table's published version."""
    from pyspark.sql import functions as F

    if table not in declared_tables():
        raise UnknownTableError.named(table, declared_tables())
    snapshot = lake.latest(declared_tables()[table])
    flag = REFERENCE + column
    known = spark.read.format("delta").option("versionAsOf", snapshot.version).load(snapshot.uri)
    known = known.select(F.col(f"`{target}`").alias(flag + "_value"))
    if snapshot.row.contract.key != (target,):  # a whole key has each value once
        known = known.distinct()
    # Spark sends the smaller side to the other if it fits into memory, and sorts both if it doesn't.
    joined = frame.join(known, F.col(f"`{column}`") == F.col(flag + "_value"), "left")
    return joined.withColumn(flag, F.col(flag + "_value").isNotNull()).drop(flag + "_value")


def rule_column(name: str) -> str:
    """A column name for Spark; rules with a pattern may hold a backtick."""
    return "`" + name.replace("`", "``") + "`"
