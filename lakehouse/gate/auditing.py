"""Does a table as a whole keep what its contract promises? Judged on Deequ's metrics, at a cost that follows the batch.

The metrics of a version follow from those of the version before and the files that the commit added and removed
(``lakehouse.gate.metric_states``). All rows are read again, for those metrics alone that can't be said so: extremes
that a replaced row may have carried; uniqueness, distinctness, entropy, correlation and quantiles that an expectation
asks for. And for all of them where the chain is broken: nothing kept of the version before, another writer's commit,
a commit that rewrote half of the table.

That the key is unique follows by induction: it was unique before, and a MERGE by key, whose source has each key once,
inserts no key that is there. Deequ counts keys only where the chain is broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakehouse.contracts.contract import Contract
from lakehouse.contracts.expectations import Expectation
from lakehouse.gate.anomalies import anomalies
from lakehouse.gate.commits import commits, is_gated
from lakehouse.gate.deequ import Analyzer, Measured, analyzer, measure, metrics_of, spark_text, table_metrics
from lakehouse.gate.metric_states import MAX_STEPS, KeptStates, advanced, keep_states, kept_states
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Metric, Publication
from lakehouse.query import pointer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Operations that change no row.
_KEEP_ROWS = ("OPTIMIZE", "VACUUM START", "VACUUM END", "ADD CONSTRAINT", "SET TBLPROPERTIES")


@dataclass(frozen=True)
class Verdict:
    """What an audit of one version found.

    Attributes:
        failed: what did not hold, each in words.
        metrics: as Deequ computed them; the key's uniqueness has the column ``key``.
        rows: of the table.
    """

    failed: tuple[str, ...]
    metrics: tuple[Measured, ...]
    rows: int


def audit(
    spark: SparkSession, lake: Lakehouse, contract: Contract, version: int, publications: Sequence[Publication]
) -> Verdict:
    """Measure a version, keep Deequ's states of it, and judge: rows, unique key, required columns, expectations."""
    erased = _unmeasured_erasure(lake, contract.table, version, publications)
    if erased is not None:
        record(lake, contract.table, erased, _measured(spark, lake, contract, erased).metrics)
    found = _measured(spark, lake, contract, version)
    failed = ["Size: the table is empty"]  # what the other checks say of no rows helps nobody
    if found.rows:
        unique = found.key.value
        failed = [] if unique == 1 else [f"Uniqueness of the key {', '.join(contract.key)} is {_number(unique)}, not 1"]
        failed += [text for c in contract.columns if (text := _incomplete(c.name, c.nullable, found.by_expectation))]
        past = _published_before(lake, contract, version, publications)
        failed += [text for e in contract.expectations if (text := _judged(spark, e, found.by_expectation[e], past))]
    return Verdict(tuple(failed), found.metrics, found.rows)


def record(lake: Lakehouse, table: str, version: int, metrics: Sequence[Measured]) -> None:
    """Write a version's metrics into the ledger, where later versions are judged by them."""
    now = datetime.now(UTC)
    lake.ledger.append(
        [
            Metric(
                metric_id=f"{table}@{version}/{measured.metric}/{measured.column}",
                table_name=table,
                version=version,
                metric=measured.metric,
                column=measured.column,
                value=measured.value,
                measured_at=now,
            )
            for measured in metrics
            if measured.value is not None
        ]
    )


@dataclass(frozen=True)
class _Version:
    """What was measured of one version."""

    rows: int
    key: Measured
    by_expectation: Mapping[Expectation, Measured]

    @property
    def metrics(self) -> tuple[Measured, ...]:
        return (self.key, *dict.fromkeys(self.by_expectation.values()))


def _measured(spark: SparkSession, lake: Lakehouse, contract: Contract, version: int) -> _Version:
    """A version's metrics, from what was kept of the one before where that can be; its own states are kept."""
    wanted = {e: analyzer(spark, e) for e in (*table_metrics(contract), *contract.expectations)}
    analyzers = list({a.name: a for a in wanted.values()}.values())
    before = _before(spark, lake, contract.table, version, analyzers)
    known = {a.name: before.states[a.name] for a in analyzers if a.name in before.states} if before else {}
    missing = [a for a in analyzers if a.name not in known]
    found = dict(zip((a.name for a in analyzers if a.name in known), metrics_of(spark, analyzers, known), strict=True))
    unique = 1.0 if before and before.unique else None
    if missing or unique is None:
        key = analyzer(spark, Expectation("Uniqueness", contract.key))
        rows = spark.read.format("delta").option("versionAsOf", version).load(lake.uri(contract.table))
        measured, states = measure(rows, missing if unique else [*missing, key])
        found |= measured
        known = {**known, **states}
        unique = measured[key.name].value if unique is None else unique
    size = next(int(m.value or 0) for m in found.values() if m.metric == "Size")
    steps = before.steps if before else 0
    keep_states(lake, contract.table, version, KeptStates(unique=unique == 1, steps=steps, states=known))
    key_metric = Measured("Uniqueness", "key", unique if size else None)
    return _Version(size, key_metric, {e: found[a.name] for e, a in wanted.items()})


def _unmeasured_erasure(lake: Lakehouse, table: str, version: int, publications: Sequence[Publication]) -> int | None:
    """The published version before, if a person was erased since the metrics were last taken; else None.

    An erasure starts no Spark and removes the kept states. Without its own metrics the table would seem to have
    shrunk with the next batch.
    """
    before = [p for p in pointer.standing(publications) if p.version < version]
    erased = max((p.version for p in before if p.kind == "erase"), default=None)
    if erased is None:
        return None
    rows = lake.ledger.read(Metric, where=[("table_name", "=", table), ("metric", "=", "Size")])
    measured = max((row.version for row in rows if row.version < version), default=-1)
    return pointer.newest(before).version if measured < erased else None


def _before(
    spark: SparkSession, lake: Lakehouse, table: str, version: int, analyzers: Sequence[Analyzer]
) -> KeptStates | None:
    """What can be said of a version without reading the table; None if nothing can.

    Analyzers whose state can't be said are left out.
    """
    kept = kept_states(lake, table, version)
    if kept is not None:  # an earlier attempt got here
        return kept
    own = next(commits(lake, table, version), None)
    before = _same_rows(lake, table, version - 1)
    if own is None or own.operation != "MERGE" or not is_gated(own) or before is None:
        return None
    size = before.states.get("Size(None)")
    if size is None or not before.unique:
        return None
    touched = own.count("numTargetRowsCopied") + own.count("numTargetRowsUpdated")
    if 2 * touched >= size.values[0] or before.steps >= MAX_STEPS:
        return KeptStates(unique=True, steps=0, states={})  # one pass over all rows is less work, or due
    added, removed = _files(spark, lake.uri(table), version)
    additive = [a for a in analyzers if a.name in before.states]
    states, _ = advanced(
        {a.name: before.states[a.name] for a in additive},
        removed=measure(removed, additive)[1] if removed is not None else {},
        added=measure(added, additive)[1] if added is not None else {},
    )
    grown = states.get("Size(None)")
    if grown is None or grown.values[0] != size.values[0] + own.count("numTargetRowsInserted"):
        return None  # the log and its files say different things
    return KeptStates(unique=True, steps=before.steps + 1, states=states)


def _same_rows(lake: Lakehouse, table: str, version: int) -> KeptStates | None:
    """States of the version, or of one that has the same rows."""
    for commit in commits(lake, table, version):
        kept = kept_states(lake, table, commit.version)
        if kept is not None:
            return kept
        if commit.operation == "RESTORE":
            return _same_rows(lake, table, int(str(commit.parameters["version"])))
        if commit.operation not in _KEEP_ROWS:
            return None
    return None


def _files(spark: SparkSession, uri: str, version: int) -> tuple[DataFrame | None, DataFrame | None]:
    """The rows of the files that a commit added, and of those that it removed; None for no file."""
    from pyspark.sql import DataFrame

    jvm: Any = spark._jvm
    nothing = jvm.scala.Option.apply(None)
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, uri)
    actions = log.getChanges(version, False).next()._2()
    added = []
    gone = []
    for action in (actions.apply(n) for n in range(actions.size())):
        kind = action.getClass().getSimpleName()
        if kind == "AddFile":
            added.append(action)
        elif kind == "RemoveFile":
            gone.append(spark_text(action.path()))

    def rows(at: int, files: list[Any]) -> DataFrame | None:
        snapshot = log.getSnapshotAt(at, nothing, nothing)
        if not files:
            return None
        return DataFrame(log.createDataFrame(snapshot, jvm.PythonUtils.toSeq(files), False, nothing), spark)

    if not gone:
        return rows(version, added), None
    parent = log.getSnapshotAt(version - 1, nothing, nothing)
    removed = parent.allFiles().where(f"path IN ({', '.join(gone)})").collect()
    return rows(version, added), rows(version - 1, list(removed))


def _incomplete(column: str, nullable: bool, metrics: Mapping[Expectation, Measured]) -> str | None:
    for wanted, measured in metrics.items():
        required = not nullable and (
            wanted == Expectation("Completeness", (column,)) or wanted.columns == (f"{column} required",)
        )
        if required and measured.value != 1:
            return f"Completeness of {column} is {_number(measured.value)}, not 1"
    return None


def _published_before(
    lake: Lakehouse, contract: Contract, version: int, publications: Sequence[Publication]
) -> dict[tuple[str, str], list[float]]:
    """The metrics of the published versions before, oldest first, by metric and column."""
    if all(wanted.history is None for wanted in contract.expectations):
        return {}
    versions = {p.version for p in pointer.standing(publications) if p.version < version}
    past: dict[tuple[str, str], list[float]] = {}
    rows = lake.ledger.read(Metric, where=[("table_name", "=", contract.table)])
    for row in sorted(rows, key=lambda row: row.version):
        if row.version in versions:
            past.setdefault((row.metric, row.column), []).append(row.value)
    return past


def _judged(
    spark: SparkSession, wanted: Expectation, measured: Measured, past: Mapping[tuple[str, str], Sequence[float]]
) -> str | None:
    """Why an expectation does not hold; None if it does, or has too little past to be judged by."""
    if measured.value is None:
        return f"{wanted.name}: no row has a value"
    value = _number(measured.value)
    if wanted.history is not None:
        before = past.get((measured.metric, measured.column), [])
        found = anomalies(spark, wanted.history, [*before, measured.value], first=len(before))
        if found:
            return f"{wanted.name}: {value} is unlike its {len(before)} published values: {next(iter(found.values()))}"
    too_small = wanted.ge is not None and not measured.value >= wanted.ge
    too_large = wanted.le is not None and not measured.value <= wanted.le
    return f"{wanted.name}: it is {value}" if too_small or too_large else None


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
