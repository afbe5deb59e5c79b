"""Which feature row was the newest that an entity row could know? Found while the feature rows stream by, once.

The entity rows are sorted by key and instant, and so is each block of feature rows, which is about as long. Both orders
are met: each feature row belongs to the first entity row of its key that knows it, and of those that belong to one
entity row only the newest is kept. When the stream ends, each entity row takes the newest that it or an earlier row of
its key was given.

So feature rows are neither sorted as a whole nor stored: memory follows the entity rows, and time is linear in the
feature rows and does not depend on how far back they reach. An ASOF join sorts both sides whole instead (compare
benchmarks/features.py).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.key_order import NEVER, Integers, KeyOrder

T = TypeVar("T")

#: Batches are put together to blocks of this many rows, or as the entity rows where these are more: each block costs a
#: search for every entity row that its time may concern. A block ends sooner where its rows are wide.
_BLOCK_ROWS = 1 << 19
_BLOCK_BYTES = 1 << 27
#: Whole numbers are looked up in an array where their range is at most so many times their count.
_SPARSE = 16
_WORKERS = min(4, os.cpu_count() or 1)


class EntityIndex:
    """Entity rows in the order of key and instant.

    Args:
        keys: one array a key column, of equal lengths; a row with a null in one matches nothing.
        instants: microseconds, one a row.
    """

    def __init__(self, keys: Sequence[pa.Array], instants: Integers) -> None:
        self._codes = _Codes(keys, len(instants))
        codes = self._codes.of(keys, len(instants))
        # A row that matches nothing comes after all that can.
        codes[codes < 0] = self._codes.count
        self.order: Integers = KeyOrder(codes, instants, self._codes.count).rows
        self.codes: Integers = codes[self.order]
        self.instants: Integers = instants[self.order]
        self.last: int = int(instants.max()) if len(instants) else NEVER
        #: The instant of the key's row before.
        self._before: Integers = np.where(
            np.append(False, self.codes[1:] == self.codes[:-1])[: len(codes)], np.roll(self.instants, 1), NEVER
        )

    def __len__(self) -> int:
        return len(self.order)

    def matched(self) -> npt.NDArray[np.bool_]:
        """Whether a row can match, in the index's order."""
        return self.codes < self._codes.count

    def codes_of(self, keys: Sequence[pa.Array], rows: int) -> Integers:
        """A number for each row's key, -1 for one that no entity row has."""
        return self._codes.of(keys, rows)

    def known_by(self, codes: Integers, instants: Integers) -> tuple[Integers, Integers, Integers]:
        """For rows known from an instant on, of keys that the index has: which entity rows are the first to know some.

        Returns:
            The rows, by key, then instant, then as they came; the places in the index of the entity rows that are the
            first of their key to know some of them, ascending; and for each of these, where in the rows its own end.
            They begin where the ones of the place before end, or later, where its key does.
        """
        if not len(codes):
            return codes, codes, codes
        ordered = KeyOrder(codes, instants, self._codes.count, upto=self.last)
        # An entity row before all of these, or whose key's row before is after them, is not the first to know any.
        asking = np.flatnonzero((self.instants >= instants.min()) & (self._before < instants.max()))
        ends = ordered.count_until(self.codes[asking], self.instants[asking])
        first = np.flatnonzero(np.diff(ends, prepend=0))
        places, ends = asking[first], ends[first]
        same = codes[ordered.rows[ends - 1]] == self.codes[places]
        return ordered.rows, places[same], ends[same]


@dataclass(frozen=True)
class Times:
    """A batch's times in microseconds.

    Attributes:
        known: event times.
        created: when each row was written down, or None where that does not count.
        available: from when on a row counts.
    """

    known: Integers
    created: Integers | None
    available: Integers


def newest_known(
    index: EntityIndex,
    batches: Iterable[pa.RecordBatch],
    keys: Sequence[str],
    features: Sequence[str],
    schema: pa.Schema,
    times: Callable[[pa.Table], Times],
    ttl: int | None,
) -> pa.Table:
    """The features of the newest row that each entity row knows, in the order in which the entity rows came.

    The newest is the one with the latest event time, of these the one created last, of these the last in the stream.

    Args:
        index: the entity rows.
        batches: feature rows; only the keys, the times and the features are read.
        keys: the feature rows' key columns, in the order of the index's.
        features: columns to take.
        schema: of the result: the features' names and types.
        times: a batch's times; rows whose event time is null must have been left out.
        ttl: microseconds for which a row counts from its event time on, both included; None for ever.
    """

    def winners(rows: pa.Table) -> _Winners:
        return _winners_of(index, rows, keys, features, times(rows))

    best = _Best(index, schema)
    for found in _in_order(winners, _blocks(batches, max(_BLOCK_ROWS, len(index)))):
        best.add(found)
    return best.take(ttl)


@dataclass(frozen=True)
class _Winners:
    """Of one batch, the newest row for each entity row that is the first to know one."""

    places: Integers
    known: Integers
    created: Integers | None
    features: pa.Table


def _winners_of(
    index: EntityIndex, table: pa.Table, keys: Sequence[str], features: Sequence[str], times: Times
) -> _Winners:
    codes = index.codes_of([table[key].combine_chunks() for key in keys], table.num_rows)
    known, created, available = times.known, times.created, times.available
    can_count = (codes >= 0) & (available <= index.last)
    asked = None if can_count.all() else np.flatnonzero(can_count)
    if asked is not None:
        codes, known, available = codes[asked], known[asked], available[asked]
        created = created[asked] if created is not None else None
    order, places, ends = index.known_by(codes, available)
    # What counts from its event time on comes in the order of the event times.
    rows = order[ends - 1] if created is None else _newest(order, ends, codes, (known, created))
    return _Winners(
        places=places,
        known=known[rows],
        created=created[rows] if created is not None else None,
        features=table.select(list(features)).take(pa.array(rows if asked is None else asked[rows])),
    )


def _newest(order: Integers, ends: Integers, codes: Integers, times: Sequence[Integers]) -> Integers:
    """Of the rows up to each end that have the last one's key, the one with the greatest times, then the last."""
    if not len(ends):
        return ends
    lengths = np.diff(ends, prepend=0)
    starts, rows = ends - lengths, order[: ends[-1]]
    newest = codes[rows] == np.repeat(codes[order[ends - 1]], lengths)
    for time in times:
        values = np.where(newest, time[rows], NEVER)
        newest &= values == np.repeat(np.maximum.reduceat(values, starts), lengths)
    greatest: Integers = np.maximum.reduceat(np.where(newest, rows, -1), starts)
    return greatest


class _Best:
    """The newest feature row so far of each entity row that is the first to know one."""

    def __init__(self, index: EntityIndex, schema: pa.Schema) -> None:
        self._index = index
        self._schema = schema
        self._known: Integers = np.full(len(index), NEVER)
        self._created: Integers | None = None
        self._row: Integers = np.full(len(index), -1)
        self._kept: list[pa.Table] = [schema.empty_table()]
        self._count = 0

    def add(self, found: _Winners) -> None:
        places, known, created = found.places, found.known, found.created
        newer = known > self._known[places]
        if created is None:
            newer |= known == self._known[places]
        else:
            if self._created is None:
                self._created = np.full(len(self._index), NEVER)
            newer |= (known == self._known[places]) & (created >= self._created[places])
            self._created[places[newer]] = created[newer]
        self._known[places[newer]] = known[newer]
        self._row[places[newer]] = self._count + np.flatnonzero(newer)
        self._kept.append(found.features)
        self._count += len(places)
        if self._count > 2 * len(self._index) + 8 * _BLOCK_ROWS:
            self._compact()

    def take(self, ttl: int | None) -> pa.Table:
        index = self._index
        source = self._newest_so_far()
        row = np.where(source < 0, -1, self._row[source])
        if ttl is not None:
            # Never negative where there is a row, so the difference of the extremes fits too.
            row[(index.instants - self._known[source]).view(np.uint64) > ttl] = -1
        if len(index):
            row[~index.matched()] = -1
        asked = np.empty(len(index), np.int64)
        asked[index.order] = row
        rows = pa.array(asked, mask=asked < 0)
        kept = pa.concat_tables(self._kept)
        with ThreadPoolExecutor(_WORKERS) as pool:
            columns = list(pool.map(lambda column: column.combine_chunks().take(rows), kept.columns))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _newest_so_far(self) -> Integers:
        """For each entity row, which row of its key, itself or before it, holds the newest; -1 for none."""
        index = self._index
        places = np.arange(len(index))
        if self._created is None:
            rank = np.where(self._row >= 0, places + 1, 0)  # later entity rows are given later feature rows
            by_rank = places
        else:
            # What was written down late may be older than what an earlier entity row knew.
            held = np.flatnonzero(self._row >= 0)
            by_rank = held[np.lexsort((self._created[held], self._known[held]))]
            rank = np.zeros(len(index), np.int64)
            rank[by_rank] = np.arange(1, len(by_rank) + 1)
        group = np.cumsum(np.append(0, index.codes[1:] != index.codes[:-1])) if len(index) else places
        offset = group * (len(index) + 1)
        best = np.maximum.accumulate(offset + rank) - offset
        found = np.full(len(index), -1)
        found[best > 0] = by_rank[best[best > 0] - 1]
        return found

    def _compact(self) -> None:
        """Let go of rows that newer ones have replaced."""
        held = np.flatnonzero(self._row >= 0)
        kept = pa.concat_tables(self._kept).combine_chunks().take(pa.array(self._row[held]))
        self._row[held] = np.arange(len(held))
        self._kept, self._count = [kept], len(held)


class _Codes:
    """A number for each combination of keys that the entity rows have."""

    def __init__(self, keys: Sequence[pa.Array], rows: int) -> None:
        self._columns = [_Dictionary(column) for column in keys]
        self._pairs: list[_Dictionary] = []
        self.count = self._columns[0].count if self._columns else 1
        codes = self._columns[0].of(keys[0]) if self._columns else np.zeros(rows, np.int64)
        for column, dictionary in zip(keys[1:], self._columns[1:], strict=True):
            both = _paired(codes, dictionary.of(column), dictionary.count)
            pair = _Dictionary(pa.array(both, mask=both < 0))
            self._pairs.append(pair)
            codes, self.count = pair.of(pa.array(both)), pair.count

    def of(self, keys: Sequence[pa.Array], rows: int) -> Integers:
        """The number of each row's combination, -1 for another one."""
        if not self._columns:
            return np.zeros(rows, np.int64)
        codes = self._columns[0].of(keys[0])
        for column, dictionary, pair in zip(keys[1:], self._columns[1:], self._pairs, strict=True):
            codes = pair.of(pa.array(_paired(codes, dictionary.of(column), dictionary.count)))
        return codes


def _paired(left: Integers, right: Integers, count: int) -> Integers:
    return np.where((left < 0) | (right < 0), -1, left * count + right)


class _Dictionary:
    """A number for each value of one column."""

    def __init__(self, column: pa.Array) -> None:
        self._values = pc.unique(column).drop_null()
        self.count = len(self._values)
        self._numbers: Integers | None = None
        if pa.types.is_int64(column.type) and self.count:
            bounds = pc.min_max(self._values)
            self._low, self._high = bounds["min"].as_py(), bounds["max"].as_py()
            if self._high - self._low < _SPARSE * self.count + 1000:
                self._numbers = np.full(self._high - self._low + 1, -1)
                self._numbers[self._values.to_numpy() - self._low] = np.arange(self.count)

    def of(self, column: pa.Array) -> Integers:
        """The number of each value, -1 for null and values that are not there."""
        if self._numbers is None:
            found = pc.index_in(column, self._values, skip_nulls=True)
            codes: Integers = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            return codes
        values = (column.fill_null(self._low) if column.null_count else column).to_numpy()
        inside = (values >= self._low) & (values <= self._high)
        if inside.all():
            codes = self._numbers[values - self._low]
        else:
            codes = self._numbers[np.where(inside, values, self._low) - self._low]
            codes[~inside] = -1
        if column.null_count:
            codes[pc.is_null(column).to_numpy(zero_copy_only=False)] = -1
        return codes


def _blocks(batches: Iterable[pa.RecordBatch], most: int) -> Iterator[pa.Table]:
    """The same rows, as many at once as are good to sort."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= most or size >= _BLOCK_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(waiting)


def _in_order(work: Callable[[pa.Table], T], tables: Iterable[pa.Table]) -> Iterator[T]:
    """The results in the order of the tables; a few are worked on at once, and no more are held."""
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        for table in tables:
            pending.append(pool.submit(work, table))
            if len(pending) > _WORKERS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
