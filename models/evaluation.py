"""How good is a ranking: NDCG, Recall and MRR at k over the whole catalogue, with intervals over users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from models.errors import EvaluationError
from models.interactions import (
    Bools,
    Float32s,
    Histories,
    Int64s,
    Interactions,
    Query,
    instants,
    microseconds,
    positions,
)

Float64s = npt.NDArray[np.float64]


class Evaluation(BaseModel):
    """One metric of one scorer: its mean over users and the 95 % bootstrap interval of that mean."""

    model_config = ConfigDict(frozen=True)

    metric: str
    value: float
    low: float
    high: float
    users: int


@dataclass(frozen=True)
class NewestInteractions:
    """The test on the newest interactions: what was known before a cutoff, and what each user met from then on.

    `train`: interactions before the cutoff. `histories`: of every user with a target, new users included.
    `target_rows`, `target_items`: int64 [targets]; the row in `histories` and the item. An item that the user had met
    before the cutoff is no target, since the ranking leaves it out.
    """

    train: pa.Table
    histories: Histories
    target_rows: Int64s
    target_items: Int64s
    cutoff: datetime

    @classmethod
    def split(cls, interactions: pa.Table, cutoff: datetime, until: datetime) -> NewestInteractions:
        """Train before `cutoff`, targets from `cutoff` to before `until`. Raises EvaluationError without targets."""
        log = Interactions.of(interactions)
        window = log.between(microseconds(cutoff), microseconds(until))
        user_ids = np.unique(window.user_ids)
        histories = Histories.of(log, user_ids, cutoff)
        row, items = positions(user_ids, window.user_ids), window.catalogue()
        column = positions(items, window.item_ids)
        fresh = ~histories.seen(items)[row, column]
        if not fresh.any():
            raise EvaluationError(
                f"No user met a new item from {cutoff:%Y-%m-%d} to {until:%Y-%m-%d}.",
                fix="Choose a window that has interactions.",
            )
        with_target = np.unique(row[fresh])
        pairs = np.unique(np.stack([positions(with_target, row[fresh]), window.item_ids[fresh]], axis=1), axis=0)
        train = interactions.filter(pa.array(instants(interactions, "interactions") < microseconds(cutoff)))
        return cls(train, Histories.of(log, user_ids[with_target], cutoff), pairs[:, 0], pairs[:, 1], cutoff)

    def query(self, users: pa.Table, items: pa.Table) -> Query:
        """The question put to every scorer: features of users and items as known at the cutoff."""
        return Query(self.histories, users, items, self.cutoff)

    def relevant(self, items: Int64s) -> Bools:
        """Which of `items` are targets: bool [users, items]."""
        column = positions(items, self.target_items)
        mask = np.zeros((len(self.histories), len(items)), dtype=np.bool_)
        mask[self.target_rows[column >= 0], column[column >= 0]] = True
        return mask

    def target_counts(self) -> Int64s:
        """How many targets each user has, those outside any catalogue included: int64 [users]."""
        return np.bincount(self.target_rows, minlength=len(self.histories)).astype(np.int64)


def evaluate(
    scores: Float32s, test: NewestInteractions, items: Int64s, *, k: int = 10, resamples: int = 1000, seed: int = 0
) -> list[Evaluation]:
    """NDCG, Recall and MRR at k of scores float32 [users, items] for the test's users and items (int64 [items]).

    Items a user had met before the cutoff are left out. A target that is not among `items` counts as missed: leaving
    it out would flatter a scorer that knows fewer items. Users are resampled with `seed` for the intervals.
    """
    relevant, seen = test.relevant(items), test.histories.seen(items)
    ndcg, recall = ndcg_and_recall(scores, relevant, seen, target_counts=test.target_counts(), k=k)
    per_user = {f"NDCG@{k}": ndcg, f"Recall@{k}": recall, f"MRR@{k}": reciprocal_rank(scores, relevant, seen, k=k)}
    return [interval(values, metric=name, resamples=resamples, seed=seed) for name, values in per_user.items()]


def ndcg(scores: Float32s, test: NewestInteractions, items: Int64s, *, k: int = 10) -> Float64s:
    """NDCG@k of each of the test's users, scored over `items`, as `evaluate` takes it: float64 [users]."""
    relevant, seen, counts = test.relevant(items), test.histories.seen(items), test.target_counts()
    return ndcg_and_recall(scores, relevant, seen, target_counts=counts, k=k)[0]


def ndcg_and_recall(
    scores: Float32s, relevant: Bools, seen: Bools, *, target_counts: Int64s | None = None, k: int = 10
) -> tuple[Float64s, Float64s]:
    """Per-user NDCG@k and Recall@k: two float64 [users], from three matrices [users, items].

    NDCG (Järvelin and Kekäläinen, 2002) with binary gains: sum of 1 / log2(rank + 1) over targets in the top k, over
    the same sum when the first min(k, targets) ranks are all targets. Recall: targets in the top k over targets.
    Equal scores rank in the order of the items. `target_counts`: targets a user has in all, where some are not among
    the items. Raises EvaluationError on other shapes, scores that are not finite, or a user without a target.
    """
    if not (scores.shape == relevant.shape == seen.shape):
        raise EvaluationError(
            f"Scores have shape {scores.shape}, targets {relevant.shape}, seen items {seen.shape}.",
            fix="Score the users and items of the test, in its order.",
        )
    if not np.isfinite(scores).all():
        raise EvaluationError(
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite.",
            fix="A scorer must give every user and item a number.",
        )
    counts = relevant.sum(axis=1) if target_counts is None else target_counts
    if (counts == 0).any():
        raise EvaluationError(
            f"{int((counts == 0).sum())} of {len(counts)} users have no target.", fix="Leave those users out."
        )
    ranked = top_k(scores, seen, k)
    hits = np.take_along_axis(relevant & ~seen, ranked, axis=1)
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gains)[np.minimum(counts, k) - 1]
    return (hits * gains[: hits.shape[1]]).sum(axis=1) / ideal, hits.sum(axis=1) / counts


def reciprocal_rank(scores: Float32s, relevant: Bools, seen: Bools, *, k: int = 10) -> Float64s:
    """Per user 1 / rank of the first target in the top k, 0 without one (Voorhees, 1999): float64 [users]."""
    ranked = top_k(scores, seen, k)
    hits = np.take_along_axis(relevant & ~seen, ranked, axis=1)
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def top_k(scores: Float32s, seen: Bools, k: int) -> Int64s:
    """Columns of the k best unseen items, best first, ties in column order: int64 [users, min(k, items)].

    Where fewer than k are unseen, seen ones fill the end; callers drop them by the mask.
    """
    masked = np.where(seen, -np.inf, scores)
    return np.argsort(-masked, axis=1, kind="stable")[:, :k].astype(np.int64)


def interval(values: Float64s | Sequence[float], *, metric: str, resamples: int = 1000, seed: int = 0) -> Evaluation:
    """The mean of per-user values with its 95 % percentile bootstrap interval (Efron, 1979), users resampled."""
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(0, len(sample), size=(resamples, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Evaluation(metric=metric, value=float(sample.mean()), low=float(low), high=float(high), users=len(sample))
