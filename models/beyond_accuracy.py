"""What else is a list of recommendations, beside accurate? Wide, new, varied, and true to the user's taste."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from models.evaluation import Float64s, NewestInteractions, top_k
from models.interactions import Bools, Float32s, Int64s, positions

#: Share of the user's own taste that is mixed into the list's, so that the divergence stays finite (Steck, 2018).
_SMOOTHING = 0.01


class ListQuality(BaseModel):
    """Means over users of what their lists are like."""

    model_config = ConfigDict(frozen=True)

    coverage: float = Field(description="Share of the catalogue that is on at least one list.")
    novelty_bits: float = Field(description="Mean of -log2 of the share of users who had met an item.")
    diversity: float = Field(description="Mean distance of two items of a list, 1 - Jaccard of their genres.")
    miscalibration: float = Field(
        description="Kullback-Leibler divergence, in nats, of a list's genres from the history's; 0 is calibrated."
    )
    users: int = Field(description="Users with a list; miscalibration is over those with a history.")


def list_quality(
    scores: Float32s, test: NewestInteractions, items: Int64s, genres: Sequence[Sequence[str]], *, k: int = 10
) -> ListQuality:
    """What the k best unseen items of each of the test's users are like.

    Coverage and novelty as in Vargas and Castells (2011, popularity complement as self-information), diversity as the
    complement of intra-list similarity (Ziegler et al., 2005), calibration as in Steck (2018).

    Args:
        scores: float32 [users, items], as given to ``evaluate``.
        test: the users and what had been known of them.
        items: int64 [items], in the order of the scores.
        genres: the labels of each item, in the same order; an item without any is like none.
        k: length of the lists.
    """
    seen = test.histories.seen(items)
    ranked = top_k(scores, seen, k)
    shown = ~np.take_along_axis(seen, ranked, axis=1)
    labels = _labels(genres)
    met_by = np.bincount(_known(items, test), minlength=len(items)) if test.train.num_rows else np.zeros(len(items))
    everybody = len(np.unique(test.train["user_id"].to_numpy())) if test.train.num_rows else 0
    # An item that nobody has met counts as if one more user had.
    surprise = -np.log2((met_by + 1) / (everybody + 1))
    return ListQuality(
        coverage=len(np.unique(ranked[shown])) / len(items),
        novelty_bits=float(_mean(surprise[ranked], shown).mean()),
        diversity=float(np.mean([_diversity(labels[row[mask]]) for row, mask in zip(ranked, shown, strict=True)])),
        miscalibration=_miscalibration(test, items, labels, ranked, shown),
        users=len(ranked),
    )


def _labels(genres: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """Which genre each item has: float64 [items, genres], 0 or 1."""
    names = sorted({name for row in genres for name in row})
    place = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(genres), len(names)))
    for row, found in enumerate(genres):
        labels[row, [place[name] for name in found]] = 1.0
    return labels


def _known(items: Int64s, test: NewestInteractions) -> Int64s:
    """The column of each distinct pair of user and item of the training rows, where it is in the catalogue."""
    pairs = np.unique(
        np.stack([test.train["user_id"].to_numpy(), test.train["item_id"].to_numpy()], axis=1).astype(np.int64), axis=0
    )
    column = positions(items, pairs[:, 1])
    return column[column >= 0]


def _mean(values: Float64s, mask: Bools) -> Float64s:
    """Each row's mean of the values that the mask keeps, 0 where it keeps none."""
    means: Float64s = (values * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return means


def _diversity(labels: npt.NDArray[np.float64]) -> float:
    """Mean of 1 - Jaccard over the pairs of a list; 0 for a list of one."""
    if len(labels) < 2:
        return 0.0
    both = labels @ labels.T
    sizes = labels.sum(axis=1)
    either = sizes[:, None] + sizes[None, :] - both
    similar = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    upper = np.triu_indices(len(labels), k=1)
    return float(1.0 - similar[upper].mean())


def _miscalibration(
    test: NewestInteractions, items: Int64s, labels: npt.NDArray[np.float64], ranked: Int64s, shown: Bools
) -> float:
    """Mean over users with a history of KL(p || (1 - a) q + a p), p the history's genres and q the list's."""
    shares = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1)
    histories = test.histories
    column = positions(items, histories.item_ids)
    taste = np.zeros((len(histories), labels.shape[1]))
    np.add.at(taste, histories.rows[column >= 0], shares[column[column >= 0]])
    offered = np.einsum("uk,ukg->ug", shown.astype(np.float64), shares[ranked])
    some = (taste.sum(axis=1) > 0) & (offered.sum(axis=1) > 0)
    if not some.any():
        return 0.0
    p = taste[some] / taste[some].sum(axis=1, keepdims=True)
    q = offered[some] / offered[some].sum(axis=1, keepdims=True)
    mixed = (1 - _SMOOTHING) * q + _SMOOTHING * p
    terms = np.where(p > 0, p * np.log(np.divide(p, mixed, out=np.ones_like(p), where=p > 0)), 0.0)
    return float(terms.sum(axis=1).mean())
