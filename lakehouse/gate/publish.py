"""How does a batch become a published version? Write, audit, publish: idempotent, and no row is ever lost.

The way of a batch, each step of which may be repeated after a kill:

1. judge: Deequ checks every row; each rule is a boolean column
2. quarantine: rows that broke a rule are appended, with every rule they broke (Delta app transaction)
3. merge: the newest good row of each key goes into the table (Delta app transaction; the commit carries the counts)
4. audit: Deequ's metrics of the new version are judged
5. publish: one row in the ledger makes the version the latest published one

Conservation law: rows in = rows published + rows quarantined + duplicates dropped by key.

Several writers may publish into one table at once: Delta lets one MERGE at a time through, the others repeat theirs,
and each audits the version that its own commit made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal, TypeVar

from lakehouse.contracts.contract import Contract
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.evolution import bring_up
from lakehouse.contracts.table import Table
from lakehouse.errors import AuditError, BatchConflictError, StorageError, TableBusyError, first_line
from lakehouse.gate.auditing import Verdict, audit, record
from lakehouse.gate.judging import BROKEN, ERASED, ERASED_RULE, check_columns, judged_rows, rule_column, typed_rows
from lakehouse.gate.merging import Counts, Merged, first_version, merge, merged_already, put_back
from lakehouse.gate.quarantine import refuse, refused_rows
from lakehouse.gate.staging import ROW_NUMBER, Batch, let_go, stage, staged
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.snapshot import Snapshot
from lakehouse.tracing.openlineage import announce
from lakehouse.upkeep.acts import settle
from lakehouse.upkeep.restore import withdrawn

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

Row = TypeVar("Row", bound=Table)

#: How often a batch is merged again when its merge was undone before it could be published.
_ATTEMPTS = 3


def publish(
    lake: Lakehouse,
    row_model: type[Row],
    batch: Batch,
    *,
    inputs: Sequence[str] = (),
    kind: Literal["batch", "requeue"] = "batch",
) -> Snapshot[Row]:
    """Bring a staged batch through the gate and return the version that readers now get.

    Publishing the same batch again returns the version it ended in and starts no Spark. A batch comes through the gate
    anew if a restore has withdrawn it; and after a failed audit, if the contract has changed since or a later version
    was published. Otherwise its verdict stands.

    Args:
        lake: the lake.
        row_model: of the table.
        batch: as ``stage`` gave it.
        inputs: versions that the rows were made from, as table@version; the ledger keeps them.
        kind: what the ledger calls the batch; corrected rows out of the quarantine are a ``requeue``.

    Raises:
        BatchSchemaError: a required column is missing, or one is unknown; nothing was written.
        AuditError: the new version failed its check; the version published before stays the latest.
        NotPublishedError: a referenced table has no published version yet.
        EvolutionError: the stored table can't become what the row model declares; nothing was written.
        TableBusyError: other writers were quicker, many times over; publish the batch again.
        StorageError: Spark could not write or read (a full disk, say); publishing the batch again goes on from there.
    """
    contract = row_model.contract
    if (batch.lake_id, batch.table) != (lake.id, contract.table):
        raise BatchConflictError(
            f"Batch {batch.batch_id!r} was staged for table {batch.table!r} in another place.",
            fix=f"Stage it for {contract.table!r} in this lake.",
        )
    publications = settle(lake, contract.table)
    done = _decided(publications, contract, batch)
    if done is None:
        with _engine_failures_explained(contract, batch):
            done = _through_the_gate(lake, contract, batch, kind, list(inputs))
    if ERASED_RULE in json.loads(done.broken_rules):
        _forget_the_erased(lake, batch)
    if not done.published:
        good = [p.version for p in lake.publications(contract.table) if p.published]
        raise AuditError.failed(contract.table, done.version, done.failed_checks, max(good, default=None))
    return Snapshot(lake.uri(contract.table), done.version, row_model)


def publish_rows(
    lake: Lakehouse,
    row_model: type[Row],
    rows: Callable[[], pa.Table],
    *,
    batch_id: str,
    day: date,
    inputs: Sequence[str] = (),
) -> Snapshot[Row]:
    """Stage and publish rows that are made here, through the same gate; ``rows`` is called only if none are staged.

    A retry after a kill finds the batch as it was staged, even if making it now would give other rows.
    """
    batch = staged(lake, row_model, batch_id=batch_id, day=day)
    if batch is None:
        batch = stage(lake, row_model, rows(), batch_id=batch_id, day=day)
    return publish(lake, row_model, batch, inputs=inputs)


def _decided(publications: Sequence[Publication], contract: Contract, batch: Batch) -> Publication | None:
    """The verdict on the batch that stands; None if it must come through the gate (again)."""
    gone = withdrawn(publications)
    own = [p for p in publications if p.batch_id == batch.batch_id and p.publication_id not in gone]
    if not own:
        return None
    last = max(own, key=lambda p: p.published_at)
    later = any(p.published and p.version > last.version for p in publications)
    mended = last.fingerprint != contract.fingerprint or later
    return None if not last.published and mended else last


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


def _through_the_gate(
    lake: Lakehouse, contract: Contract, batch: Batch, kind: Literal["batch", "requeue"], inputs: list[str]
) -> Publication:
    from lakehouse.spark import spark_session

    check_columns(lake, contract, batch)
    create_table(lake, contract)
    spark = spark_session(lake.root).newSession()  # its settings are this batch's alone
    for _ in range(_ATTEMPTS):
        put_back(lake, contract.table, lake.publications(contract.table))
        merged: Merged | Counts | None = merged_already(lake, batch)
        if merged is None:
            bring_up(lake, contract)
            merged = _judged_and_merged(spark, lake, contract, batch)
        publications = lake.publications(contract.table)
        if isinstance(merged, Counts):
            version, verdict = _unchanged(lake, contract, publications)
            counts, rows_published = merged, 0
            break
        counts, version, rows_published = merged.counts, merged.version, merged.rows_published
        verdict = audit(spark, lake, contract, version, publications)
        if merged_already(lake, batch) == merged:  # nobody has put the table back to before it meanwhile
            break
    else:
        raise TableBusyError.changed(contract.table, "its merge was undone each time")
    record(lake, contract.table, version, verdict.metrics)
    publication = Publication(
        publication_id=f"{contract.table}/{batch.batch_id}@{version}",
        table_name=contract.table,
        batch_id=batch.batch_id,
        kind=kind,
        inputs=inputs,
        day=batch.day,
        version=version,
        published=not verdict.failed,
        rows_in=counts.rows_in,
        rows_published=rows_published,
        rows_quarantined=counts.rows_quarantined,
        rows_duplicate=counts.rows_in - counts.rows_quarantined - rows_published,
        rows_total=verdict.rows,
        failed_checks=list(verdict.failed),
        broken_rules=json.dumps(counts.broken_rules, sort_keys=True),
        fingerprint=contract.fingerprint,
        published_at=datetime.now(UTC),
    )
    lake.ledger.append([publication])
    announce(lake, publication)
    return publication


def _judged_and_merged(spark: SparkSession, lake: Lakehouse, contract: Contract, batch: Batch) -> Merged | Counts:
    """The batch's own commit; only the counts if no row was good, and nothing was committed."""
    from pyspark.sql import functions as F
    from pyspark.storagelevel import StorageLevel

    rows = typed_rows(spark, lake, contract, batch).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        judged = judged_rows(rows, contract, batch)
        rules = [rule.name for rule in contract.rules]
        # One pass counts what every rule refused; position by position, for a rule's name may hold anything.
        erased = F.col(ERASED)
        refusals = [F.count_if(~erased & ~F.col(rule_column(name))) for name in rules]
        every = F.count(F.lit(1))  # a batch that comes again may have lost the rows of who was erased meanwhile
        counted = judged.agg(every, F.count_if(F.size(BROKEN) > 0), F.count_if(erased), *refusals).collect()
        (came, broken, *refused) = counted[0]
        by_rule = {name: count for name, count in zip([ERASED_RULE, *rules], refused, strict=True) if count}
        quarantined = refuse(lake, batch, judged.where(F.size(BROKEN) > 0), broken)
        counts = Counts(batch_id=batch.batch_id, rows_in=came, rows_quarantined=quarantined, broken_rules=by_rule)
        if broken == came:
            return counts
        good = judged.where(F.size(BROKEN) == 0).select(ROW_NUMBER, *[f"`{name}`" for name in contract.names])
        return merge(spark, lake, contract, batch, good, counts)
    finally:
        rows.unpersist()


def _unchanged(lake: Lakehouse, contract: Contract, publications: Sequence[Publication]) -> tuple[int, Verdict]:
    """What a batch without a good row ends in: the version that readers get; without one, the empty table."""
    good = [p for p in publications if p.published]
    if not good:
        return first_version(lake, contract.table), Verdict(("Size: the table is empty",), (), 0)
    latest = max(good, key=lambda p: (p.version, p.published_at))
    return latest.version, Verdict((), (), latest.rows_total)


def _forget_the_erased(lake: Lakehouse, batch: Batch) -> None:
    """Leave no row of an erased person in the staged file; after a kill, publishing the batch again gets here too."""
    import io

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    refused = refused_rows(lake, batch.table, [("batch_id", "=", batch.batch_id)])
    theirs = [row.quarantined.row_number for row in refused if ERASED_RULE in row.quarantined.rules]
    try:
        rows = pq.read_table(io.BytesIO(lake.storage.read(batch.path)))
    except FileNotFoundError:  # let go as a whole
        return
    found = pc.is_in(rows[ROW_NUMBER], pa.array(theirs, pa.int64()))
    if pc.any(found).as_py():
        let_go(lake, batch.table, batch.batch_id, rest=rows.filter(pc.invert(found)))
