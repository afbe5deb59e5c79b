"""What happened in this lake? System tables: ordinary Delta tables that anyone can query with SQL."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field

from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.errors import StorageError, TableBusyError, first_line
from lakehouse.storage import Storage

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from lakehouse.snapshot import Condition, Snapshot, Value

#: Folder of the system tables in a lake.
LEDGER_FOLDER = "_ledger"

#: How often rows are appended when other processes are quicker.
_ATTEMPTS = 100

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
    read_bytes: Annotated[
        int | None,
        Field(ge=0, description="Bytes that the process tree read by system calls, sockets included."),
    ] = None
    written_bytes: Annotated[int | None, Field(ge=0, description="Bytes that it wrote so.")] = None
    tokens_in: Annotated[int | None, Field(ge=0, description="Tokens that a language model was given.")] = None
    tokens_out: Annotated[int | None, Field(ge=0, description="Tokens that it generated.")] = None
    gpu_seconds: Annotated[
        float | None, Field(ge=0, description="Seconds on GPUs, sampled, one for each GPU in use; null without NVML.")
    ] = None
    key: Annotated[
        str | None,
        Field(description="What the answer depends on, as a JSON object; `millrace why` compares it."),
    ] = None
    answer: Annotated[str | None, Field(description="What the task gave back, as JSON.")] = None


class LlmCost(Table, name="llm_costs"):
    """What one execution asked of a language model, and what that is put at; energy and money are estimates."""

    llm_cost_id: Annotated[str, Key(), Field(description="Execution, component and start.")]
    execution: Annotated[str, Field(description="Flyte's execution id, or the local process's; `costs` has it too.")]
    component: Annotated[str, Field(description="The component that was asked.")]
    model: Annotated[str, Field(description="Name of the model.")]
    model_digest: Annotated[str, Field(description="SHA-256 over the model's files.")]
    asked: Annotated[int, Field(ge=0, description="Questions that went to the engine.")]
    reused: Annotated[int, Field(ge=0, description="Questions that had been answered before.")]
    failed: Annotated[int, Field(ge=0, description="Rows without a valid answer.")]
    tokens_in: Annotated[int, Field(ge=0, description="Tokens of prompts, repairs included.")]
    tokens_out: Annotated[int, Field(ge=0, description="Tokens of answers, repairs included.")]
    start_seconds: Annotated[
        float, Field(ge=0, description="Until the engine had loaded the model; 0 if none started.")
    ]
    generate_seconds: Annotated[float, Field(ge=0, description="Generating.")]
    watt_hours: Annotated[float, Field(ge=0, description="Energy by the formula in models/llm/pricing.py.")]
    money: Annotated[float, Field(ge=0, description="By the price table, in its currency.")]
    currency: Annotated[str, Field(description="Such as EUR.")]
    price_table: Annotated[str, Field(description="Name of the price table.")]
    asked_at: Annotated[datetime, EventTime()]


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


class Deployment(Table, name="deployments"):
    """One act on what the service answers with: a model staged, switched to, or rolled back from, and why."""

    deployment_id: Annotated[str, Key(), Field(description="Instant and act, as instant/act/slot.")]
    act: Annotated[
        Literal["start", "stage", "canary", "switch", "rollback", "automatic rollback"],
        Field(description="What was done."),
    ]
    slot: Annotated[Literal["blue", "green"], Field(description="The slot that it was done to.")]
    model_version: Annotated[int, Field(ge=1, description="Registry version of the slot's model.")]
    model_digest: Annotated[str, Field(description="SHA-256 over the model's files.")]
    features: Annotated[list[str], Field(description="Feature views that the slot reads, as table@version.")]
    replaced: Annotated[int | None, Field(description="Registry version that answered before; null if none did.")]
    reason: Annotated[str, Field(description="One sentence, with the numbers that decided.")]
    inputs: Annotated[str, Field(description="What was measured, as a JSON object.")]
    acted_at: Annotated[datetime, EventTime()]


class Approval(Table, name="approvals"):
    """What one person said of one model version; the newest row of a version and person counts."""

    approval_id: Annotated[str, Key(), Field(description="Registry version and instant, as version/instant.")]
    model_version: Annotated[int, Field(ge=1, description="Registry version.")]
    model_digest: Annotated[str, Field(description="SHA-256 over the model's files.")]
    approved: Annotated[bool, Field(description="Whether the person agrees that it is used.")]
    by: Annotated[str, Field(min_length=1, max_length=100, description="Who, as they named themselves.")]
    note: Annotated[str, Field(max_length=1000, description="Why, or on what condition.")]
    approved_at: Annotated[datetime, EventTime(), Field(description="When it was said (UTC).")]


class PinRecord(Table, name="pins"):
    """One version that somebody asked to keep, or let go again; the newest row of a version and holder counts."""

    pin_id: Annotated[str, Key(), Field(description="Version, holder and number, as table@version/holder/number.")]
    table_name: str
    version: Annotated[int, Field(ge=0, description="Delta version that vacuum keeps.")]
    holder: Annotated[str, Field(min_length=1, description="Who keeps it.")]
    reason: Annotated[str, Field(description="What for.")]
    kept_until: Annotated[datetime | None, Field(description="When the pin ends by itself (UTC); never if null.")]
    released: Annotated[bool, Field(description="Whether this row lets the version go.")]
    recorded_at: Annotated[datetime, EventTime()]


class Maintenance(Table, name="maintenance"):
    """What one upkeep of one table did and saved."""

    maintenance_id: Annotated[str, Key(), Field(description="Table and start.")]
    table_name: str
    compacted: Annotated[str, Field(description="compact or cluster, else why neither was needed.")]
    files_before: Annotated[int, Field(ge=0, description="Files of the newest version, before compaction.")]
    files_after: Annotated[int, Field(ge=0, description="Files of the newest version, afterwards.")]
    bytes_before: Annotated[int, Field(ge=0, description="Their bytes, before.")]
    bytes_after: Annotated[int, Field(ge=0, description="Their bytes, afterwards.")]
    removed_files: Annotated[int, Field(ge=0, description="Files that vacuum removed.")]
    removed_bytes: Annotated[int, Field(ge=0, description="Their bytes.")]
    removed_versions: Annotated[list[int], Field(description="Versions that can no longer be read.")]
    kept: Annotated[str, Field(description="Kept versions and why each is kept, as a JSON object.")]
    seconds: Annotated[float, Field(ge=0, description="Wall-clock seconds.")]
    started_at: Annotated[datetime, EventTime()]


class Erasure(Table, name="erasures"):
    """One step of a person's erasure: the tombstone first, the certificate when all is done."""

    erasure_id: Annotated[str, Key(), Field(description="Start of the digest, and which erasure of the person it is.")]
    state: Annotated[Literal["requested", "done"], Key(), Field(description="Tombstone or certificate.")]
    digest: Annotated[str, Field(description="SHA-256 over the lake's salt and the value that names the person.")]
    columns: Annotated[list[str], Field(description="Columns that hold such values, as table.column.")]
    reason: Annotated[str, Field(description="As stated by who asked.")]
    requested_by: Annotated[str, Field(description="Who asked.")]
    certificate: Annotated[str, Field(description="What was found and done, as a JSON object; empty at first.")]
    recorded_at: Annotated[datetime, EventTime()]


class TagRecord(Table, name="tags"):
    """One word that stands for one version from then on, or no more; the newest row of a table and tag counts."""

    tag_id: Annotated[str, Key(), Field(description="Table, tag and number, as table@tag/number.")]
    table_name: str
    tag: Annotated[str, Field(description="The word, as in table@tag.")]
    version: Annotated[int, Field(ge=0, description="Delta version that it stands for.")]
    deleted: Annotated[bool, Field(description="Whether this row removes the tag.")]
    number: Annotated[int, Field(ge=0, description="Counts the rows of this table and tag.")]
    tagged_at: Annotated[datetime, EventTime()]


class Fate(Table, name="quarantine_fates"):
    """One decision on one quarantined row; the newest of a row counts."""

    fate_id: Annotated[str, Key(), Field(description="Table, quarantined row and number, as table/batch/row/number.")]
    table_name: str
    quarantine_id: Annotated[str, Field(description="The row's id in the quarantine beside its table.")]
    number: Annotated[int, Field(ge=0, description="Counts the decisions on this row.")]
    fate: Annotated[
        Literal["requeued", "discarded", "rejudged"],
        Field(description="Sent again, closed, or set aside because its batch was judged again."),
    ]
    batch_id: Annotated[str, Field(description="Of a requeued row: the batch that holds its correction.")]
    reason: Annotated[str, Field(description="Of a discarded row: why.")]
    decided_at: Annotated[datetime, EventTime()]


#: Every system table; the lake answers to these names like to any other table.
SYSTEM_TABLES: dict[str, type[Table]] = {
    row.contract.table: row
    for row in (
        Publication,
        Metric,
        Decision,
        Cost,
        LlmCost,
        Promotion,
        Run,
        Deployment,
        Approval,
        PinRecord,
        Maintenance,
        Erasure,
        TagRecord,
        Fate,
    )
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
        """Add rows of one model; a row whose key is already there is left as it is.

        A table that an earlier version of this code has made is brought up to the row model first.

        Raises:
            EvolutionError: the row model asks for what the stored table can't become.
            StorageError: the table can't be written.
            TableBusyError: other processes were quicker, many times over.
        """
        if not rows:
            return
        from deltalake import CommitProperties, DeltaTable, write_deltalake
        from deltalake.exceptions import CommitFailedError, DeltaError

        from lakehouse.contracts.arrow import arrow_schema, to_arrow

        row_model = type(rows[0])
        contract = row_model.contract
        unique = {tuple(getattr(row, name) for name in contract.key): row for row in reversed(rows)}
        path = self.uri(row_model)
        for attempt in range(_ATTEMPTS):
            try:
                if not DeltaTable.is_deltatable(path):
                    DeltaTable.create(
                        path,
                        arrow_schema(contract),
                        mode="ignore",
                        name=contract.table,
                        description=contract.description,
                        configuration={"delta.checkpointInterval": "10"},  # a commit a row: keeps opening it quick
                    )
                table = DeltaTable(path)
                self._bring_up(table, row_model)
                known = self._keys(table, row_model, unique)
                fresh = [row for key, row in reversed(unique.items()) if key not in known]
                if not fresh:
                    return
                # The keys are this version's. If another process has been quicker, nothing is committed: no key twice.
                write_deltalake(
                    table,
                    to_arrow(row_model, fresh),
                    mode="append",
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
                break
            except CommitFailedError as error:
                if attempt == _ATTEMPTS - 1:
                    raise TableBusyError.changed(contract.table, first_line(error)) from error
                time.sleep(random.uniform(0, 0.05 * min(attempt + 1, 10)))  # noqa: S311
            except (DeltaError, OSError) as error:
                raise StorageError(
                    f"The ledger table {contract.table!r} can't be written: {str(error).splitlines()[0]}.",
                    fix="Check that the disk has room and the lake's folder can be written, then run again.",
                ) from error

        if row_model is Publication:
            from lakehouse.query import pointer

            pointer.refresh(self.storage)

    def read(self, row_model: type[LedgerRow], where: Sequence[Condition] = ()) -> Iterator[LedgerRow]:
        """The rows of one system table that fulfil the conditions (default: all), oldest first."""
        yield from self.read_at(row_model, where)[1]

    def read_at(self, row_model: type[LedgerRow], where: Sequence[Condition] = ()) -> tuple[int, list[LedgerRow]]:
        """Like ``read``, with the version of the system table; -1 if nobody has written to it."""
        from lakehouse.contracts.arrow import records
        from lakehouse.contracts.completing import completed
        from lakehouse.query.conditions import kept

        snapshot = self._newest(row_model)
        if snapshot is None:
            return -1, []
        stored = snapshot.columns()
        found = snapshot.arrow(where=[condition for condition in where if condition[0] in stored])
        found = completed(found, row_model, snapshot.version)
        found = kept(found, [condition for condition in where if condition[0] not in stored])
        rows = [row_model.model_validate(record) for record in records(found)]
        clock = row_model.contract.event_time
        if clock is not None:
            rows.sort(key=lambda row: getattr(row, clock))
        return snapshot.version, rows

    def _keys(
        self, table: DeltaTable, row_model: type[Table], asked: Collection[tuple[Value, ...]]
    ) -> set[tuple[object, ...]]:
        """The stored keys in the range of the keys asked for: most files, of a row each, are not opened for that."""
        from lakehouse.snapshot import Snapshot

        where: list[Condition] = []
        for name, values in zip(row_model.contract.key, zip(*asked, strict=True), strict=True):
            where += [(name, ">=", min(values)), (name, "<=", max(values))]
        columns = Snapshot.of(table, self.uri(row_model), Table).arrow(list(row_model.contract.key), where)
        return set(zip(*(column.to_pylist() for column in columns.columns), strict=True))

    def _bring_up(self, table: DeltaTable, row_model: type[Table]) -> None:
        from lakehouse.contracts.arrow import arrow_schema
        from lakehouse.snapshot import schema_of

        if not schema_of(table).equals(arrow_schema(row_model.contract)):
            from lakehouse.contracts.evolution import bring_up_ledger

            bring_up_ledger(self.storage.root, table, row_model)

    def _newest(self, row_model: type[Table]) -> Snapshot[Table] | None:
        """The table as it stands, whatever the row model says by now."""
        from deltalake import DeltaTable

        from lakehouse.snapshot import Snapshot, open_delta

        path = self.uri(row_model)
        if not DeltaTable.is_deltatable(path):
            return None
        return Snapshot.of(open_delta(path), path, Table)
