"""What becomes of a refused row? It waits in the quarantine until it is corrected and sent again, or discarded.

The quarantine lies beside its table and is only added to, and so are the decisions on its rows (the ledger's
``quarantine_fates``). Rows quarantined = open + requeued + discarded, always. Rows set aside as ``rejudged`` count no
more: their batch was judged again and came out otherwise, or it held corrections and was not published, so that the
rows it was to correct are open again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from lakehouse.contracts.declaring import read_contract
from lakehouse.contracts.stored_rules import values_at
from lakehouse.contracts.table import EventTime, Key, Rule, Table
from lakehouse.errors import QuarantineError, TableBusyError, first_line
from lakehouse.gate.judging import AS_IT_CAME, BROKEN, ERASED_RULE, check_columns
from lakehouse.gate.merging import ATTEMPTS, application, conflicts
from lakehouse.gate.staging import ROW_NUMBER, Batch
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Fate
from lakehouse.query import pointer
from lakehouse.snapshot import Condition, Snapshot

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

Row = TypeVar("Row", bound=Table)

#: What the ids of batches of corrected rows begin with; their number follows, so that a claim in part shows.
_REQUEUE = "requeue-"


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


class RefusedRow(BaseModel):
    """A quarantined row and what was decided about it.

    Attributes:
        quarantined: the row.
        fate: open; or requeued, in the batch ``requeued_in``; discarded, for ``reason``; rejudged with its batch.
        decisions: how many the ledger had when this was read; the next one is made on top of these.
    """

    model_config = ConfigDict(frozen=True)

    quarantined: Quarantined
    fate: Literal["open", "requeued", "discarded", "rejudged"] = "open"
    requeued_in: str = ""
    reason: str = ""
    decisions: int = 0

    @property
    def values(self) -> dict[str, object]:
        """The row as it came, by column."""
        return cast("dict[str, object]", json.loads(self.quarantined.row, parse_float=Decimal))

    @property
    def offending(self) -> dict[str, object]:
        """The values that broke a rule, by rule, those within a list as a list; None where the column is missing."""
        found: dict[str, object] = {}
        for rule in self.quarantined.rules:
            top, *rest = Rule(rule.partition(" ")[0], "type").steps
            value = self.values.get(top)
            found[rule] = list(values_at(value, rest)) if "[]" in rest else next(values_at(value, rest), None)
        return found


def quarantined(lake: Lakehouse, name: str) -> Snapshot[Table] | None:
    """The quarantine beside a table at its newest version; None if nothing was ever refused."""
    from deltalake import DeltaTable

    path = lake.quarantine_uri(name)
    if not DeltaTable.is_deltatable(path):
        return None
    return cast("Snapshot[Table]", Snapshot(path, DeltaTable(path).version()))


def refused_rows(lake: Lakehouse, name: str, where: Sequence[Condition] = ()) -> list[RefusedRow]:
    """Every refused row of a table with its fate, oldest first; ``where``: conditions on the quarantine's columns."""
    return _rows(lake, name, where)


def requeue(lake: Lakehouse, row_model: type[Row], corrected: Mapping[str, Mapping[str, object]]) -> Snapshot[Row]:
    """Send corrected rows through the gate again, as a batch of kind ``requeue``, and return what readers now get.

    The same correction again finishes what a kill has interrupted and changes nothing else. A row that breaks a rule
    again is quarantined anew, under the batch of its correction, and open; if that batch fails its audit or a restore
    withdraws it, the rows it was to correct are open again. The rows bring the table to no later day than it stands at.

    Args:
        lake: the lake.
        row_model: of the table.
        corrected: by quarantine id, the columns to change and their values; a column that is not named stays.

    Raises:
        QuarantineError: a row is not there, was decided about, names an erased person, or can't be corrected so.
        BatchSchemaError: the row lacks a column that the contract requires by now; nothing was written.
        AuditError: the corrected rows were not published, and the rows are open as before.
    """
    import pyarrow as pa

    from lakehouse.gate.publish import publish
    from lakehouse.gate.staging import stage, staged

    contract = row_model.contract
    name = contract.table
    unknown = [column for changes in corrected.values() for column in changes if column not in contract.names]
    if unknown:
        raise QuarantineError.column(name, unknown[0], contract.names)
    rows = _chosen(lake, name, corrected)
    erased = [row.quarantined.quarantine_id for row in rows if ERASED_RULE in row.quarantined.rules]
    if erased:
        raise QuarantineError.erased(name, erased[0])
    records = [{**row.values, **corrected[row.quarantined.quarantine_id]} for row in rows]
    text = [{column: _as_text(record.get(column)) for column in contract.names} for record in records]
    digest = hashlib.sha256(
        json.dumps([[row.quarantined.quarantine_id for row in rows], text], sort_keys=True, default=str).encode()
    ).hexdigest()
    batch_id = f"{_REQUEUE}{len(rows)}-{digest[:16]}"
    publications = lake.publications(name)
    # Corrections are of the table as it stands: on a day of the past they would bring that day what came later.
    day = max([*(row.quarantined.day for row in rows), *(p.day for p in pointer.standing(publications))])
    taken = [row for row in rows if row.fate != "open" and row.requeued_in != batch_id]
    for other in dict.fromkeys(row.requeued_in for row in taken if row.fate == "requeued"):
        if all(p.batch_id != other for p in publications):  # a kill has kept another correction from its verdict
            waiting = staged(lake, row_model, batch_id=other, day=day)
            if waiting is not None:
                publish(lake, row_model, waiting, kind="requeue")
    if taken:
        raise QuarantineError.decided(name, taken[0].quarantined.quarantine_id, taken[0].fate)
    brought = [column for column in contract.names if any(column in record for record in records)]
    table = pa.table({column: _column(name, column, [record[column] for record in text]) for column in brought})
    batch = stage(lake, row_model, table, batch_id=batch_id, day=day)
    check_columns(lake, contract, batch)
    # The claim comes first: a row is never sent twice, and after a kill the same correction goes on from here.
    _decide(lake, name, [row for row in rows if row.fate == "open"], "requeued", batch_id=batch_id)
    return publish(lake, row_model, batch, kind="requeue")


def discard(lake: Lakehouse, name: str, quarantine_ids: Sequence[str], reason: str) -> None:
    """Close open rows for good; the reason stays in the ledger.

    Raises:
        QuarantineError: a row is not there or was decided about, or the reason is empty.
    """
    if not reason.strip():
        raise QuarantineError.reason(name)
    rows = _chosen(lake, name, quarantine_ids)
    taken = [row for row in rows if row.fate != "open"]
    if taken:
        raise QuarantineError.decided(name, taken[0].quarantined.quarantine_id, taken[0].fate)
    _decide(lake, name, rows, "discarded", reason=reason)


def refuse(lake: Lakehouse, batch: Batch, bad: DataFrame, count: int) -> int:
    """Bring the rows of a batch that broke a rule into the quarantine, and say how many of the batch are there.

    Once for each verdict: a batch that is judged again (after a kill, a restore, with a new contract or a new version
    of a table that it refers to) leaves its rows as they are if they are the same; else the open ones are set aside
    as ``rejudged`` and the new ones added.

    Args:
        lake: the lake.
        batch: that was judged.
        bad: its refused rows: their numbers, ``__json`` as they came and ``__broken``, the rules.
        count: how many these are.

    Raises:
        TableBusyError: other writers were quicker each time.
    """
    for _ in range(ATTEMPTS):
        try:
            return _refuse(lake, batch, bad, count)
        except conflicts() as error:
            reason = first_line(error)  # another process judged the same batch at once; its rows are found now
    raise TableBusyError.changed(f"{batch.table} (quarantine)", reason)


def _refuse(lake: Lakehouse, batch: Batch, bad: DataFrame, count: int) -> int:
    from pyspark.sql import functions as F

    from lakehouse.contracts.delta_schema import create
    from lakehouse.snapshot import open_delta

    uri = lake.quarantine_uri(batch.table)
    number = -1
    if quarantined(lake, batch.table) is not None:
        last = open_delta(uri).transaction_version(application(batch))
        number = -1 if last is None else last
    if number >= 0:
        found = {row[0]: sorted(row[1]) for row in bad.select(ROW_NUMBER, BROKEN).collect()}
        where: list[Condition] = [("batch_id", "=", batch.batch_id)]
        earlier = [r for r in _rows(lake, batch.table, where, judging=batch.batch_id) if r.fate != "rejudged"]
        if found == {r.quarantined.row_number: sorted(r.quarantined.rules) for r in earlier}:
            return len(found)
        # A row that was decided about stays so while it is refused; one that is good by now comes in with its batch.
        closed = [r for r in earlier if r.fate != "open" and r.quarantined.row_number in found]
        _decide(lake, batch.table, [r for r in earlier if r not in closed], "rejudged")
        numbers = [r.quarantined.row_number for r in closed]
        bad = bad.where(~F.col(ROW_NUMBER).isin(numbers)) if numbers else bad
        count = len(found)
        if count == len(numbers):
            return count
    if count == 0:
        return 0
    create(uri, QUARANTINE)
    suffix = f"~{number + 1}" if number >= 0 else ""
    rows = bad.select(
        F.concat(F.lit(f"{batch.batch_id}/"), F.col(ROW_NUMBER).cast("string"), F.lit(suffix)).alias("quarantine_id"),
        F.lit(batch.batch_id).alias("batch_id"),
        F.col(ROW_NUMBER).alias("row_number"),
        F.col(AS_IT_CAME).alias("row"),
        F.col(BROKEN).alias("rules"),
        F.lit(batch.day).alias("day"),
        F.current_timestamp().alias("quarantined_at"),
    )
    writer = rows.write.format("delta").mode("append")
    writer.option("txnAppId", application(batch)).option("txnVersion", number + 1).save(uri)
    return count


def _rows(lake: Lakehouse, name: str, where: Sequence[Condition], *, judging: str = "") -> list[RefusedRow]:
    """``refused_rows``; those of the batch that is being judged are not set aside for what became of it before."""
    snapshot = quarantined(lake, name)
    if snapshot is None:
        return []
    from lakehouse.contracts.arrow import records

    rows = [Quarantined.model_validate(record) for record in records(snapshot.arrow(where=where))]
    rows.sort(key=lambda row: (row.quarantined_at, row.row_number))
    decided: dict[str, Fate] = {}
    for newer in sorted(lake.ledger.read(Fate, where=[("table_name", "=", name)]), key=lambda fate: fate.number):
        decided[newer.quarantine_id] = newer
    publications = lake.publications(name)
    good = {p.batch_id for p in pointer.standing(publications)}
    # Not published, withdrawn, or claimed in part only: another process has decided about one of its rows first.
    claims = Counter(fate.batch_id for fate in decided.values() if fate.fate == "requeued")
    void = {p.batch_id for p in publications} - good
    void |= {batch for batch, claimed in claims.items() if batch not in good and claimed != int(batch.split("-")[1])}
    aside = {p.batch_id for p in publications if p.kind == "requeue"} - good - {judging}
    found = []
    for row in rows:
        last = decided.get(row.quarantine_id)
        made = 0 if last is None else last.number + 1
        if last is not None and not (last.fate == "requeued" and last.batch_id in void):
            decision = {"fate": last.fate, "requeued_in": last.batch_id, "reason": last.reason}
        else:
            decision = {"fate": "rejudged" if row.batch_id in aside else "open"}
        found.append(RefusedRow.model_validate({"quarantined": row, "decisions": made, **decision}))
    return found


def _chosen(lake: Lakehouse, name: str, quarantine_ids: Iterable[str]) -> list[RefusedRow]:
    """The rows of these ids, oldest first."""
    wanted = list(dict.fromkeys(quarantine_ids))
    if not wanted:
        raise QuarantineError.nothing(name)
    found = {row.quarantined.quarantine_id: row for row in refused_rows(lake, name, [("quarantine_id", "in", wanted)])}
    for quarantine_id in wanted:
        if quarantine_id not in found:
            raise QuarantineError.unknown(name, quarantine_id)
    return list(found.values())


def _decide(
    lake: Lakehouse,
    name: str,
    rows: Sequence[RefusedRow],
    fate: Literal["requeued", "discarded", "rejudged"],
    *,
    batch_id: str = "",
    reason: str = "",
) -> None:
    """Append the decision on each row; QuarantineError if another process has decided first."""
    now = datetime.now(UTC)
    decisions = [
        Fate(
            fate_id=f"{name}/{row.quarantined.quarantine_id}/{row.decisions}",
            table_name=name,
            quarantine_id=row.quarantined.quarantine_id,
            number=row.decisions,
            fate=fate,
            batch_id=batch_id,
            reason=reason,
            decided_at=now,
        )
        for row in rows
    ]
    lake.ledger.append(decisions)  # a key that is there stays as it is: the first decision counts
    landed = {f.fate_id: f for f in lake.ledger.read(Fate, where=[("table_name", "=", name)])}
    for decision in decisions:
        first = landed[decision.fate_id]
        if (first.fate, first.batch_id) != (fate, batch_id):
            raise QuarantineError.decided(name, decision.quarantine_id, first.fate)


def _as_text(value: object) -> object:
    """A value as the gate reads it from text; lists and objects stay what they are."""
    if value is None or isinstance(value, (str, list, dict)):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def _column(table: str, column: str, values: Sequence[object]) -> pa.Array:
    """Text, or lists and objects."""
    import pyarrow as pa

    try:
        return pa.array(values, None if any(isinstance(value, (list, dict)) for value in values) else pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise QuarantineError.mixed(table, column) from error
