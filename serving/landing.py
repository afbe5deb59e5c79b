"""How do events get from the log into the lake? In batches through the ordinary publishing gate, each exactly once.

A batch is a stretch of the log, and its id says which: segment, first byte, last byte. What has landed is read from the
ledger's publications, so there is no second book that could disagree. A landing that was killed finds its batch staged
or half published, and goes on from there; the keys of the tables make even an event that was logged twice one row.

Ratings given online become rows of ``ratings`` in a batch of the same name, made from that version of ``feedback``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.arrow import arrow_schema
from lakehouse.gate.publish import publish
from lakehouse.gate.staging import Batch, stage, staged
from lakehouse.lake import Lakehouse
from lakehouse.tables import Feedback, Rating
from serving.journal import Record, read, segments, whole_bytes

#: Events in one batch.
BATCH_EVENTS = 200_000
_ID = re.compile(r"feedback-(\d{9})\.(\d+)-(\d+)")


class Landed(BaseModel):
    """What a landing brought into the lake.

    Attributes:
        batches: ids of the batches that were published, in order.
        events: events in them.
        ratings: of these, ratings.
        quarantined: rows that the gate refused, of both tables; `millrace quarantine` shows why.
        feedback, ratings_version: the versions that readers get since, as table@version; empty where nothing came.
        removed: segments of the log that were wholly in the lake and are gone.
    """

    model_config = ConfigDict(frozen=True)

    batches: list[str] = []
    events: int = 0
    ratings: int = 0
    quarantined: int = 0
    feedback: str = ""
    ratings_version: str = ""
    removed: list[str] = []


def land(lake: Lakehouse, folder: Path, *, until: datetime | None = None) -> Landed:
    """Publish what the log holds and the lake does not; the service may go on writing meanwhile.

    Args:
        lake: the lake.
        folder: of the log.
        until: events received later wait for the next landing.

    Raises:
        JournalError: the log is damaged.
        AuditError: the gate refused a version; its rows wait, and the version before stays the latest.
        BatchSchemaError, StorageError, TableBusyError, NotPublishedError: as publishing does.
    """
    batches: list[str] = []
    events = ratings = quarantined = 0
    references = {Feedback.contract.table: "", Rating.contract.table: ""}
    for name, start in _unlanded(lake, folder):
        for end, records in _stretches(folder, name, start, _begun(lake, name, start), until):
            batch_id = f"{name.removesuffix('.log')}.{start}-{end}"
            day = _day(records)
            given = [record for record in records if record["kind"] == "rating"]
            # Both are staged before either is published: ratings that wait show a landing that was cut off.
            waiting: list[tuple[type[Feedback] | type[Rating], Batch]] = [
                (row, _staged(lake, row, rows, batch_id, day))
                for row, rows in ((Rating, _rating_rows(given)), (Feedback, _feedback_rows(records)))
                if rows.num_rows
            ]
            refused = 0
            for row, batch in reversed(waiting):
                table = row.contract.table
                made_from = [] if row is Feedback else [references[Feedback.contract.table]]
                references[table] = publish(lake, row, batch, inputs=made_from).reference
                refused += sum(p.rows_quarantined for p in lake.publications(table) if p.batch_id == batch_id)
            batches.append(batch_id)
            events, ratings, quarantined = events + len(records), ratings + len(given), quarantined + refused
            start = end
    return Landed(
        batches=batches,
        events=events,
        ratings=ratings,
        quarantined=quarantined,
        feedback=references[Feedback.contract.table],
        ratings_version=references[Rating.contract.table],
        removed=_remove_landed(lake, folder),
    )


def unlanded_bytes(lake: Lakehouse, folder: Path) -> int:
    """Bytes of the log that are not in the lake."""
    return sum((folder / name).stat().st_size - start for name, start in _unlanded(lake, folder))


def _landed(lake: Lakehouse) -> dict[int, int]:
    """How far each segment is in the lake, by its number.

    A batch counts when both its tables have published what it had for them: the ratings come last.
    """
    waiting = {p.batch_id for p in lake.publications(Rating.contract.table) if p.published}
    ends: dict[int, int] = {}
    for publication in lake.publications(Feedback.contract.table):
        found = _ID.fullmatch(publication.batch_id)
        if found is None or not publication.published:
            continue
        whole = publication.batch_id in waiting or not lake.storage.exists(
            f"_staging/{Rating.contract.table}/{publication.batch_id}.parquet"
        )
        if whole:
            number, end = int(found[1]), int(found[3])
            ends[number] = max(end, ends.get(number, 0))
    return ends


def _unlanded(lake: Lakehouse, folder: Path) -> list[tuple[str, int]]:
    """The segments with something to land, and from which byte on."""
    ends = _landed(lake)
    found = []
    for name in segments(folder):
        start = ends.get(_number(name), 0)
        if (folder / name).stat().st_size > start:
            found.append((name, start))
    return found


def _begun(lake: Lakehouse, name: str, start: int) -> int | None:
    """Where the batch ends that an earlier landing staged from that byte on; None if there is none."""
    for key in lake.storage.keys(f"_staging/{Feedback.contract.table}"):
        found = _ID.fullmatch(Path(key).stem)
        if found is not None and (int(found[1]), int(found[2])) == (_number(name), start):
            return int(found[3])
    return None


def _stretches(
    folder: Path, name: str, start: int, begun: int | None, until: datetime | None
) -> list[tuple[int, list[Record]]]:
    """The records from a byte on, some at a time, with where each lot ends."""
    path = folder / name
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)  # what is landed must also be in the log after a power cut, or its bytes would be used again
    finally:
        os.close(opened)
    lots: list[tuple[int, list[Record]]] = []
    lot: list[Record] = []
    end = start
    for found in read(folder, name, start):
        if begun is None and until is not None and datetime.fromisoformat(str(found.record["received_at"])) > until:
            break
        lot.append(found.record)
        end = found.end
        if end == begun or (begun is None and len(lot) == BATCH_EVENTS):
            begun = None
            lots.append((end, lot))
            lot = []
    return [*lots, (end, lot)] if lot else lots


def _staged(lake: Lakehouse, row: type[Feedback] | type[Rating], rows: pa.Table, batch_id: str, day: date) -> Batch:
    """The batch as an earlier attempt staged it, else staged now."""
    return staged(lake, row, batch_id=batch_id, day=day) or stage(lake, row, rows, batch_id=batch_id, day=day)


def _feedback_rows(records: Sequence[Record]) -> pa.Table:
    names = Feedback.contract.names
    times = ("occurred_at", "received_at")
    rows = [{name: _instant(record[name]) if name in times else record[name] for name in names} for record in records]
    return pa.Table.from_pylist(rows, arrow_schema(Feedback.contract))


def _rating_rows(records: Sequence[Record]) -> pa.Table:
    rows = [
        {
            "user_id": record["user_id"],
            "item_id": record["item_id"],
            "rating": record["rating"],
            "rated_at": _instant(record["occurred_at"]),
        }
        for record in records
    ]
    return pa.Table.from_pylist(rows, arrow_schema(Rating.contract))


def _remove_landed(lake: Lakehouse, folder: Path) -> list[str]:
    """Segments that are wholly in the lake go, but for the last, which is being written, and the one before it.

    The service knows the ids of what it still has; the one before the last keeps those of the newest events.
    """
    ends = _landed(lake)
    gone = []
    for name in segments(folder)[:-2]:
        if ends.get(_number(name), 0) >= whole_bytes(folder / name):
            (folder / name).unlink()
            gone.append(name)
    return gone


def _day(records: Sequence[Record]) -> date:
    """The day whose end the batch brings the tables to: that of its newest event."""
    return max(_instant(record["received_at"]) for record in records).date()


def _instant(text: object) -> datetime:
    return datetime.fromisoformat(str(text)).astimezone(UTC)


def _number(name: str) -> int:
    return int(name.removeprefix("feedback-").removesuffix(".log"))
