"""What did users do next, at earlier instants? The ranker's training queries, made of what was known then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from models.features import Encoder
from models.interactions import (
    DAY_US,
    Bools,
    Float32s,
    Histories,
    Int64s,
    Interactions,
    instants,
    int64_column,
    one_instant_each,
    positions,
)
from models.ranker import Batch
from models.sequence import SequenceModel
from models.signals import Signals, SignalSettings

#: What the ranker is told of a user beside the features; "new" is the last (see Ranker).
USER_STATE = ["history_items", "days_since_visit", "visiting", "new"]
#: A user whose newest event is no older than this is in the midst of a visit.
VISIT_US = 3_600_000_000


def training_batches(
    log: Interactions,
    training_set: pa.Table,
    user_encoder: Encoder,
    item_encoder: Encoder,
    settings: SignalSettings,
    *,
    anchors: int,
    horizon_days: float,
    next_items: int,
    rng: np.random.Generator,
    sequence: SequenceModel | None,
) -> list[Batch]:
    """A batch of calendar questions an anchor, and `next_items` batches of next-item questions, the oldest first.

    Anchors stand `horizon_days` apart, the last one that long before the newest interaction; those with nothing before
    or no target after them are left out. Statistics come from interactions before anchor T alone. An item's features
    are those of its last training row before T, a user's are those of the first training row from T on: each row's
    features were known just before it, so neither knows anything of the targets.

    Calendar: the history is that before T, and targets are the items known at T that the user met for the first time
    within the horizon. Next item: the question is put at the instant of one of the user's interactions within the
    horizon, drawn by `rng`, with the history before that instant; targets are the new items met at it.
    """
    horizon = int(horizon_days * DAY_US)
    rows = _TrainingRows.of(training_set)
    batches = []
    for at in range(first_anchor(log, anchors, horizon_days), int(log.rated_at[-1]) + 1, horizon):
        known, window = log.before(at), log.between(at, at + horizon)
        items = known.catalogue()
        window = window.where(positions(items, window.item_ids) >= 0)
        if len(items) < 2 or not len(window):
            continue
        learned = Signals.learn(log, at, settings)
        if sequence is not None:
            sequence.grow(log, at)
        item = _aligned(encode_keyed(item_encoder, training_set, rows.last_of_item(items, at)))
        questions = [_calendar(log, window, at), *(_next_item(log, window, rng) for _ in range(next_items))]
        for question in questions:
            asked = question.with_targets(log, items)
            if asked is None:
                continue
            histories, target, seen = asked
            user = encode_keyed(user_encoder, training_set, rows.first_of_user(histories.user_ids, at, at + horizon))
            signals = all_signals(learned, sequence, histories, items, at, settings)
            user = np.concatenate([user, user_state(histories)], axis=1)
            batches.append(
                Batch(_aligned(signals), _aligned(user), item, torch.from_numpy(target), torch.from_numpy(seen))
            )
    return batches


def first_anchor(log: Interactions, anchors: int, horizon_days: float) -> int:
    """The oldest anchor, in microseconds."""
    return int(log.rated_at[-1]) + 1 - anchors * int(horizon_days * DAY_US)


def all_signals(
    learned: Signals,
    sequence: SequenceModel | None,
    histories: Histories,
    items: Int64s,
    at: int,
    settings: SignalSettings,
) -> Float32s:
    """What the ranker weighs: float32 [users, items, signals], the transformer's last where there is one."""
    signals = learned.of(histories, items, at, settings)
    if sequence is None:
        return signals
    return np.concatenate([signals, sequence.scores(histories, items)[:, :, None]], axis=2)


class _Question(NamedTuple):
    """Whose history, and what each then met: int64 [targets], the row in `histories` and the item."""

    histories: Histories
    row: Int64s
    items: Int64s

    def with_targets(self, log: Interactions, items: Int64s) -> tuple[Histories, Bools, Bools] | None:
        """Those users who met something new; their targets and what they had met, bool [users, items]."""
        seen = self.histories.seen(items)
        target = np.zeros_like(seen)
        target[self.row, positions(items, self.items)] = True
        target &= ~seen
        some = target.any(axis=1)
        if not some.any():
            return None
        users, asked = self.histories.user_ids[some], self.histories.asked[some]
        return Histories.before_each(log, users, asked), target[some], seen[some]


def _calendar(log: Interactions, window: Interactions, at: int) -> _Question:
    histories = Histories.before(log, np.unique(window.user_ids), at)
    return _Question(histories, positions(histories.user_ids, window.user_ids), window.item_ids)


def _next_item(log: Interactions, window: Interactions, rng: np.random.Generator) -> _Question:
    users, asked, row, items = one_instant_each(window, rng)
    return _Question(Histories.before_each(log, users, asked), row, items)


def user_state(histories: Histories) -> Float32s:
    """What the history alone says of a user, each about 0 to 1: float32 [users, len(USER_STATE)]."""
    sizes = histories.sizes()
    new = sizes == 0
    days = np.where(new, 0.0, (histories.asked - np.where(new, histories.asked, histories.last_seen())) / DAY_US)
    visiting = ~new & (days * DAY_US <= VISIT_US)
    columns = [np.log1p(sizes) / 5.0, np.log1p(np.maximum(days, 0.0)) / 5.0, visiting, new]
    return np.stack(columns, axis=1).astype(np.float32)


def encode_keyed(encoder: Encoder, table: pa.Table, row: Int64s) -> Float32s:
    """The encoding of the given rows, of an unknown one where the row is -1: float32 [rows, encoded]."""
    encoded = np.tile(encoder.unknown(), (len(row), 1))
    encoded[row >= 0] = encoder.encode(table.take(pa.array(row[row >= 0])))
    return encoded


@dataclass(frozen=True)
class _TrainingRows:
    """The training set's keys and times, and the rows in time order."""

    user_ids: Int64s
    item_ids: Int64s
    times: Int64s
    order: Int64s

    @classmethod
    def of(cls, table: pa.Table) -> _TrainingRows:
        user_ids, item_ids = (int64_column(table, name, "training") for name in ("user_id", "item_id"))
        times = instants(table, "training")
        return cls(user_ids, item_ids, times, np.lexsort((item_ids, user_ids, times)).astype(np.int64))

    def first_of_user(self, wanted: Int64s, start: int, end: int) -> Int64s:
        """Each user's first row with start <= time < end, -1 where there is none: int64 [wanted]."""
        within = self._within(start, end)[::-1]
        return self._last(within, self.user_ids, wanted)

    def last_of_item(self, wanted: Int64s, end: int) -> Int64s:
        """Each item's last row with time < end, -1 where there is none: int64 [wanted]."""
        return self._last(self._within(np.iinfo(np.int64).min, end), self.item_ids, wanted)

    def _within(self, start: int, end: int) -> Int64s:
        return self.order[slice(*np.searchsorted(self.times[self.order], [start, end]))]

    def _last(self, rows: Int64s, keys: Int64s, wanted: Int64s) -> Int64s:
        place = positions(wanted, keys[rows])
        found = np.full(len(wanted), -1, dtype=np.int64)
        found[place[place >= 0]] = rows[place >= 0]  # of several assignments to one place, the last one stays
        return found


def _aligned(values: Float32s) -> torch.Tensor:
    """A copy in torch's own memory: the last bit of a sum depends on alignment, which numpy does not promise."""
    return torch.from_numpy(values).clone()
