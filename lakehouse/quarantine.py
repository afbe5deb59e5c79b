"""What becomes of a refused row? It waits in the quarantine until it is corrected and sent again, or discarded.

The quarantine lies beside its table and is only added to, and so are the decisions on its rows (the ledger's
``quarantine_fates``). Rows quarantined = open + requeued + discarded, always; rows of a batch that was judged again and
came out otherwise are set aside as ``rejudged`` and count no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from lakehouse.declaring import read_contract
from lakehouse.errors import QuarantineError
from lakehouse.judging import AS_IT_CAME, BROKEN, ERASED_RULE
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Fate
from lakehouse.merging import application
from lakehouse.snapshot import Condition, Snapshot
from lakehouse.staging import ROW_NUMBER, Batch
from lakehouse.table import EventTime, Key, Table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

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


class RefusedRow(BaseModel):
    """A quarantined row and what was decided about it.

    Attributes:
        quarantined: the row.
        fate: open; or requeued, in the batch ``requeued_in``; discarded, for ``reason``; rejudged with its batch.
    """

    model_config = ConfigDict(frozen=True)

    quarantined: Quarantined
    fate: Literal["open", "requeued", "discarded", "rejudged"] = "open"
    requeued_in: str = ""
    reason: str = ""

    @property
    def values(self) -> dict[str, object]:
        """The row as it came, by column."""
        return cast("dict[str, object]", json.loads(self.quarantined.row, parse_float=Decimal))

    @property
    def offending(self) -> dict[str, object]:
        """The values that broke a rule, by rule; None where the column is missing."""
        return {rule: self.values.get(rule.partition(" ")[0]) for rule in self.quarantined.rules}


def quarantined(lake: Lakehouse, name: str) -> Snapshot[Table] | None:
    """The quarantine beside a table at its newest version; None if nothing was ever refused."""
    from deltalake import DeltaTable

    path = lake.quarantine_uri(name)
    if not DeltaTable.is_deltatable(path):
        return None
    return cast("Snapshot[Table]", Snapshot(path, DeltaTable(path).version()))


def refused_rows(lake: Lakehouse, name: str, where: Sequence[Condition] = ()) -> list[RefusedRow]:
    """Every refused row of a table with its fate, oldest first; ``where``: conditions on the quarantine's columns."""
    snapshot = quarantined(lake, name)
    if snapshot is None:
        return []
    from lakehouse.arrow import records

    rows = [Quarantined.model_validate(record) for record in records(snapshot.arrow(where=where))]
    rows.sort(key=lambda row: (row.quarantined_at, row.row_number))
    decided: dict[str, Fate] = {}
    for fate in sorted(lake.ledger.read(Fate, where=[("table_name", "=", name)]), key=lambda fate: fate.number):
        decided[fate.quarantine_id] = fate
    publications = lake.publications(name)
    refused = {p.batch_id for p in publications} - {p.batch_id for p in publications if p.published}
    return [_with_fate(row, decided.get(row.quarantine_id), refused) for row in rows]


def requeue(
    lake: Lakehouse, row_model: type[Row], corrected: Mapping[str, Mapping[str, object]], *, day: date | None = None
) -> Snapshot[Row]:
    """Send corrected rows through the gate again, as a batch of kind ``requeue``, and return what readers now get.

    The same correction again finishes what a kill has interrupted and changes nothing else. A row that breaks a rule
    again is quarantined anew; if the batch fails its audit, its rows are open again.

    Args:
        lake: the lake.
        row_model: of the table.
        corrected: by quarantine id, the columns to change and their values; a column that is not named stays.
        day: the day whose end the rows bring the table to (default: the newest of the batches that brought them).

    Raises:
        QuarantineError: a row is not there, was decided about, or names an erased person.
    """
    import pyarrow as pa

    from lakehouse.publish import publish
    from lakehouse.staging import stage

    contract = row_model.contract
    rows = _chosen(lake, contract.table, corrected)
    unknown = [column for changes in corrected.values() for column in changes if column not in contract.names]
    if unknown:
        raise QuarantineError.column(contract.table, unknown[0], contract.names)
    records = [{**row.values, **corrected[row.quarantined.quarantine_id]} for row in rows]
    text = [{name: _as_text(record.get(name)) for name in contract.names} for record in records]
    digest = hashlib.sha256(json.dumps([sorted(corrected), text], sort_keys=True, default=str).encode()).hexdigest()
    batch_id = f"requeue-{digest[:16]}"
    taken = [row for row in rows if row.fate != "open" and row.requeued_in != batch_id]
    if taken:
        raise QuarantineError.decided(contract.table, taken[0].quarantined.quarantine_id, taken[0].fate)
    lacking = [name for name in contract.names if all(name not in record for record in records)]
    brought = [name for name in contract.names if name not in lacking]
    table = pa.table({name: _column([record[name] for record in text]) for name in brought})
    batch = stage(lake, row_model, table, batch_id=batch_id, day=day or max(row.quarantined.day for row in rows))
    # The claim comes first: a row is never sent twice, and after a kill the same correction goes on from here.
    _decide(lake, contract.table, [row for row in rows if row.fate == "open"], "requeued", batch_id=batch_id)
    return publish(lake, row_model, batch, kind="requeue")


def discard(lake: Lakehouse, name: str, quarantine_ids: Sequence[str], reason: str) -> None:
    """Close open rows for good; the reason stays in the ledger.

    Raises:
        QuarantineError: a row is not there, or was decided about.
    """
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
    """
    from pyspark.sql import functions as F

    from lakehouse.delta_schema import create
    from lakehouse.snapshot import open_delta

    uri = lake.quarantine_uri(batch.table)
    number = -1
    if quarantined(lake, batch.table) is not None:
        last = open_delta(uri).transaction_version(application(batch))
        number = -1 if last is None else last
    closed: list[int] = []
    if number >= 0:
        found = {row[0]: sorted(row[1]) for row in bad.select(ROW_NUMBER, BROKEN).collect()}
        earlier = [
            r for r in refused_rows(lake, batch.table, [("batch_id", "=", batch.batch_id)]) if r.fate != "rejudged"
        ]
        if found == {r.quarantined.row_number: sorted(r.quarantined.rules) for r in earlier}:
            return len(found)
        _decide(lake, batch.table, [r for r in earlier if r.fate == "open"], "rejudged")
        closed = [r.quarantined.row_number for r in earlier if r.fate != "open"]
        bad = bad.where(~F.col(ROW_NUMBER).isin(closed)) if closed else bad
        count = len(found.keys() | set(closed))
    if count == len(closed):
        return count
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


def _with_fate(row: Quarantined, fate: Fate | None, refused: set[str]) -> RefusedRow:
    if fate is None or (fate.fate == "requeued" and fate.batch_id in refused):
        return RefusedRow(quarantined=row)
    return RefusedRow(quarantined=row, fate=fate.fate, requeued_in=fate.batch_id, reason=fate.reason)


def _chosen(lake: Lakehouse, name: str, quarantine_ids: Iterable[str]) -> list[RefusedRow]:
    wanted = list(dict.fromkeys(quarantine_ids))
    found = {row.quarantined.quarantine_id: row for row in refused_rows(lake, name, [("quarantine_id", "in", wanted)])}
    for quarantine_id in wanted:
        if quarantine_id not in found:
            raise QuarantineError.unknown(name, quarantine_id)
        if ERASED_RULE in found[quarantine_id].quarantined.rules:
            raise QuarantineError.erased(name, quarantine_id)
    return [found[quarantine_id] for quarantine_id in wanted]


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
    if not rows:
        return
    ids = [row.quarantined.quarantine_id for row in rows]
    where: list[Condition] = [("table_name", "=", name), ("quarantine_id", "in", ids)]
    past = [f.quarantine_id for f in lake.ledger.read(Fate, where=where)]
    now = datetime.now(UTC)
    decisions = [
        Fate(
            fate_id=f"{name}/{quarantine_id}/{past.count(quarantine_id)}",
            table_name=name,
            quarantine_id=quarantine_id,
            number=past.count(quarantine_id),
            fate=fate,
            batch_id=batch_id,
            reason=reason,
            decided_at=now,
        )
        for quarantine_id in ids
    ]
    lake.ledger.append(decisions)  # a key that is there stays as it is: the first decision counts
    landed = {f.fate_id: f for f in lake.ledger.read(Fate, where=where)}
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


def _column(values: Sequence[object]) -> pa.Array:
    """Text, or lists and objects; text for all where a row has neither."""
    import pyarrow as pa

    if any(isinstance(value, (list, dict)) for value in values):
        return pa.array([value if isinstance(value, (list, dict)) else None for value in values])
    return pa.array(values, pa.string())
