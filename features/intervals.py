"""Which rows does the online store hold? Of each view one pinned version and the interval of event times it covers.

This is the ledger of materialization. It lies in the store that it describes: a lost store loses its record, and what
one transaction or one point in time restores is both. A record names the state that the rows are in; while rows are
being written, where a store can't do that in one transaction, it names each state that a row may be in. From there any
other state can be reached by writing what differs, after a kill too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from lakehouse.upkeep.fates import fates

_INSTANT = timedelta(microseconds=1)


class Interval(BaseModel):
    """Event times from ``start`` to ``end``, both included; no start is the beginning of time."""

    model_config = ConfigDict(frozen=True)

    start: datetime | None
    end: datetime

    def without(self, other: Interval) -> Iterator[Interval]:
        """The parts of this interval that the other does not cover, in order; times are whole microseconds."""
        if other.start is not None and (self.start is None or self.start < other.start):
            yield Interval(start=self.start, end=min(self.end, other.start - _INSTANT))
        if self.end > other.end:
            after = other.end + _INSTANT
            yield Interval(start=after if self.start is None else max(self.start, after), end=self.end)


class State(BaseModel):
    """The newest row of each entity, in one version, among those of an interval.

    Attributes:
        uri: the Delta table's folder.
        table_id: its own id: another table at the same place is another one.
        version: the version.
        twin: the redacted twin that stands in for the version; empty for the version itself.
        contract: fingerprint of the row model.
        interval: the event times that count.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    table_id: str
    version: int
    twin: str
    contract: str
    interval: Interval

    @classmethod
    def of(cls, pin: Snapshot[Table], interval: Interval) -> State:
        """The state that a view pinned there is to be in."""
        return cls(
            uri=pin.uri,
            table_id=pin.table_id,
            version=pin.version,
            twin=fates(pin.uri).twins.get(pin.version, ""),
            contract=pin.row.contract.fingerprint,
            interval=interval,
        )

    def snapshot_like(self, pin: Snapshot[Table]) -> Snapshot[Table] | None:
        """The version, where the lake can still tell what it held; None if it was vacuumed or redacted since.

        A version that was redacted no longer shows whom the store still holds.
        """
        known = fates(self.uri)
        if (self.uri, self.table_id) != (pin.uri, pin.table_id) or self.contract != pin.row.contract.fingerprint:
            return None
        if known.is_removed(self.version) or known.twins.get(self.version, "") != self.twin:
            return None
        return Snapshot(self.uri, self.version, pin.row)


class Record(BaseModel):
    """What an online store says of one view's rows.

    Attributes:
        states: each row is as one of these has it. One: the store is whole. Several: writing was cut off, or goes on.
            None: the rows are being replaced, and nothing is known of them.
        features: the features that rows may hold.
    """

    model_config = ConfigDict(frozen=True)

    states: tuple[State, ...]
    features: tuple[str, ...]

    @property
    def whole(self) -> State | None:
        """The state that all rows are in; None while there are several, or none is known."""
        return self.states[0] if len(self.states) == 1 else None
