"""How is a staged batch read and judged? In the contract's types, each row with what it keeps and what it breaks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lakehouse.deequ import RAW, REFERENCE, judge_rows
from lakehouse.errors import BatchSchemaError, UnknownTableError
from lakehouse.lake import Lakehouse
from lakehouse.staging import ROW_NUMBER, Batch
from lakehouse.table import Contract, declared_tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def check_columns(lake: Lakehouse, contract: Contract, batch: Batch) -> None:
    """BatchSchemaError for a column that is missing, unknown or there twice; an optional one may be left out."""
    import pyarrow.parquet as pq

    *brought, _ = pq.read_schema(io.BytesIO(lake.storage.read(batch.path))).names  # staging adds the rows' numbers last
    missing = [c.name for c in contract.columns if not c.nullable and c.name not in brought]
    unknown = [name for n, name in enumerate(brought) if name not in contract.names or name in brought[:n]]
    if missing or unknown:
        raise BatchSchemaError.columns(
            contract.table, batch.batch_id, batch.rows, missing=missing, unknown=unknown, known=contract.names
        )


def judged_rows(spark: SparkSession, lake: Lakehouse, contract: Contract, batch: Batch) -> DataFrame:
    """The batch in the contract's types, each row with its number, its raw JSON and a boolean for each rule."""
    from pyspark.sql import functions as F

    from lakehouse.spark_schema import as_declared, spark_type

    staged = spark.read.parquet(f"{lake.root}/{batch.path}")
    raw = staged.drop(ROW_NUMBER)
    as_it_came = F.to_json(F.struct(*[F.col(f"`{name}`") for name in raw.columns]), {"ignoreNullFields": "false"})
    frame = staged.withColumn("__json", as_it_came)
    for column in contract.columns:
        if column.name not in raw.columns:  # an optional one: it is null in every row
            frame = frame.withColumn(column.name, F.lit(None).cast(spark_type(column.type)))
        elif raw.schema[column.name].dataType != spark_type(column.type):
            frame = frame.withColumn(RAW + column.name, F.col(f"`{column.name}`"))
            declared = as_declared(column.name, raw.schema[column.name].dataType, column.type)
            frame = frame.withColumn(column.name, F.expr(declared))
        if column.references is not None:
            frame = _with_reference(frame, lake, column.name, column.references.table, column.references.column, spark)
    return judge_rows(frame, contract.rules, batch.day)


def _with_reference(
    frame: DataFrame, lake: Lakehouse, column: str, table: str, target: str, spark: SparkSession
) -> DataFrame:
    """Add ``__ref_<column>``: whether the value exists in the referenced table's published version."""
    from pyspark.sql import functions as F

    if table not in declared_tables():
        raise UnknownTableError.named(table, declared_tables())
    snapshot = lake.latest(declared_tables()[table])
    known = spark.read.format("delta").option("versionAsOf", snapshot.version).load(snapshot.uri)
    flag = REFERENCE + column
    known = known.select(F.col(f"`{target}`").alias(flag + "_value")).distinct().withColumn(flag, F.lit(True))
    joined = frame.join(F.broadcast(known), F.col(f"`{column}`") == F.col(flag + "_value"), "left")
    return joined.drop(flag + "_value").withColumn(flag, F.coalesce(F.col(flag), F.lit(False)))


def rule_column(name: str) -> str:
    """A column name for Spark; rules with a pattern may hold a backtick."""
    return "`" + name.replace("`", "``") + "`"
