"""How does the online store come to the end of a day? By writing what changed since the state it is known to hold.

Feast does not notice that a view's pin has changed, and never takes a row back. Here the store's own record says which
version and interval its rows stand for. Read is what lies between that and what is wanted: event times that only one of
the two covers (a gap, or what a ttl lets go), and rows that one version has and the other lacks (rows that came late,
corrections, removals). Of the entities found there the newest rows are compared, and what differs is written.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from features.encoding import Layout, encode_keys, encode_rows
from features.errors import OnlineStoreBusyError
from features.intervals import Interval, Record, State
from features.online import Change, OnlineTables
from features.point_in_time import changed_rows, latest_rows, rows_between
from features.views import event_time, feature_columns, join_keys
from lakehouse.contracts.arrow import arrow_type
from lakehouse.contracts.table import Table
from lakehouse.errors import UnknownVersionError
from lakehouse.snapshot import Snapshot

#: How often a view is written when another process writes the same at once.
_ATTEMPTS = 10


class Materialized(BaseModel):
    """What a view's rows in the online store stand for, and what it took to bring them there.

    Attributes:
        view: name of the view.
        reference: the version they come from, as table@version.
        at: the instant: the newest row of each entity that was known then (UTC).
        written: entities written because their row was new or had changed.
        removed: entities that the new state no longer has.
        replaced: whether all rows were written anew, because nobody could say what the store held.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    reference: str
    at: datetime
    written: int
    removed: int
    replaced: bool = False


def bring_to(tables: OnlineTables, pin: Snapshot[Table], at: datetime, ttl: timedelta | None = None) -> Materialized:
    """Make the view's online rows the newest ones known at ``at`` in the pinned version; does nothing if they are.

    Cut off at any point it may be run again, for this state or any other.

    Args:
        tables: the online store; Feast has made the view's table.
        pin: the version that the view reads.
        at: the instant (UTC).
        ttl: how long after its event time a row counts, that instant included; None is for ever.

    Raises:
        OnlineStoreError: the store does not answer, or another process brought the view somewhere else in the meantime.
        StorageError: the version can't be read.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _bring_to(tables, pin, at, ttl)
        except OnlineStoreBusyError:
            held = tables.record(Layout.of(pin.row.contract).view)
            target = State.of(pin, Interval(start=at - ttl if ttl else None, end=at))
            # Two that want the same: what the other has written is not to be written again.
            same = held is not None and target in Record.model_validate_json(held).states
            if not same or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.5 * (attempt + 1)))  # noqa: S311
    raise AssertionError("not reached")


def _bring_to(tables: OnlineTables, pin: Snapshot[Table], at: datetime, ttl: timedelta | None) -> Materialized:
    contract = pin.row.contract
    layout = Layout.of(contract)
    held = tables.record(layout.view)
    record = Record.model_validate_json(held) if held is not None else Record(states=(), features=())
    target = State.of(pin, Interval(start=at - ttl if ttl else None, end=at))
    if record.whole == target:
        return Materialized(view=layout.view, reference=pin.reference, at=at, written=0, removed=0)

    found = [_differences(state, pin, target.interval) for state in record.states]
    known = [one for one in found if one is not None]
    replace = not known or len(known) < len(found)
    if replace:
        changed = _latest(pin, target.interval)
        gone = changed.select(join_keys(contract)).slice(0, 0)
    else:
        changed, gone = (_distinct([one[side] for one in known], layout) for side in (0, 1))
    tables.write(
        Change(
            layout=layout,
            rows=encode_rows(changed, contract),
            gone=encode_keys(layout, {name: gone[name].to_pylist() for name in gone.column_names}),
            replace=replace,
            stale=tuple(name for name in record.features if name not in layout.names),
            expected=held,
            meanwhile=Record(
                states=() if replace else (*record.states, target),
                features=tuple(dict.fromkeys([*record.features, *layout.names])),
            ).model_dump_json(),
            afterwards=Record(states=(target,), features=layout.names).model_dump_json(),
        )
    )
    return Materialized(
        view=layout.view,
        reference=pin.reference,
        at=at,
        written=changed.num_rows,
        removed=gone.num_rows,
        replaced=replace and held is not None,
    )


def _differences(state: State, pin: Snapshot[Table], wanted: Interval) -> tuple[pa.Table, pa.Table] | None:
    """Rows to write and keys to remove, to come from a state to the wanted one; None if the lake can't tell it."""
    before = state.snapshot_like(pin)
    if before is None:
        return None
    try:
        touched = _touched(before, state.interval, pin, wanted)
        rows = [_latest(*place, touched) for place in ((before, state.interval), (pin, wanted))]
    except UnknownVersionError:
        return None
    return changed_rows(rows[0], rows[1], join_keys(pin.row.contract))


def _touched(before: Snapshot[Table], held: Interval, after: Snapshot[Table], wanted: Interval) -> pa.Table:
    """The keys of all rows that only one of the two states can hold."""
    contract = after.row.contract
    keys = list(join_keys(contract))
    schema = pa.schema([(key, arrow_type(contract.column(key).type)) for key in keys])
    found = [schema.empty_table()]
    for snapshot, mine, other in ((before, held, wanted), (after, wanted, held)):
        for part in mine.without(other):
            rows = rows_between(snapshot, keys, event_time(contract), start=part.start, end=part.end).read_all()
            found.append(rows.select(keys).cast(schema))
    if before != after:
        for batch in before.diff(after).arrow():
            changes = pa.Table.from_batches([batch])
            for side in ("before", "after"):
                there = changes.filter(changes[f"{side}.{keys[0]}"].is_valid())
                found.append(there.select([f"{side}.{key}" for key in keys]).rename_columns(keys).cast(schema))
    return pa.concat_tables(found).group_by(keys).aggregate([])


def _latest(pin: Snapshot[Table], interval: Interval, touched: pa.Table | None = None) -> pa.Table:
    """The newest row of each entity in an interval; of the touched ones alone, if any are given."""
    contract = pin.row.contract
    return latest_rows(
        pin,
        join_keys(contract),
        feature_columns(contract),
        event_time(contract),
        start=interval.start,
        end=interval.end,
        among=touched,
    )


def _distinct(tables: Sequence[pa.Table], layout: Layout) -> pa.Table:
    """Each entity once: from whatever state it is brought, its row is the same."""
    if len(tables) == 1:
        return tables[0]
    together = pa.concat_tables(tables)
    keys = zip(*(together[name].to_pylist() for name, _ in layout.keys), strict=True)
    places = {key: place for place, key in enumerate(keys)}
    return together.take(pa.array(sorted(places.values()), pa.int64()))
