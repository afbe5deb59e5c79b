"""What did users do next, at earlier instants? The ranker's training queries, made of what was known then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from models.features import Encoder
from models.interactions import (
    DAY_US,
    Float32s,
    Histories,
    Int64s,
    Interactions,
    instants,
    int64_column,
    positions,
)
from models.ranker import Batch
from models.signals import Signals, SignalSettings

#: What the ranker is told of a user beside the features; "new" is the last (see Ranker).
USER_STATE = ["history_items", "days_since_visit", "new"]


def training_batches(
    log: Interactions,
    training_set: pa.Table,
    user_encoder: Encoder,
    item_encoder: Encoder,
    settings: SignalSettings,
    *,
    anchors: int,
    horizon_days: float,
) -> list[Batch]:
    """One batch an anchor, the oldest first; anchors with nothing before or no target after them are left out.

    Anchors stand `horizon_days` apart, the last one that long before the newest interaction. At anchor T, signals and
    histories come from interactions before T. An item's features are those of its last training row before T, a
    user's are those of the first training row from T on: each row's features were known just before it, so neither
    knows anything of the targets. Targets are the items known at T that the user met for the first time within the
    horizon.
    """
    horizon = int(horizon_days * DAY_US)
    end = int(log.rated_at[-1]) + 1
    rows = _TrainingRows.of(training_set)
    batches = []
    for back in range(anchors, 0, -1):
        at = end - back * horizon
        known, window = log.before(at), log.between(at, at + horizon)
        items = known.catalogue()
        window = window.where(positions(items, window.item_ids) >= 0)
        if len(items) < 2 or not len(window):
            continue
        histories = Histories.before(log, np.unique(window.user_ids), at)
        seen = histories.seen(items)
        target = np.zeros_like(seen)
        target[positions(histories.user_ids, window.user_ids), positions(items, window.item_ids)] = True
        target &= ~seen
        some = target.any(axis=1)
        if not some.any():
            continue
        histories = Histories.before(log, histories.user_ids[some], at)
        user = encode_keyed(user_encoder, training_set, rows.first_of_user(histories.user_ids, at, at + horizon))
        item = encode_keyed(item_encoder, training_set, rows.last_of_item(items, at))
        signals = Signals.learn(log, at, settings).of(histories, items, at, settings)
        batches.append(
            Batch(
                _aligned(signals),
                _aligned(np.concatenate([user, user_state(histories, at)], axis=1)),
                _aligned(item),
                torch.from_numpy(target[some]),
                torch.from_numpy(seen[some]),
            )
        )
    return batches


def user_state(histories: Histories, at: int) -> Float32s:
    """What the history alone says of a user, each about 0 to 1: float32 [users, len(USER_STATE)]."""
    sizes = histories.sizes()
    new = sizes == 0
    days = np.where(new, 0.0, (at - np.where(new, at, histories.last_seen())) / DAY_US)
    columns = [np.log1p(sizes) / 5.0, np.log1p(np.maximum(days, 0.0)) / 5.0, new]
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
