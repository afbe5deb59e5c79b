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
from models.interactions import DAY_US, Bools, Float32s, Histories, Int64s, int64_column, microseconds, positions
from models.recommender import Recommender
from models.signals import TRANSITION_HALF_LIFE_ITEMS, TRANSITION_SCALE

#: Weights of history below this share of the newest item's are left out; float32 can't show them.
_LEAST = 2.0**-30

_ONE = np.ones(1, dtype=np.int64)

Float64s = npt.NDArray[np.float64]


class History(NamedTuple):
    """What one user has met before now, oldest first: int64 [events] each; times in microseconds since 1970."""

    item_ids: Int64s
    rated_at: Int64s


class _Instant(NamedTuple):
    """What a second has in common for everybody: signals over the items, and the fading of each day's ratings."""

    signals: Float32s
    fading: Float32s


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
        self._linear, self._gate = weights["linear.weight"][0], weights["gate.weight"]
        self._user_weight, self._user_bias = weights["user_tower.weight"], weights["user_tower.bias"]
        self._bend_in, self._bend_bias = weights["bend.0.weight"].T.copy(), weights["bend.0.bias"]
        self._bend_out = weights["bend.2.weight"][0]
        self._mean, self._spread = weights["mean"], weights["spread"]
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
        self._row_of = {int(item): row for row, item in enumerate(signals.items)}
        self._column_of = {int(item): place for place, item in enumerate(self.item_ids)}
        self._decay = _decay(model.config.history_half_life_items)
        self._transition_decay = _decay(TRANSITION_HALF_LIFE_ITEMS)
        self._second, self._now = -1, _Instant(np.zeros((0, 0), np.float32), np.zeros(0, np.float32))

    def column(self, item_id: int) -> int | None:
        """Where an item stands among the scores; None for one that is not in the catalogue."""
        return self._column_of.get(item_id)

    def trained_on(self, item_id: int) -> bool:
        """Whether the model met the item in training."""
        return item_id in self._row_of

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
        signals[:, 0] = self._from_history(history, self._decay, self._weights)
        signals[:, -3] = self._since(int(history.rated_at[-1]) if len(history.rated_at) else None, instant)
        signals[:, -1] = np.log1p(
            TRANSITION_SCALE * self._from_history(history, self._transition_decay, self._transitions)
        )
        if self.model.sequence is not None:
            one = Histories(_ONE, np.zeros(len(history.item_ids), np.int64), *history, np.array([now]))
            signals = np.column_stack([signals, self.model.sequence.scores(one, self.item_ids)[0]])
        encoder = self.model.user_encoder
        features = encoder.unknown() if user is None else encoder.encode_values(user)
        row = np.concatenate([features, _state(history, now)])
        scaled = (signals - self._mean) / self._spread
        scores = scaled @ (self._linear + self._gate @ row) + self._item_tower @ (
            self._user_weight @ row + self._user_bias
        )
        if len(history.item_ids):
            scores += np.maximum(scaled @ self._bend_in + self._bend_bias, 0.0) @ self._bend_out
        return np.asarray(scores, dtype=np.float32)

    def seen(self, history: History) -> Bools:
        """Which items the history holds: bool [items]."""
        mask = np.zeros(len(self.item_ids), dtype=np.bool_)
        places = [self._column_of[item] for item in history.item_ids.tolist() if item in self._column_of]
        mask[places] = True
        return mask

    def similar(self, item_id: int) -> Float32s | None:
        """The item-to-item weight of one item on each: float32 [items]; None where the model never met the item."""
        row = self._row_of.get(item_id)
        return None if row is None else self._weights[row].copy()

    def _from_history(self, history: History, decay: Float64s, weights: Float32s) -> Float32s:
        """The weights of the newest items of the history on each item, added up: float32 [items]."""
        newest = history.item_ids[::-1][: len(decay)].tolist()
        # Of an item met twice the newest event counts, as the profile of `Signals` has it.
        weight: dict[int, float] = {}
        for rank, item in enumerate(newest):
            row = self._row_of.get(item)
            if row is not None:
                weight.setdefault(row, float(decay[rank]))
        if not weight:
            return np.zeros(len(self.item_ids), dtype=np.float32)
        rows = np.fromiter(weight, dtype=np.int64, count=len(weight))
        values = np.fromiter(weight.values(), dtype=np.float32, count=len(weight))
        return np.asarray(values @ weights[rows], dtype=np.float32)

    def _since(self, last_seen: int | None, instant: _Instant) -> Float32s:
        """log of 1 + faded ratings of the days that began after the user's last visit."""
        starts = self.model.signals.day_starts
        first = 0 if last_seen is None else int(np.searchsorted(starts, last_seen, side="right"))
        if first == len(starts):
            return np.zeros(len(self.item_ids), dtype=np.float32)
        return np.asarray(np.log1p(instant.fading[first:] @ self._counts[first:]), dtype=np.float32)

    def _at(self, now: int) -> _Instant:
        second = now // 1_000_000
        if second != self._second:
            self._now, self._second = self._instant(second * 1_000_000), second
        return self._now

    def _instant(self, at: int) -> _Instant:
        half_lives = self.model.config.popularity_half_lives_days
        age = np.maximum((at - self.model.signals.day_starts) / DAY_US - 0.5, 0.0)
        signals = np.zeros((len(self.item_ids), len(half_lives) + 5), dtype=np.float32)
        for place, half_life in enumerate(half_lives, start=1):
            signals[:, place] = np.log1p((0.5 ** (age / half_life)).astype(np.float32) @ self._counts)
        signals[:, -4] = np.log1p(self._counts.sum(axis=0))
        days = np.maximum(at - self._first_met[self._known], 0) / DAY_US
        signals[self._known, -2] = np.log1p(days)
        return _Instant(signals, (0.5 ** (age / half_lives[-1])).astype(np.float32))


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


def _decay(half_life_items: float) -> Float64s:
    """The weight of a history's newest item, of the one before it, and so on: float64 [items that matter]."""
    return np.asarray(0.5 ** (np.arange(math.ceil(-math.log2(_LEAST) * half_life_items)) / half_life_items))


def _array(tensor: object) -> Float32s:
    return np.ascontiguousarray(np.asarray(tensor.numpy(), dtype=np.float32))  # type: ignore[attr-defined]
