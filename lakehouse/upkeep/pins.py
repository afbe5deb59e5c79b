"""Which old versions must vacuum keep, and for whom? Those of promoted models, kept runs, tags, and pins by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.table import Table
from lakehouse.errors import PinError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import PinRecord, Promotion, Run
from lakehouse.query.tags import tags
from lakehouse.settings import Settings
from lakehouse.snapshot import Snapshot

_VERSIONED = re.compile(r"(?P<table>[a-z][a-z0-9_]*)@(?P<version>[0-9]+)")


class Pin(BaseModel):
    """One version, one reason to keep it.

    Attributes:
        table: the table.
        version: its Delta version.
        holder: who needs it: ``model DIGEST``, ``run ID``, ``tag NAME``, or the name given by hand.
        reason: what for.
        kept_until: when the pin ends by itself (UTC); None if it does not.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    version: int
    holder: str
    reason: str
    kept_until: datetime | None = None

    @property
    def reference(self) -> str:
        """``table@version``."""
        return f"{self.table}@{self.version}"


def pins(lake: Lakehouse, table: str | None = None, *, now: datetime | None = None) -> list[Pin]:
    """Every pin that holds now, by table and version; what the ledger tells already is derived from it.

    Args:
        lake: the lake.
        table: only this table's.
        now: the moment to judge by (UTC), for tests.
    """
    now = now or datetime.now(UTC)
    found = [*_of_runs(lake, now), *_of_tags(lake), *_by_hand(lake, now)]
    unique = {(pin.table, pin.version, pin.holder): pin for pin in found if table in (None, pin.table)}
    return [unique[key] for key in sorted(unique)]


def pin(
    lake: Lakehouse, reference: str, *, holder: str, reason: str, kept_until: datetime | None = None
) -> Snapshot[Table]:
    """Keep a version until it is released, or until a moment; pinned again by the same holder, the newest pin counts.

    Raises:
        UnknownVersionError: there is no such version, or vacuum removed its files already.
    """
    snapshot = lake.resolve(reference)
    _record(lake, snapshot, holder, reason, kept_until, released=False)
    return snapshot


def release(lake: Lakehouse, reference: str, *, holder: str) -> Snapshot[Table]:
    """Let a pinned version go; PinError if that holder does not pin it."""
    snapshot = lake.resolve(reference)
    held = {(p.table, p.version, p.holder) for p in _by_hand(lake, datetime.now(UTC))}
    if (snapshot.name, snapshot.version, holder) not in held:
        raise PinError.unknown(snapshot.reference, holder)
    _record(lake, snapshot, holder, "", None, released=True)
    return snapshot


def _record(
    lake: Lakehouse, snapshot: Snapshot[Table], holder: str, reason: str, kept_until: datetime | None, *, released: bool
) -> None:
    number = sum(
        (row.table_name, row.version, row.holder) == (snapshot.name, snapshot.version, holder)
        for row in lake.ledger.read(PinRecord)
    )
    lake.ledger.append(
        [
            PinRecord(
                pin_id=f"{snapshot.reference}/{holder}/{number}",
                table_name=snapshot.name,
                version=snapshot.version,
                holder=holder,
                reason=reason,
                kept_until=kept_until,
                released=released,
                recorded_at=datetime.now(UTC),
            )
        ]
    )


def _by_hand(lake: Lakehouse, now: datetime) -> Iterator[Pin]:
    newest: dict[tuple[str, int, str], PinRecord] = {}
    for row in lake.ledger.read(PinRecord):
        newest[row.table_name, row.version, row.holder] = row
    for row in newest.values():
        if not row.released and (row.kept_until is None or row.kept_until > now):
            yield Pin(
                table=row.table_name,
                version=row.version,
                holder=row.holder,
                reason=row.reason,
                kept_until=row.kept_until,
            )


def _of_runs(lake: Lakehouse, now: datetime) -> Iterator[Pin]:
    """What kept runs read and wrote; of a run that trained a promoted model, for good."""
    promoted = {promotion.model_digest: promotion.day for promotion in lake.ledger.read(Promotion)}
    keep = timedelta(days=Settings().keep_runs_days)
    for run in lake.ledger.read(Run):
        model = str(json.loads(run.artifacts).get("model", ""))
        for reference in dict.fromkeys((*run.inputs, *run.outputs)):
            match = _VERSIONED.fullmatch(reference)
            if match is None:
                continue
            table, version = match["table"], int(match["version"])
            if model in promoted:
                reason = f"promoted on {promoted[model]}, trained by run {run.run_id}"
                yield Pin(table=table, version=version, holder=f"model {model[:12]}", reason=reason)
            until = run.finished_at + keep
            if until > now:
                reason = f"{run.workflow} of {run.day}"
                yield Pin(table=table, version=version, holder=f"run {run.run_id}", reason=reason, kept_until=until)


def _of_tags(lake: Lakehouse) -> Iterator[Pin]:
    for row in tags(lake):
        yield Pin(table=row.table_name, version=row.version, holder=f"tag {row.tag}", reason="tagged")
