"""How does a batch become a published version? Write, audit, publish: idempotent, and no row is ever lost.

The way of a batch, each step of which may be repeated after a kill:

1. judge: Deequ checks every row; each rule is a boolean column
2. quarantine: rows that broke a rule are appended, with every rule they broke (Delta app transaction)
3. merge: the newest good row of each key goes into the table (Delta app transaction; the commit carries the counts)
4. audit: Deequ checks the table at the new version
5. publish: one row in the ledger makes the version the latest published one

Conservation law: rows in = rows published + rows quarantined + duplicates dropped by key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from lakehouse.arrow import arrow_schema
from lakehouse.deequ import audit_table
from lakehouse.errors import (
    AuditError,
    BatchConflictError,
    StorageError,
    first_line,
)
from lakehouse.judging import check_columns, judged_rows, rule_column
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Metric, Publication
from lakehouse.snapshot import Snapshot, open_delta
from lakehouse.staging import ROW_NUMBER, Batch, stage, staged
from lakehouse.table import Contract, EventTime, Key, Table, read_contract

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

Row = TypeVar("Row", bound=Table)


class Quarantined(BaseModel):
    """One row that was refused, as it came, with every rule it broke."""

    quarantine_id: Annotated[str, Key(), Field(description="Batch and row number, as batch/number.")]
    batch_id: Annotated[str, Field(description="The batch that brought the row.")]
    row_number: Annotated[int, Field(ge=0, description="Place of the row in its batch, from 0.")]
    row: Annotated[str, Field(description="The row as it came, as a JSON object.")]
    rules: Annotated[list[str], Field(description="Every rule it broke.")]
    day: Annotated[date, Field(description="The day the batch was for.")]
    quarantined_at: Annotated[datetime, EventTime(), Field(description="When it was refused (UTC).")]


QUARANTINE = read_contract(Quarantined, "quarantine")


class Counts(BaseModel):
    """Where a batch's rows went; the merge's commit carries it, so that a retry after a kill knows."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    rows_in: int
    rows_published: int
    rows_quarantined: int
    rows_duplicate: int
    broken_rules: dict[str, int]


def publish(lake: Lakehouse, row_model: type[Row], batch: Batch) -> Snapshot[Row]:
    """Bring a staged batch through the gate and return the version that readers now get.

    Publishing the same batch again returns the version it ended in and starts no Spark.

    Raises:
        BatchSchemaError: a required column is missing, or one is unknown; nothing was written.
        AuditError: the new version failed its check; the version published before stays the latest.
        NotPublishedError: a referenced table has no published version yet.
        StorageError: Spark could not write or read (a full disk, say); publishing the batch again goes on from there.
    """
    contract = row_model.contract
    if (batch.lake_id, batch.table) != (lake.id, contract.table):
        raise BatchConflictError(
            f"Batch {batch.batch_id!r} was staged for table {batch.table!r} in another place.",
            fix=f"Stage it for {contract.table!r} in this lake.",
        )
    done = next((p for p in lake.publications(contract.table) if p.batch_id == batch.batch_id), None)
    if done is None:
        with _engine_failures_explained(contract, batch):
            done = _through_the_gate(lake, contract, batch)
        lake.ledger.append([done])
    if not done.published:
        good = [p.version for p in lake.publications(contract.table) if p.published]
        raise AuditError.failed(contract.table, done.version, done.failed_checks, max(good, default=None))
    return Snapshot(lake.uri(contract.table), done.version, row_model)


def publish_rows(
    lake: Lakehouse, row_model: type[Row], rows: Callable[[], pa.Table], *, batch_id: str, day: date
) -> Snapshot[Row]:
    """Stage and publish rows that are made here, through the same gate; ``rows`` is called only if none are staged.

    A retry after a kill finds the batch as it was staged, even if making it now would give other rows.
    """
    batch = staged(lake, row_model, batch_id=batch_id, day=day)
    if batch is None:
        batch = stage(lake, row_model, rows(), batch_id=batch_id, day=day)
    return publish(lake, row_model, batch)


def create_table(lake: Lakehouse, contract: Contract) -> None:
    """Make the empty Delta table of a contract, with comments and CHECK constraints, unless it is there."""
    _create(lake.uri(contract.table), contract)


def _create(path: str, contract: Contract) -> None:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable.create(
            path, arrow_schema(contract), mode="ignore", name=contract.table, description=contract.description
        )
        present = {key.removeprefix("delta.constraints.") for key in table.metadata().configuration}
        missing = {name: sql for name, sql in check_constraints(contract).items() if name not in present}
        if missing:
            table.alter.add_constraint(missing)
    except (DeltaError, OSError) as error:
        raise StorageError(
            f"Table {contract.table!r} can't be created: {str(error).splitlines()[0]}.",
            fix="Check that the disk has room and the lake's folder can be written.",
        ) from error


def check_constraints(contract: Contract) -> dict[str, str]:
    """The bounds that Delta itself enforces on every writer, by constraint name."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found: dict[str, list[str]] = {}
    for rule in contract.rules:
        if rule.kind in signs:
            nullable = contract.column(rule.column).nullable
            bound = f"{rule.column} {signs[rule.kind]} {rule.value}"
            found.setdefault(rule.column, []).append(f"({rule.column} IS NULL OR {bound})" if nullable else bound)
    return {f"{column}_range": " AND ".join(bounds) for column, bounds in found.items()}


@contextmanager
def _engine_failures_explained(contract: Contract, batch: Batch) -> Iterator[None]:
    """Say what is behind an error of Spark's in one sentence; its own message is a stack trace."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("py4j", "pyspark")):
            raise
        causes = re.findall(r"Caused by: (?:[\w.$]+: )?(.+)", str(error))
        raise StorageError(
            f"Batch {batch.batch_id!r} could not be published into {contract.table!r}: "
            f"{causes[-1].strip() if causes else first_line(error)}.",
            fix="Mend that (free disk space, permissions) and run again: the batch waits in staging, nothing is lost.",
        ) from error


def _through_the_gate(lake: Lakehouse, contract: Contract, batch: Batch) -> Publication:
    from lakehouse.spark import spark_session

    check_columns(lake, contract, batch)
    create_table(lake, contract)
    table = open_delta(lake.uri(contract.table))
    merged = _merged_already(table, batch)
    spark = spark_session()
    if merged is None:
        _drop_unpublished(lake, contract, table)
        counts, version = _judge_and_merge(spark, lake, contract, batch)
    else:
        counts, version = merged
    current = spark.read.format("delta").option("versionAsOf", version).load(lake.uri(contract.table))
    verdict = audit_table(current, contract)
    now = datetime.now(UTC)
    lake.ledger.append(
        [
            Metric(
                metric_id=f"{contract.table}@{version}/{name}/{column}",
                table_name=contract.table,
                version=version,
                metric=name,
                column=column,
                value=value,
                measured_at=now,
            )
            for name, column, value in verdict.metrics
        ]
    )
    return Publication(
        publication_id=f"{contract.table}/{batch.batch_id}@{version}",
        table_name=contract.table,
        batch_id=batch.batch_id,
        day=batch.day,
        version=version,
        published=not verdict.failed,
        rows_in=counts.rows_in,
        rows_published=counts.rows_published,
        rows_quarantined=counts.rows_quarantined,
        rows_duplicate=counts.rows_duplicate,
        rows_total=int(next(value for name, _, value in verdict.metrics if name == "Size")),
        failed_checks=list(verdict.failed),
        broken_rules=json.dumps(counts.broken_rules, sort_keys=True),
        fingerprint=contract.fingerprint,
        published_at=now,
    )


def _application(batch: Batch) -> str:
    return f"millrace/{batch.table}/{batch.batch_id}"


def _merged_already(table: DeltaTable, batch: Batch) -> tuple[Counts, int] | None:
    """The counts and version of the batch's own commit, if an earlier attempt got that far and nothing undid it."""
    if table.transaction_version(_application(batch)) is None:
        return None
    kept = table.version()
    for entry in table.history():  # newest first
        if entry["operation"] == "RESTORE":
            kept = min(kept, int(entry["operationParameters"]["version"]))
        metadata = entry.get("userMetadata")
        if metadata:
            counts = Counts.model_validate_json(metadata)
            if counts.batch_id == batch.batch_id:
                version = int(entry["version"])
                return (counts, version) if version <= kept else None
    return None


def _drop_unpublished(lake: Lakehouse, contract: Contract, table: DeltaTable) -> None:
    """Put the table back to its published version if the newest one failed its audit: nothing is built on it."""
    publications = lake.publications(contract.table)
    if any(p.version == table.version() and not p.published for p in publications):
        good = [p.version for p in publications if p.published]
        target = max(good) if good else _first_empty_version(table)
        if target != table.version():
            table.restore(target)


def _first_empty_version(table: DeltaTable) -> int:
    """The version that making the table ended in: the last one before any row."""
    making = ("CREATE TABLE", "ADD CONSTRAINT")
    return next(int(entry["version"]) for entry in table.history() if entry["operation"] in making)


def _judge_and_merge(spark: SparkSession, lake: Lakehouse, contract: Contract, batch: Batch) -> tuple[Counts, int]:
    judged = judged_rows(spark, lake, contract, batch).cache()
    try:
        rules = [rule.name for rule in contract.rules]
        from pyspark.sql import functions as F

        broken = F.filter(
            F.array(*[F.when(~F.col(rule_column(name)), F.lit(name)) for name in rules]), lambda name: name.isNotNull()
        )
        judged = judged.withColumn("__broken", broken)
        # One pass counts what every rule refused; position by position, for a rule's name may hold anything.
        refusals = [F.count_if(~F.col(rule_column(name))) for name in rules]
        (counted,) = judged.agg(F.count_if(F.size("__broken") > 0), *refusals).collect()
        quarantined, *refused = counted
        by_rule = {name: count for name, count in zip(rules, refused, strict=True) if count}
        if quarantined:
            _quarantine(lake, contract, batch, judged.where(F.size("__broken") > 0))
        good = judged.where(F.size("__broken") == 0).select(ROW_NUMBER, *contract.names)
        return _merge(spark, lake, contract, batch, good, quarantined, by_rule)
    finally:
        judged.unpersist()


def _quarantine(lake: Lakehouse, contract: Contract, batch: Batch, bad: DataFrame) -> None:
    """Append the refused rows, once for each batch."""
    from pyspark.sql import functions as F

    path = lake.quarantine_uri(contract.table)
    _create(path, QUARANTINE)
    rows = bad.select(
        F.concat(F.lit(f"{batch.batch_id}/"), F.col(ROW_NUMBER).cast("string")).alias("quarantine_id"),
        F.lit(batch.batch_id).alias("batch_id"),
        F.col(ROW_NUMBER).alias("row_number"),
        F.col("__json").alias("row"),
        F.col("__broken").alias("rules"),
        F.lit(batch.day).alias("day"),
        F.current_timestamp().alias("quarantined_at"),
    )
    writer = rows.write.format("delta").mode("append")
    writer.option("txnAppId", _application(batch)).option("txnVersion", 0).save(path)


def _merge(
    spark: SparkSession,
    lake: Lakehouse,
    contract: Contract,
    batch: Batch,
    good: DataFrame,
    quarantined: int,
    by_rule: dict[str, int],
) -> tuple[Counts, int]:
    """Merge the newest good row of each key; rows that lose to a newer one are counted as duplicates."""
    from delta.tables import DeltaTable as SparkDelta
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    path = lake.uri(contract.table)
    clock = contract.event_time
    newest = [F.col(clock).desc()] if clock else []
    window = Window.partitionBy(*contract.key).orderBy(*newest, F.col(ROW_NUMBER).desc())
    ranked = good.withColumn("__rank", F.row_number().over(window))
    winners = ranked.where("__rank = 1").drop("__rank", ROW_NUMBER)
    target = spark.read.format("delta").load(path)
    same_key = " AND ".join(f"stored.`{name}` = fresh.`{name}`" for name in contract.key)
    older = f"stored.`{clock}` > fresh.`{clock}`" if clock else "false"
    winners = (
        winners.alias("fresh").join(target.alias("stored"), F.expr(f"{same_key} AND {older}"), "left_anti").cache()
    )
    try:
        published = winners.count()
        counts = Counts(
            batch_id=batch.batch_id,
            rows_in=batch.rows,
            rows_published=published,
            rows_quarantined=quarantined,
            rows_duplicate=batch.rows - quarantined - published,
            broken_rules=by_rule,
        )
        table = open_delta(path)
        if not published:
            return counts, table.version()
        with _CommitAs(spark, batch, counts, attempt=table.transaction_version(_application(batch))):
            if table.count() == 0:
                winners.write.format("delta").mode("append").save(path)
            else:
                merge = SparkDelta.forPath(spark, path).alias("stored").merge(winners.alias("fresh"), same_key)
                merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    finally:
        winners.unpersist()
    landed = _merged_already(open_delta(path), batch)
    assert landed is not None, "the commit carries the batch's own transaction"
    return landed


class _CommitAs:
    """While open, Delta commits of this session carry the batch's transaction and counts."""

    def __init__(self, spark: SparkSession, batch: Batch, counts: Counts, *, attempt: int | None) -> None:
        self.spark = spark
        # Delta skips a transaction that it has seen; one that a restore has undone must be made again.
        number = 0 if attempt is None else attempt + 1
        self.options = {
            "spark.databricks.delta.write.txnAppId": _application(batch),
            "spark.databricks.delta.write.txnVersion": str(number),
            "spark.databricks.delta.commitInfo.userMetadata": counts.model_dump_json(),
        }

    def __enter__(self) -> None:
        for key, value in self.options.items():
            self.spark.conf.set(key, value)

    def __exit__(self, *exc: object) -> None:
        for key in self.options:
            self.spark.conf.unset(key)


def quarantined(lake: Lakehouse, name: str) -> Snapshot[Table] | None:
    """The quarantine beside a table at its newest version; None if nothing was ever refused."""
    from deltalake import DeltaTable

    path = lake.quarantine_uri(name)
    if not DeltaTable.is_deltatable(path):
        return None
    return cast("Snapshot[Table]", Snapshot(path, DeltaTable(path).version()))
