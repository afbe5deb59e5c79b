"""What a recommender learns from and is asked: interactions, the users' histories at an instant, and the query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import FeatureColumnError, InteractionsError

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Interactions:
    """Who met what and when, in time order (ties by user, then item), whatever order the table came in.

    `user_ids`, `item_ids`: int64 [rows]; `rated_at`: int64 [rows], microseconds since 1970 in UTC.
    """

    user_ids: Int64s
    item_ids: Int64s
    rated_at: Int64s

    @classmethod
    def of(cls, table: pa.Table) -> Interactions:
        """Read columns user_id, item_id (int64) and rated_at (timestamp, UTC); others are ignored.

        Raises InteractionsError on a null, FeatureColumnError on a missing column.
        """
        users, items = int64_column(table, "user_id", "interactions"), int64_column(table, "item_id", "interactions")
        times = instants(table, "interactions")
        order = np.lexsort((items, users, times))
        return cls(users[order], items[order], times[order])

    def __len__(self) -> int:
        return len(self.user_ids)

    def between(self, start: int, end: int) -> Interactions:
        """The rows with start <= rated_at < end, in microseconds."""
        low, high = np.searchsorted(self.rated_at, [start, end])
        return Interactions(self.user_ids[low:high], self.item_ids[low:high], self.rated_at[low:high])

    def before(self, end: int) -> Interactions:
        """The rows with rated_at < end, in microseconds."""
        return self.between(np.iinfo(np.int64).min, end)

    def where(self, kept: Bools) -> Interactions:
        """The rows that a mask keeps."""
        return Interactions(self.user_ids[kept], self.item_ids[kept], self.rated_at[kept])

    def newest_of_each(self) -> Interactions:
        """The newest row of each user and item; itself where none is there twice."""
        order = np.lexsort((self.item_ids, self.user_ids))  # stable: of the same pair, the newest is the last
        users, items = self.user_ids[order], self.item_ids[order]
        last = np.append((users[1:] != users[:-1]) | (items[1:] != items[:-1]), True)[: len(self)]
        return self if last.all() else self.where(np.isin(np.arange(len(self)), order[last]))

    def catalogue(self) -> Int64s:
        """The items met, each once, ascending."""
        return np.unique(self.item_ids)


@dataclass(frozen=True)
class Histories:
    """What each of some users had met before an instant, oldest first; a new user's history is empty.

    `user_ids`: int64 [users]; row r of the flat arrays belongs to user `user_ids[rows[r]]`.
    `rows`, `item_ids`, `rated_at`: int64 [events], sorted by user, then time.
    `asked`: int64 [users], the instant of each user's question in microseconds since 1970.
    """

    user_ids: Int64s
    rows: Int64s
    item_ids: Int64s
    rated_at: Int64s
    asked: Int64s

    @classmethod
    def of(cls, interactions: pa.Table | Interactions, user_ids: Int64s, at: datetime) -> Histories:
        """The histories of `user_ids` strictly before `at`."""
        log = interactions if isinstance(interactions, Interactions) else Interactions.of(interactions)
        return cls.before(log, user_ids, microseconds(at))

    @classmethod
    def before(cls, log: Interactions, user_ids: Int64s, at: int) -> Histories:
        """As `of`, with the instant in microseconds since 1970."""
        return cls.before_each(log.before(at), user_ids, np.full(len(user_ids), at, dtype=np.int64))

    @classmethod
    def before_each(cls, log: Interactions, user_ids: Int64s, asked: Int64s) -> Histories:
        """Each user's history strictly before an instant of their own: `asked`, int64 [users], in microseconds."""
        row = positions(user_ids, log.user_ids)
        known = row >= 0
        known[known] = log.rated_at[known] < asked[row[known]]
        order = np.argsort(row[known], kind="stable")  # stable keeps time order within a user
        return cls(user_ids, row[known][order], log.item_ids[known][order], log.rated_at[known][order], asked)

    def __len__(self) -> int:
        return len(self.user_ids)

    def sizes(self) -> Int64s:
        """Events of each user: int64 [users]."""
        return np.bincount(self.rows, minlength=len(self)).astype(np.int64)

    def last_seen(self) -> Int64s:
        """Each user's latest event in microseconds, the smallest int64 where there is none: int64 [users]."""
        last = np.full(len(self), np.iinfo(np.int64).min, dtype=np.int64)
        np.maximum.at(last, self.rows, self.rated_at)
        return last

    def ranks(self) -> Int64s:
        """How many events of the same user came after each event (0 for the newest): int64 [events]."""
        ends = np.cumsum(self.sizes())
        return (ends[self.rows] - 1 - np.arange(len(self.rows))).astype(np.int64)

    def seen(self, items: Int64s) -> Bools:
        """Which of `items` each user has met: bool [users, items]."""
        column = positions(items, self.item_ids)
        mask = np.zeros((len(self), len(items)), dtype=np.bool_)
        mask[self.rows[column >= 0], column[column >= 0]] = True
        return mask

    def slice(self, start: int, stop: int) -> Histories:
        """The histories of users start to stop (exclusive)."""
        low, high = np.searchsorted(self.rows, [start, stop])
        return Histories(
            self.user_ids[start:stop],
            self.rows[low:high] - start,
            self.item_ids[low:high],
            self.rated_at[low:high],
            self.asked[start:stop],
        )


@dataclass(frozen=True)
class Query:
    """One question to a recommender: how well does each item suit each user, at this instant?

    `histories` names the users. `items` has a row an item that may be recommended (column item_id, int64, then the
    feature columns), in the order in which scores come back; items that no model has met are welcome. `users` has the
    same for users (user_id), in any order; a user without a row is one of whom nothing is known.
    `at` is the instant of asking, with a time zone.
    """

    histories: Histories
    users: pa.Table
    items: pa.Table
    at: datetime

    def item_ids(self) -> Int64s:
        """The items in the order of the scores: int64 [items]."""
        return int64_column(self.items, "item_id", "items")


class Scorer(Protocol):
    """What a model and a baseline have in common."""

    def scores(self, query: Query) -> Float32s:
        """Finite scores, higher is better, comparable within a user only: float32 [users, items]."""
        ...


def one_instant_each(window: Interactions, rng: np.random.Generator) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """One of each user's interactions, drawn: the users and its instant, int64 [users]; and what was met at that
    instant: the user's row and the item, int64 [targets]."""
    order = rng.permutation(len(window))
    users, first = np.unique(window.user_ids[order], return_index=True)
    asked = window.rated_at[order[first]]
    row = positions(users, window.user_ids)
    same = window.rated_at == asked[row]
    return users, asked, row[same], window.item_ids[same]


def microseconds(at: datetime) -> int:
    """Microseconds since 1970 of an instant; one without a time zone is read as UTC."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    whole = aware.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


class Positions:
    """Where values stand among keys that are asked for again and again.

    Args:
        keys: distinct, in any order.
    """

    def __init__(self, keys: Int64s) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def of(self, values: Int64s) -> Int64s:
        """The position of each value, -1 where it has none: int64 [values]."""
        if not len(self._sorted):
            return np.full(len(values), -1, dtype=np.int64)
        slot = np.minimum(np.searchsorted(self._sorted, values), len(self._sorted) - 1)
        return np.where(self._sorted[slot] == values, self._order[slot], -1)


def positions(keys: Int64s, values: Int64s) -> Int64s:
    """Where each value stands in `keys` (distinct, in any order), -1 where it does not: int64 [values]."""
    return Positions(keys).of(values)


def int64_column(table: pa.Table, name: str, where: str) -> Int64s:
    """A whole-number column without nulls; `where` names the table in errors."""
    values = _present(table, name, where)
    if not pa.types.is_integer(values.type):
        raise FeatureColumnError.wrong_type(where, name, "int64", str(values.type))
    return np.asarray(values.cast(pa.int64()).to_numpy(), dtype=np.int64)


def instants(table: pa.Table, where: str, name: str = "rated_at") -> Int64s:
    """A timestamp column without nulls, in microseconds since 1970 in UTC."""
    values = _present(table, name, where)
    if not pa.types.is_timestamp(values.type):
        raise FeatureColumnError.wrong_type(where, name, "timestamp[us, UTC]", str(values.type))
    zone = values.type.tz
    whole = pc.cast(values, pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    return np.asarray(whole.to_numpy(), dtype=np.int64)


def _present(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise FeatureColumnError.missing(where, [name], table.column_names)
    values = table.column(name)
    if values.null_count:
        raise InteractionsError.nulls(name, values.null_count)
    return values
