"""What would people pick instead: popularity, item-kNN, EASE and sequential rules, under the model's own interface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.errors import InteractionsError
from models.interactions import DAY_US, Float32s, Int64s, Interactions, Query, positions
from models.signals import TRANSITION_HALF_LIFE_ITEMS, TRANSITION_STEPS, SignalSettings, ease, transitions


@dataclass(frozen=True)
class Popularity:
    """Everybody gets what most people rated; items never rated get 0.

    `items`: int64 [catalogue]; `ratings`: float32 [catalogue], ratings counted.
    """

    items: Int64s
    ratings: Float32s

    @classmethod
    def fit(cls, interactions: pa.Table, *, last_days: float | None = None) -> Popularity:
        """Count ratings, of the `last_days` before the newest one where given (recent popularity)."""
        log = _read(interactions)
        items = log.catalogue()
        counted = log if last_days is None else log.between(log.rated_at[-1] - int(last_days * DAY_US), _END)
        counts = np.bincount(positions(items, counted.item_ids), minlength=len(items))
        return cls(items, counts.astype(np.float32))

    def scores(self, query: Query) -> Float32s:
        """float32 [users, items], the same row for every user."""
        row = _aligned(self.ratings[None, :], self.items, query.item_ids())
        return np.repeat(row, len(query.histories), axis=0)


@dataclass(frozen=True)
class ItemKnn:
    """Items rated by the same people as what the user met of late; a user without history gets recent popularity.

    `items`: int64 [catalogue]; `similarity`: float32 [catalogue, catalogue], 0 beyond the nearest `neighbours`.
    """

    items: Int64s
    similarity: Float32s
    history_half_life_items: float
    popularity: Popularity

    @classmethod
    def fit(
        cls,
        interactions: pa.Table,
        *,
        neighbours: int = 200,
        shrinkage: float = 10.0,
        rating_half_life_days: float = 20.0,
        history_half_life_items: float = 5.0,
        popular_days: float = 7.0,
    ) -> ItemKnn:
        """Shrunk cosine between items' raters, ratings decayed by age; the defaults are tuned on earlier windows.

        similarity(i, j) = x_i . x_j / (|x_i| |x_j| + shrinkage), x weighted by age; the diagonal is 0.
        `history_half_life_items`: events of the user after which a history item counts half.
        """
        log = _read(interactions)
        items = log.catalogue()
        users, row = np.unique(log.user_ids, return_inverse=True)
        age_days = (log.rated_at[-1] - log.rated_at) / DAY_US
        x = np.zeros((len(users), len(items)), dtype=np.float32)
        x[row, positions(items, log.item_ids)] = np.sqrt(0.5 ** (age_days / rating_half_life_days))
        dot = x.T @ x
        norm = np.sqrt(np.diag(dot))
        similarity = dot / (norm[:, None] * norm[None, :] + shrinkage + 1e-9)
        np.fill_diagonal(similarity, 0.0)
        if neighbours < len(items):
            floor = np.partition(similarity, -neighbours, axis=0)[-neighbours]
            similarity[similarity < floor] = 0.0
        recent = Popularity.fit(interactions, last_days=popular_days)
        return cls(items, similarity.astype(np.float32), history_half_life_items, recent)

    def scores(self, query: Query) -> Float32s:
        """float32 [users, items]; items never rated get 0."""
        return _by_history(query, self.items, self.similarity, self.history_half_life_items, self.popularity)


@dataclass(frozen=True)
class Ease:
    """A linear autoencoder over the items (EASE), older ratings counting less; without history, recent popularity.

    `items`: int64 [catalogue]; `weights`: float32 [catalogue, catalogue], of the row's item on the column's.
    """

    items: Int64s
    weights: Float32s
    history_half_life_items: float
    popularity: Popularity

    @classmethod
    def fit(
        cls,
        interactions: pa.Table,
        *,
        ridge: float = 500.0,
        rating_half_life_days: float = 20.0,
        history_half_life_items: float = 5.0,
        popular_days: float = 7.0,
    ) -> Ease:
        """Solve for the weights; the defaults are those that the recommender's own signal was tuned to."""
        log = _read(interactions)
        items = log.catalogue()
        settings = SignalSettings(ridge, rating_half_life_days, history_half_life_items, (popular_days,))
        weights = ease(log, positions(items, log.item_ids), len(items), int(log.rated_at[-1]) + 1, settings)
        return cls(items, weights, history_half_life_items, Popularity.fit(interactions, last_days=popular_days))

    def scores(self, query: Query) -> Float32s:
        """float32 [users, items]; items never rated get 0."""
        return _by_history(query, self.items, self.weights, self.history_half_life_items, self.popularity)


@dataclass(frozen=True)
class SequentialRules:
    """What came soon after what the user met of late, for others; a user without history gets recent popularity.

    `items`: int64 [catalogue]; `weights`: float32 [catalogue, catalogue], of the row's item on the column's.
    """

    items: Int64s
    weights: Float32s
    history_half_life_items: float
    popularity: Popularity

    @classmethod
    def fit(
        cls,
        interactions: pa.Table,
        *,
        steps: int = TRANSITION_STEPS,
        rating_half_life_days: float = 20.0,
        history_half_life_items: float = TRANSITION_HALF_LIFE_ITEMS,
        popular_days: float = 7.0,
    ) -> SequentialRules:
        """Weighted sequential rules, see models.signals.transitions."""
        log = _read(interactions)
        items = log.catalogue()
        column = positions(items, log.item_ids)
        weights = transitions(log, column, len(items), int(log.rated_at[-1]), rating_half_life_days, steps)
        return cls(items, weights, history_half_life_items, Popularity.fit(interactions, last_days=popular_days))

    def scores(self, query: Query) -> Float32s:
        """float32 [users, items]; items never rated get 0."""
        return _by_history(query, self.items, self.weights, self.history_half_life_items, self.popularity)


def _by_history(
    query: Query, items: Int64s, weights: Float32s, half_life_items: float, otherwise: Popularity
) -> Float32s:
    """Each user's history, the newest items weighing most, times item-to-item weights; `otherwise` for new users."""
    histories = query.histories
    column = positions(items, histories.item_ids)
    met = column >= 0
    profile = np.zeros((len(histories), len(items)), dtype=np.float32)
    weight = 0.5 ** (histories.ranks() / half_life_items)
    profile[histories.rows[met], column[met]] = weight[met]
    scores = _aligned(profile @ weights, items, query.item_ids())
    unknown = ~profile.any(axis=1)
    scores[unknown] = otherwise.scores(query)[unknown]
    return scores


_END = np.iinfo(np.int64).max


def _read(interactions: pa.Table) -> Interactions:
    log = Interactions.of(interactions)
    if not len(log):
        raise InteractionsError.empty("to learn from")
    return log


def _aligned(scores: Float32s, items: Int64s, wanted: Int64s) -> Float32s:
    """Columns in the order of `wanted`, 0 for items not in `items`."""
    column = positions(items, wanted)
    return np.where(column >= 0, scores[:, column], np.float32(0)).astype(np.float32)
