"""How is one user scored in a fraction of a millisecond? By the same sums as `Recommender.scores`, with all that does
not depend on the user worked out before.

What depends on the items alone (their features' tower, where each stands in the item-to-item weights) is computed when
the scorer is made. What depends on the instant (recent popularity) is computed once a second. A request then costs the
weights of the user's own history and one pass over the catalogue. A test compares the two to a few float32 roundings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.anchors import USER_STATE, VISIT_US
from models.interactions import (
    DAY_US,
    Bools,
    Float32s,
    Histories,
    Int64s,
    Positions,
    int64_column,
    microseconds,
    positions,
)
from models.recommender import Recommender
from models.signals import LEAST_WEIGHT, TRANSITION_HALF_LIFE_ITEMS, TRANSITION_SCALE

_ONE = np.ones(1, dtype=np.int64)

Float64s = npt.NDArray[np.float64]


class History(NamedTuple):
    """What one user has met before now, oldest first: int64 [events] each; times in microseconds since 1970."""

    item_ids: Int64s
    rated_at: Int64s


class _Instant(NamedTuple):
    """What a second has in common for everybody.

    Attributes:
        signals: float32 [signals, items], zero where they depend on the user.
        fading: float32 [days], how much of each day's ratings counts.
        since: by day, the signal of what has been rated from then on: float32 [items], worked out when it is asked for.
    """

    signals: Float32s
    fading: Float32s
    since: dict[int, Float32s]


class LiveScorer:
    """A recommender over one catalogue, ready to be asked about one user at a time.

    Args:
        model: the recommender.
        items: item_id (int64) and the item features that the model reads, a row an item that may be recommended.

    Raises:
        FeatureColumnError, FeatureValueError: unusable feature columns.
    """

    def __init__(self, model: Recommender, items: pa.Table) -> None:
        import torch

        self.model = model
        self.item_ids = int64_column(items, "item_id", "items")
        signals, ranker = model.signals, model.ranker
        encoded = torch.from_numpy(model.item_encoder.encode(items)).clone()
        with torch.inference_mode():
            self._item_tower = _array(ranker.item_tower(encoded))
        weights = {name: _array(value) for name, value in ranker.state_dict().items()}
        # Signals are scaled, (signal - mean) / spread, in the weights that they meet, and not one by one.
        mean, spread = weights["mean"], weights["spread"]
        self._mean = mean
        self._linear, self._gate = weights["linear.weight"][0] / spread, weights["gate.weight"] / spread[:, None]
        self._user_weight, self._user_bias = weights["user_tower.weight"], weights["user_tower.bias"]
        self._bend_in = np.ascontiguousarray(weights["bend.0.weight"] / spread)
        self._bend_bias = (weights["bend.0.bias"] - self._bend_in @ mean)[:, None]
        self._bend_out = weights["bend.2.weight"][0]
        column = positions(signals.items, self.item_ids)
        self._known = column >= 0
        # Row: met; column: an item of the catalogue, 0 where the model never met it.
        self._weights = np.zeros((len(signals.items), len(self.item_ids)), dtype=np.float32)
        self._weights[:, self._known] = signals.item_to_item[:, column[self._known]]
        self._transitions = np.zeros_like(self._weights)
        self._transitions[:, self._known] = signals.transitions[:, column[self._known]]
        self._counts = np.zeros((len(signals.day_starts), len(self.item_ids)), dtype=np.float32)
        self._counts[:, self._known] = signals.day_counts[:, column[self._known]]
        self._first_met = np.zeros(len(self.item_ids), dtype=np.int64)
        self._first_met[self._known] = signals.first_met[column[self._known]]
        self._rows, self._columns = Positions(signals.items), Positions(self.item_ids)
        self._decay = _decay(model.config.history_half_life_items)
        self._transition_decay = _decay(TRANSITION_HALF_LIFE_ITEMS)
        self._second, self._now = -1, _Instant(np.zeros((0, 0), np.float32), np.zeros(0, np.float32), {})

    def column(self, item_id: int) -> int | None:
        """Where an item stands among the scores; None for one that is not in the catalogue."""
        return _position(self._columns, item_id)

    def trained_on(self, item_id: int) -> bool:
        """Whether the model met the item in training."""
        return _position(self._rows, item_id) is not None

    def scores(self, history: History, user: Mapping[str, object] | None, at: datetime) -> Float32s:
        """How well each item suits the user: float32 [items], as `Recommender.scores` gives them.

        Args:
            history: what the user has met before ``at``.
            user: the user features that the model reads, by column; None for a user of whom nothing is known.
            at: the instant of asking; popularity is taken as at its whole second.
        """
        now = microseconds(at)
        instant = self._at(now)
        signals = instant.signals.copy()
        rows, ranks = self._newest(history)
        signals[0] = _faded(self._weights, rows, ranks, self._decay)
        signals[-3] = self._since(int(history.rated_at[-1]) if len(history.rated_at) else None, instant)
        transitions = _faded(self._transitions, rows, ranks, self._transition_decay)
        signals[-1] = np.log1p(TRANSITION_SCALE * transitions)
        if self.model.sequence is not None:
            one = Histories(_ONE, np.zeros(len(history.item_ids), np.int64), *history, np.array([now]))
            signals = np.vstack([signals, self.model.sequence.scores(one, self.item_ids)])
        encoder = self.model.user_encoder
        features = encoder.unknown() if user is None else encoder.encode_values(user)
        row = np.concatenate([features, _state(history, now)])
        linear = self._linear + self._gate @ row
        scores = linear @ signals - linear @ self._mean
        scores += self._item_tower @ (self._user_weight @ row + self._user_bias)
        if len(history.item_ids):
            bent = self._bend_in @ signals
            bent += self._bend_bias
            scores += self._bend_out @ np.maximum(bent, 0.0, out=bent)
        return np.asarray(scores, dtype=np.float32)

    def seen(self, history: History) -> Bools:
        """Which items the history holds: bool [items]."""
        mask = np.zeros(len(self.item_ids), dtype=np.bool_)
        places = self._columns.of(history.item_ids)
        mask[places[places >= 0]] = True
        return mask

    def similar(self, item_id: int) -> Float32s | None:
        """The item-to-item weight of one item on each: float32 [items]; None where the model never met the item."""
        row = _position(self._rows, item_id)
        return None if row is None else self._weights[row].copy()

    def _newest(self, history: History) -> tuple[Int64s, Int64s]:
        """The history's newest items that the model met, newest first: their rows, and how many events are newer."""
        most = max(len(self._decay), len(self._transition_decay))
        rows = self._rows.of(history.item_ids[: -most - 1 : -1])
        # Of an item met twice the newest event counts, as in `Signals`.
        ranks = np.sort(np.unique(rows, return_index=True)[1])
        ranks = ranks[rows[ranks] >= 0]
        return rows[ranks], ranks

    def _since(self, last_seen: int | None, instant: _Instant) -> Float32s:
        """log of 1 + faded ratings of the days that began after the user's last visit."""
        starts = self.model.signals.day_starts
        first = 0 if last_seen is None else int(np.searchsorted(starts, last_seen, side="right"))
        known = instant.since.get(first)
        if known is None:
            known = np.log1p(instant.fading[first:] @ self._counts[first:])
            instant.since[first] = known
        return known

    def _at(self, now: int) -> _Instant:
        second = now // 1_000_000
        if second != self._second:
            self._now, self._second = self._instant(second * 1_000_000), second
        return self._now

    def _instant(self, at: int) -> _Instant:
        half_lives = self.model.config.popularity_half_lives_days
        age = np.maximum((at - self.model.signals.day_starts) / DAY_US - 0.5, 0.0)
        signals = np.zeros((len(half_lives) + 5, len(self.item_ids)), dtype=np.float32)
        for place, half_life in enumerate(half_lives, start=1):
            signals[place] = np.log1p((0.5 ** (age / half_life)).astype(np.float32) @ self._counts)
        signals[-4] = np.log1p(self._counts.sum(axis=0))
        days = np.maximum(at - self._first_met[self._known], 0) / DAY_US
        signals[-2, self._known] = np.log1p(days)
        return _Instant(signals, (0.5 ** (age / half_lives[-1])).astype(np.float32), {})


def _position(among: Positions, item_id: int) -> int | None:
    found = int(among.of(np.array([item_id]))[0])
    return found if found >= 0 else None


def instant_of(at: int) -> datetime:
    """The instant of microseconds since 1970, in UTC."""
    return datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000)


def _state(history: History, now: int) -> Float32s:
    """As models.anchors.user_state, for one user."""
    count = len(history.item_ids)
    passed = now - int(history.rated_at[-1]) if count else 0
    visiting = count > 0 and passed <= VISIT_US
    state = [math.log1p(count) / 5.0, math.log1p(max(passed / DAY_US, 0.0)) / 5.0, float(visiting), float(count == 0)]
    assert len(state) == len(USER_STATE)
    return np.array(state, dtype=np.float32)


def _faded(weights: Float32s, rows: Int64s, ranks: Int64s, decay: Float64s) -> Float32s:
    """The rows of the weights, each by the decay of its rank, added up: float32 [items]; ranks grow."""
    count = int(np.searchsorted(ranks, len(decay)))
    return np.asarray(decay[ranks[:count]].astype(np.float32) @ weights[rows[:count]], dtype=np.float32)


def _decay(half_life_items: float) -> Float64s:
    """The weight of a history's newest item, of the one before it, and so on: float64 [items that matter]."""
    return np.asarray(0.5 ** (np.arange(math.ceil(-math.log2(LEAST_WEIGHT) * half_life_items)) / half_life_items))


def _array(tensor: object) -> Float32s:
    return np.ascontiguousarray(np.asarray(tensor.numpy(), dtype=np.float32))  # type: ignore[attr-defined]
