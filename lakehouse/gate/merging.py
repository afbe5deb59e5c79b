"""How do good rows reach the table? In one MERGE, whose commit says what became of them; colliding writers repeat it.

Of the rows of one key the newest goes in, of equally new ones the last of the batch; a stored row gives way to one that
is as new or newer. The commit is a Delta app transaction of its batch: made once, and found again after a kill.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.contract import Contract
from lakehouse.errors import TableBusyError, first_line
from lakehouse.gate.commits import GATE, Commit, commits, is_gated
from lakehouse.gate.staging import ROW_NUMBER, Batch
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta
from lakehouse.upkeep.acts import UNDERWAY, conflicts_explained

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: How often a MERGE is tried when other writers are quicker.
ATTEMPTS = 20


class Counts(BaseModel):
    """Where a batch's rows went before the merge; its commit carries it, so that a retry after a kill knows."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    rows_in: int
    rows_quarantined: int
    broken_rules: dict[str, int]


@dataclass(frozen=True)
class Merged:
    """A batch's own commit.

    Attributes:
        counts: what the commit carries.
        version: that it made.
        rows_published: rows that it inserted or updated.
    """

    counts: Counts
    version: int
    rows_published: int


def application(batch: Batch) -> str:
    """The name under which Delta knows the batch's transactions."""
    return f"{GATE}{batch.table}/{batch.batch_id}"


def merged_already(lake: Lakehouse, batch: Batch) -> Merged | None:
    """The batch's own commit, if an earlier attempt or another process got that far and nothing undid it."""
    table = open_delta(lake.uri(batch.table))
    if table.transaction_version(application(batch)) is None:
        return None
    kept = table.version()
    for commit in commits(lake, batch.table, kept):
        if commit.operation == "RESTORE":
            kept = min(kept, int(str(commit.parameters["version"])))
        if application(batch) in commit.transactions:
            if commit.version > kept:
                return None
            rows = commit.count("numTargetRowsInserted") + commit.count("numTargetRowsUpdated")
            return Merged(Counts.model_validate_json(commit.note), commit.version, rows)
    return None


def merge(
    spark: SparkSession, lake: Lakehouse, contract: Contract, batch: Batch, good: DataFrame, counts: Counts
) -> Merged:
    """Merge the newest good row of each key.

    Args:
        spark: a session of the batch's own: its settings name the transaction.
        good: the contract's columns and the rows' numbers.

    Raises:
        TableBusyError: other writers were quicker each time; nothing was merged.
    """
    from delta.tables import DeltaTable as SparkDelta

    uri = lake.uri(contract.table)
    winners = _newest(good, contract)
    same_key = " AND ".join(f"stored.`{name}` = fresh.`{name}`" for name in contract.key)
    clock = contract.event_time
    not_older = f"stored.`{clock}` <= fresh.`{clock}`" if clock else None
    reason = ""
    for attempt in range(ATTEMPTS):
        last = open_delta(uri).transaction_version(application(batch))
        # Delta skips a transaction that it has seen; one that a restore has undone must be made again.
        spark.conf.set("spark.databricks.delta.write.txnAppId", application(batch))
        spark.conf.set("spark.databricks.delta.write.txnVersion", str(0 if last is None else last + 1))
        spark.conf.set("spark.databricks.delta.commitInfo.userMetadata", counts.model_dump_json())
        try:
            merging = SparkDelta.forPath(spark, uri).alias("stored").merge(winners.alias("fresh"), same_key)
            merging.whenMatchedUpdateAll(condition=not_older).whenNotMatchedInsertAll().execute()
        except conflicts() as error:
            reason = first_line(error)
            # Writers that collided once don't collide again at once.
            time.sleep(random.uniform(0, 0.5 * (attempt + 1)))  # noqa: S311
        landed = merged_already(lake, batch)
        if landed is not None:
            return landed
    raise TableBusyError.changed(contract.table, reason)


def put_back(lake: Lakehouse, table: str, publications: Sequence[Publication]) -> None:
    """If the newest version failed its audit, put the table back to the one before: nothing is built on it.

    Merges that wait for their verdict stay: those made since the last published version, one after the other, not long
    ago. An older one was left by a writer that is gone, and is made again when its batch is.

    Raises:
        TableBusyError: another writer was quicker.
    """
    delta = open_delta(lake.uri(table))
    newest = delta.version()
    for commit in commits(lake, table, newest):
        if commit.operation != "OPTIMIZE":
            break
        newest = commit.version - 1  # a compaction that landed beside a writer has the rows of the version before
    if not any(p.version == newest and not p.published for p in publications):
        return
    good = max((p.version for p in publications if p.published), default=None)
    target = first_version(lake, table) if good is None else good
    decided = {p.version for p in publications}
    since = [c for c in commits(lake, table, delta.version()) if c.version > target]
    for commit in reversed(since):
        if not is_gated(commit) or commit.version in decided or _age(commit) > UNDERWAY.total_seconds():
            break
        target = commit.version
    if target != delta.version():
        from deltalake import CommitProperties

        with conflicts_explained(table):
            delta.restore(target, commit_properties=CommitProperties(max_commit_retries=0))


def first_version(lake: Lakehouse, table: str) -> int:
    """The version that making the table ended in: the last one before any row."""
    making = ("CREATE TABLE", "ADD CONSTRAINT", "SET TBLPROPERTIES")
    found = 0
    for commit in reversed(list(commits(lake, table, open_delta(lake.uri(table)).version()))):
        if commit.operation not in making:
            break
        found = commit.version
    return found


def conflicts() -> tuple[type[Exception], ...]:
    """What Delta raises when another writer's commit came first."""
    from delta import exceptions

    return (
        exceptions.DeltaConcurrentModificationException,
        exceptions.ConcurrentAppendException,
        exceptions.ConcurrentDeleteDeleteException,
        exceptions.ConcurrentDeleteReadException,
        exceptions.ConcurrentTransactionException,
        exceptions.ConcurrentWriteException,
        exceptions.MetadataChangedException,
        exceptions.ProtocolChangedException,
    )


def _newest(good: DataFrame, contract: Contract) -> DataFrame:
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    clock = contract.event_time
    newest = [F.col(f"`{clock}`").desc()] if clock else []
    keys = [F.col(f"`{name}`") for name in contract.key]
    window = Window.partitionBy(*keys).orderBy(*newest, F.col(ROW_NUMBER).desc())
    return good.withColumn("__rank", F.row_number().over(window)).where("__rank = 1").drop("__rank", ROW_NUMBER)


def _age(commit: Commit) -> float:
    return datetime.now(UTC).timestamp() - commit.timestamp / 1000
