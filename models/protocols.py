"""By which rules is a recommender judged? Replayed time (the main one), one split by time, and leave-last-out.

The protocols answer different questions and rank contenders differently. Replay asks what the nightly job asks: how
well does a model made of all that was known serve everybody in the days after? Leave-last-out knows, for each user's
last item, what others did later; it is here because published figures use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from models.errors import EvaluationError
from models.evaluation import NewestInteractions
from models.interactions import (
    Histories,
    Interactions,
    instants,
    int64_column,
    microseconds,
    one_instant_each,
    positions,
)


def rolling_replay(interactions: pa.Table, *, windows: int, days: int) -> Iterator[NewestInteractions]:
    """Train on all before a day, test on the days after, roll on: the oldest window first, the last ends with the data.

    Windows in which nobody met a new item are left out.

    Args:
        interactions: user_id, item_id int64, rated_at timestamp[us, UTC]; other columns travel along.
        windows: how many.
        days: of each window; windows begin at midnight UTC and follow one another.
    """
    newest = _instant(int(instants(interactions, "interactions").max())) if interactions.num_rows else None
    if newest is None:
        raise EvaluationError("There is no interaction to replay.", fix="Ingest ratings first.")
    end = datetime(newest.year, newest.month, newest.day, tzinfo=UTC) + timedelta(days=1)
    oldest = _instant(int(instants(interactions, "interactions").min()))
    for back in range(windows, 0, -1):
        cutoff = end - timedelta(days=back * days)
        if cutoff <= oldest:
            continue
        try:
            yield NewestInteractions.split(interactions, cutoff, cutoff + timedelta(days=days))
        except EvaluationError:
            continue


def next_items(interactions: pa.Table, *, windows: int, days: int, seed: int = 0) -> Iterator[NewestInteractions]:
    """The same windows and the same models, but each user is asked for in the midst of the window: what next, now?

    One question a user and window, at the instant of one of their interactions, drawn with ``seed``. The history is
    what the user had met until then, events of the same visit included; the model is that of the window's first day.
    Targets are the items that the user met at that instant for the first time.
    """
    for number, test in enumerate(rolling_replay(interactions, windows=windows, days=days)):
        asked = next_item(interactions, test, test.cutoff + timedelta(days=days), seed=seed + number)
        if asked is not None:
            yield asked


def next_item(
    interactions: pa.Table, test: NewestInteractions, until: datetime, *, seed: int = 0
) -> NewestInteractions | None:
    """One window of `next_items`: the users of ``test``, asked between its cutoff and ``until``; None where nobody met
    anything new at the instant that was drawn for them."""
    log = Interactions.of(interactions)
    window = log.between(microseconds(test.cutoff), microseconds(until))
    users, asked, row, items = one_instant_each(window, np.random.default_rng(seed))
    histories = Histories.before_each(log, users, asked)
    catalogue = np.unique(items)
    fresh = ~histories.seen(catalogue)[row, np.searchsorted(catalogue, items)]
    if not fresh.any():
        return None
    kept = np.unique(row[fresh])
    histories = Histories.before_each(log, users[kept], asked[kept])
    return NewestInteractions(test.train, histories, positions(kept, row[fresh]), items[fresh], test.cutoff)


def time_split(interactions: pa.Table, *, train_share: float = 0.8) -> NewestInteractions:
    """One global split by time: the first ``train_share`` of the interactions train, all that follows tests.

    Interactions of the very instant of the split belong to the test. Raises EvaluationError where nothing is left to
    train on or to test.
    """
    times = np.sort(instants(interactions, "interactions"))
    if len(times) < 2 or not 0 < train_share < 1:
        raise EvaluationError(
            f"{len(times)} interaction(s) can't be split at {train_share}.",
            fix="Give more rows, and a share in (0, 1).",
        )
    cutoff = times[int(len(times) * train_share)]
    if cutoff == times[0]:
        raise EvaluationError(
            "All interactions before the split have one time, so that nothing is left to train on.",
            fix="Judge by leave_last_out, or give interactions with times.",
        )
    return NewestInteractions.split(interactions, _instant(int(cutoff)), _instant(int(times[-1]) + 1))


def leave_last_out(interactions: pa.Table) -> NewestInteractions:
    """Each user's last interaction is the target, all others train; users with one interaction only train.

    Each user is asked at the instant of their last item, by a model made of everybody's other interactions, as
    published evaluations do. Of interactions with the
    same time the one with the largest item id is the last. A last item that its user had met before is no target.

    Raises:
        EvaluationError: no user has two interactions with different items.
    """
    users, items = (int64_column(interactions, name, "interactions") for name in ("user_id", "item_id"))
    times = instants(interactions, "interactions")
    order = np.lexsort((items, times, users))
    ends = np.flatnonzero(np.append(users[order][1:] != users[order][:-1], True)) if len(order) else order
    sizes = np.diff(np.append(-1, ends))
    last = order[ends[sizes > 1]]
    kept = np.ones(len(users), dtype=np.bool_)
    kept[last] = False
    train = interactions.filter(pa.array(kept))
    at = _instant(int(times.max()) + 1) if len(times) else datetime(1970, 1, 1, tzinfo=UTC)
    log = Interactions.of(train)
    target_users, target_items = users[last], items[last]
    asked = times[last] + 1  # what else came at the very instant of the last item is history
    everybody = Histories.before_each(log, target_users, asked)
    catalogue = np.unique(target_items)
    fresh = ~everybody.seen(catalogue)[np.arange(len(last)), np.searchsorted(catalogue, target_items)]
    if not fresh.any():
        raise EvaluationError(
            "No user has a last interaction with an item that is new to them.", fix="Give interactions of more items."
        )
    histories = Histories.before_each(log, target_users[fresh], asked[fresh])
    return NewestInteractions(train, histories, np.arange(int(fresh.sum())), target_items[fresh], at)


def _instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
