"""What has a user met up to this moment? The published ratings, and what came in since, in one place in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from models.interactions import Int64s, Interactions
from models.live import History

EMPTY = History(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


class Histories:
    """Histories by user: a base from the lake, and events on top of it. Reading takes no lock.

    An item that a user met twice is there once, at its newest time, as in the table of ratings.
    """

    def __init__(self, ratings: pa.Table) -> None:
        self._fresh: dict[int, dict[int, int]] = {}
        self._stars: dict[int, dict[int, float]] = {}
        self._lock = threading.Lock()
        self.rebase(ratings)

    def rebase(self, ratings: pa.Table) -> None:
        """Take a newer version of the table (user_id, item_id, rated_at) as the base; what came since stays on top."""
        log = Interactions.of(ratings)
        order = np.argsort(log.user_ids, kind="stable")
        users, starts = np.unique(log.user_ids[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        places = {int(u): (int(s), int(e)) for u, s, e in zip(users, starts, ends, strict=True)}
        items, times = log.item_ids[order], log.rated_at[order]
        self._base = (places, items, times)
        with self._lock:
            for user, events in list(self._fresh.items()):  # what has landed need not be kept twice
                start, end = places.get(user, (0, 0))
                landed = dict(zip(items[start:end].tolist(), times[start:end].tolist(), strict=True))
                left = {item: at for item, at in events.items() if landed.get(item, -1) < at}
                if left:
                    self._fresh[user] = left
                else:
                    del self._fresh[user]
                    self._stars.pop(user, None)
        self.newest = int(log.rated_at[-1]) if len(log) else 0

    def add(self, user_id: int, item_id: int, at: int, stars: float) -> None:
        """A rating at ``at`` (microseconds since 1970); an older one of the same item gives way."""
        with self._lock:
            self._stars.setdefault(user_id, {})[item_id] = stars
            events = dict(self._fresh.get(user_id, {}))
            if events.get(item_id, -1) <= at:
                events[item_id] = at
            self._fresh[user_id] = events  # replaced as a whole: a reader sees the old one or the new one

    def fresh_stars(self, user_id: int) -> dict[int, float]:
        """The stars given since the base, by item."""
        return dict(self._stars.get(user_id, {}))

    def users(self, limit: int) -> list[int]:
        """Some users with a history, those of the lake in the order of their numbers."""
        return sorted(self._base[0])[:limit]

    def of(self, user_id: int | None, before: int, session: Sequence[tuple[int, int]] = ()) -> History:
        """What the user, and this session's (item, microseconds) events, met before an instant, oldest first."""
        places, items, times = self._base
        start, end = places.get(user_id, (0, 0)) if user_id is not None else (0, 0)
        known, when = items[start:end], times[start:end]
        fresh = self._fresh.get(user_id) if user_id is not None else None
        if not fresh and not session:
            if len(when) and when[-1] >= before:
                known, when = known[when < before], when[when < before]
            return History(known, when)
        newest: dict[int, int] = dict(zip(known.tolist(), when.tolist(), strict=True))
        for item, at in (*(fresh or {}).items(), *session):
            if newest.get(item, -1) <= at:
                newest[item] = at
        pairs = sorted((at, item) for item, at in newest.items() if at < before)
        return History(_int64s([item for _, item in pairs]), _int64s([at for at, _ in pairs]))


def _int64s(values: Sequence[int]) -> Int64s:
    return np.array(values, dtype=np.int64)
