"""What happened in this lake? System tables: ordinary Delta tables that anyone can query with SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from lakehouse.errors import StorageError
from lakehouse.storage import Storage
from lakehouse.table import EventTime, Key, Table

#: Folder of the system tables in a lake.
LEDGER_FOLDER = "_ledger"

LedgerRow = TypeVar("LedgerRow", bound=Table)


class Publication(Table, name="publications"):
    """One batch's way through the gate, or an act on the table: what came in and which version readers got."""

    publication_id: Annotated[str, Key(), Field(description="Table, batch and version, as table/batch@version.")]
    table_name: Annotated[str, Field(description="The table the batch was for.")]
    batch_id: Annotated[str, Field(description="The batch's own id; of another act, its kind and a number.")]
    kind: Annotated[
        Literal["batch", "requeue", "restore", "optimize", "erase", "evolve"],
        Field(description="What made the version: rows, or an act on the table as it stood."),
    ] = "batch"
    inputs: Annotated[list[str], Field(description="Versions that its rows were made from, as table@version.")] = Field(
        default_factory=list
    )
    restored_from: Annotated[
        int | None, Field(description="Of a restore: the version whose rows came back; those between are withdrawn.")
    ] = None
    day: Annotated[date, Field(description="The day whose end the batch brings the table to.")]
    version: Annotated[int, Field(description="Delta version the batch ended in.")]
    published: Annotated[bool, Field(description="Whether readers of the latest version get it.")]
    rows_in: Annotated[int, Field(ge=0, description="Rows in the batch as it came.")]
    rows_published: Annotated[int, Field(ge=0, description="Rows merged into the table.")]
    rows_quarantined: Annotated[int, Field(ge=0, description="Rows that broke a rule.")]
    rows_duplicate: Annotated[int, Field(ge=0, description="Rows that lost to a newer row with the same key.")]
    rows_total: Annotated[int, Field(ge=0, description="Rows of the table at this version.")]
    failed_checks: Annotated[list[str], Field(description="Table-level checks that failed.")]
    broken_rules: Annotated[str, Field(description="Rows by rule that broke it, as a JSON object.")]
    fingerprint: Annotated[str, Field(description="Fingerprint of the contract that judged.")]
    published_at: Annotated[datetime, EventTime(), Field(description="When the decision was written (UTC).")]


class Metric(Table, name="metrics"):
    """One Deequ metric of a table at one version."""

    metric_id: Annotated[str, Key(), Field(description="Table, version, metric and column.")]
    table_name: str
    version: int
    metric: Annotated[str, Field(description="Deequ's name, such as Completeness.")]
    column: Annotated[str, Field(description="Column, or * for the whole table.")]
    value: float
    measured_at: Annotated[datetime, EventTime()]


class Decision(Table, name="decisions"):
    """One gate's inputs, thresholds and verdict."""

    decision_id: Annotated[str, Key(), Field(description="Run and gate, as run/gate.")]
    run_id: str
    gate: Annotated[str, Field(description="Such as drift, retrain, kpi, parity.")]
    passed: bool
    reason: Annotated[str, Field(description="One sentence with the numbers that decided.")]
    inputs: Annotated[str, Field(description="What was compared with which threshold, as a JSON object.")]
    decided_at: Annotated[datetime, EventTime()]


class Cost(Table, name="costs"):
    """What one execution of one task took."""

    cost_id: Annotated[str, Key(), Field(description="Execution, task and start.")]
    execution: Annotated[str, Field(description="Flyte's execution id, or the local process's.")]
    task: str
    started_at: Annotated[datetime, EventTime()]
    seconds: Annotated[float, Field(ge=0, description="Wall-clock seconds.")]
    cpu_seconds: Annotated[float, Field(ge=0, description="CPU seconds of the process and its children.")]
    peak_mib: Annotated[float, Field(ge=0, description="Peak resident memory of the process tree, MiB, sampled.")]


class Promotion(Table, name="promotions"):
    """One model that became champion."""

    promotion_id: Annotated[str, Key(), Field(description="Day and model digest, as day/digest.")]
    day: Annotated[date, Field(description="The night in whose course it was promoted.")]
    model_digest: Annotated[str, Field(description="SHA-256 over the model's files.")]
    model_path: Annotated[str, Field(description="Folder of the model's files.")]
    registry_version: Annotated[int, Field(description="Version in the model registry.")]
    trained_until: Annotated[datetime, Field(description="Time of the newest interaction it was trained on (UTC).")]
    promoted_at: Annotated[datetime, EventTime()]


class Run(Table, name="runs"):
    """One nightly run: enough to do it again."""

    run_id: Annotated[str, Key(), Field(description="Digest of everything the run depends on.")]
    execution: Annotated[str, Field(description="Flyte's execution id, or the local process's; `costs` has it too.")]
    workflow: str
    day: date
    parameters: Annotated[str, Field(description="Inputs of the workflow, as a JSON object.")]
    seed: int
    code_digest: Annotated[str, Field(description="SHA-256 over the project's sources.")]
    commit: Annotated[str, Field(description="Git commit, with + if files differed from it; empty outside a checkout.")]
    lock_digest: Annotated[str, Field(description="SHA-256 of the environment's lock.")]
    inputs: Annotated[list[str], Field(description="Tables read, as table@version.")]
    outputs: Annotated[list[str], Field(description="Tables written, as table@version.")]
    artifacts: Annotated[str, Field(description="Digests of models and files, as a JSON object.")]
    metrics: Annotated[str, Field(description="Metrics by name, as a JSON object.")]
    verdict: Annotated[str, Field(description="promoted, registered, kept or failed, with the reason.")]
    report: Annotated[str, Field(description="Path of the report.")]
    seconds: Annotated[float, Field(ge=0, description="Seconds from the first task's start to the last one's end.")]
    finished_at: Annotated[datetime, EventTime()]


#: Every system table; the lake answers to these names like to any other table.
SYSTEM_TABLES: dict[str, type[Table]] = {
    row.contract.table: row for row in (Publication, Metric, Decision, Cost, Promotion, Run)
}


class Ledger:
    """The system tables of one lake.

    Args:
        storage: the lake's; the tables live in its ``_ledger`` folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def uri(self, row_model: type[Table]) -> str:
        """Path or URL of a system table's folder, whether it exists or not."""
        return f"{self.storage.root}/{LEDGER_FOLDER}/{row_model.contract.table}"

    def append(self, rows: Sequence[Table]) -> None:
        """Add rows of one model; a row whose key is already there is left as it is."""
        if not rows:
            return
        from deltalake import DeltaTable, write_deltalake
        from deltalake.exceptions import DeltaError

        from lakehouse.arrow import arrow_schema, to_arrow

        row_model = type(rows[0])
        contract = row_model.contract
        known = {tuple(getattr(row, name) for name in contract.key) for row in self.read(row_model)}
        unique = {tuple(getattr(row, name) for name in contract.key): row for row in reversed(rows)}
        fresh = [row for key, row in reversed(unique.items()) if key not in known]
        if not fresh:
            return
        path = self.uri(row_model)
        try:
            if not DeltaTable.is_deltatable(path):
                DeltaTable.create(
                    path, arrow_schema(contract), mode="ignore", name=contract.table, description=contract.description
                )
            write_deltalake(path, to_arrow(row_model, fresh), mode="append")
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"The ledger table {contract.table!r} can't be written: {str(error).splitlines()[0]}.",
                fix="Check that the disk has room and the lake's folder can be written, then run again.",
            ) from error

    def read(self, row_model: type[LedgerRow]) -> Iterator[LedgerRow]:
        """All rows of one system table, oldest first."""
        from deltalake import DeltaTable

        from lakehouse.snapshot import Snapshot

        path = self.uri(row_model)
        if not DeltaTable.is_deltatable(path):
            return
        table = DeltaTable(path)
        rows = list(Snapshot(path, table.version(), row_model).rows())
        clock = row_model.contract.event_time
        if clock is not None:
            rows.sort(key=lambda row: getattr(row, clock))
        yield from rows
