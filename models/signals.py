"""What do bare interactions say about a user and an item at an instant? Item-to-item, popularity, novelty.

Two statistics are kept of the interactions and every signal follows from them: a matrix of item-to-item weights
(EASE, closed form) and a table of ratings a day and item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.interactions import DAY_US, Float32s, Histories, Int64s, Interactions, positions

#: Events of one user up to so many apart make a transition, and the newest item of a history weighs twice the one
#: before it.
TRANSITION_STEPS = 10
TRANSITION_HALF_LIFE_ITEMS = 1.0
#: Most weights of transitions lie far below 1, where a logarithm of 1 + weight would hardly bend.
TRANSITION_SCALE = 10.0
#: A weight of history below this share of the newest item's does not show beside it in float32, of 24 bits.
LEAST_WEIGHT = 2.0**-24

#: Days of ratings kept a day each; all older ones share one row.
DAYS_KEPT = 120


@dataclass(frozen=True)
class SignalSettings:
    """Half-lives and weights of the statistics; see RecommenderConfig, which documents and holds them."""

    ridge: float
    rating_half_life_days: float
    history_half_life_items: float
    popularity_half_lives_days: tuple[float, ...]

    def names(self) -> list[str]:
        """The signals, in the order of the last axis of `Signals.of`."""
        recent = [f"popularity_{days:g}d" for days in self.popularity_half_lives_days]
        return ["item_to_item", *recent, "popularity", "since_last_visit", "age_days", "transitions"]


@dataclass(frozen=True)
class Signals:
    """The statistics of all interactions before an instant.

    `items`: int64 [catalogue]. `item_to_item`: float32 [catalogue, catalogue], row = met, column = scored.
    `day_starts`: int64 [days], microseconds, ascending, the first standing for all that is older.
    `day_counts`: float32 [days, catalogue], ratings. `first_met`: int64 [catalogue], microseconds.
    `transitions`: float32 [catalogue, catalogue], how often the column's item came soon after the row's.
    """

    items: Int64s
    item_to_item: Float32s
    day_starts: Int64s
    day_counts: Float32s
    first_met: Int64s
    transitions: Float32s

    @classmethod
    def learn(cls, log: Interactions, at: int, settings: SignalSettings) -> Signals:
        """The statistics of `log`'s interactions before `at`, in microseconds.

        A user counts once an item, by the newest of their interactions with it: however many there are of one user,
        they add at most 1 to any count or pair.
        """
        before = log.before(at)
        known = before.newest_of_each()
        items = known.catalogue()
        column = positions(items, known.item_ids)
        weights = ease(known, column, len(items), at, settings)
        newest = known.rated_at[-1] // DAY_US
        day = np.maximum(known.rated_at // DAY_US - (newest - DAYS_KEPT), 0)
        counts = torch.zeros(DAYS_KEPT + 1, len(items)).numpy()  # aligned, see _product
        np.add.at(counts, (day, column), 1)
        first = np.full(len(items), np.iinfo(np.int64).max, dtype=np.int64)
        np.minimum.at(first, positions(items, before.item_ids), before.rated_at)
        after = transitions(known, column, len(items), at, settings.rating_half_life_days)
        starts = (newest - DAYS_KEPT + np.arange(DAYS_KEPT + 1)) * DAY_US
        return cls(items, weights, starts, counts, first, after)

    def of(self, histories: Histories, items: Int64s, at: int, settings: SignalSettings) -> Float32s:
        """Every signal of every user and item: float32 [users, items, signals], finite.

        item_to_item: EASE score of the history, the newest items weighing most. popularity_*: log of 1 + ratings,
        decayed by age. since_last_visit: log of 1 + recent ratings since the user's last visit: what the user cannot
        have met before. age_days: log of 1 + days since the item's first rating. transitions: log of 1 + 10 times what
        came soon after the newest items of the history for others. An item that nobody has met has 0 in all: no
        popularity, and brand new.
        """
        column = positions(self.items, items)
        known = column >= 0
        out = np.zeros((len(histories), len(items), len(settings.names())), dtype=np.float32)
        spread = out[:, known]
        column = column[known]
        profile = self._profile(histories, settings.history_half_life_items)
        spread[:, :, 0] = _product(profile, self.item_to_item)[:, column]
        age = np.maximum((at - self.day_starts) / DAY_US - 0.5, 0.0)  # of the middle of the day
        for place, half_life in enumerate(settings.popularity_half_lives_days, start=1):
            recent = (0.5 ** (age / half_life)).astype(np.float32) @ self.day_counts
            spread[:, :, place] = np.log1p(recent)[column]
        spread[:, :, -4] = np.log1p(self.day_counts.sum(axis=0))[column]
        after = self.day_starts[None, :] > histories.last_seen()[:, None]
        fading = 0.5 ** (age / settings.popularity_half_lives_days[-1])
        spread[:, :, -3] = np.log1p(_product((after * fading).astype(np.float32), self.day_counts))[:, column]
        spread[:, :, -2] = np.log1p(np.maximum(at - self.first_met, 0) / DAY_US)[column]
        newest = self._profile(histories, TRANSITION_HALF_LIFE_ITEMS)
        spread[:, :, -1] = np.log1p(TRANSITION_SCALE * _product(newest, self.transitions)[:, column])
        out[:, known] = spread
        return out

    def by_history(
        self, histories: Histories, items: Int64s, settings: SignalSettings
    ) -> tuple[Int64s, Float32s, Float32s]:
        """What each item of one user's history adds to `item_to_item` and to `transitions`.

        The items met that weigh anything, int64 [met]; and for each signal float32 [met, items], which add up to the
        signal over the met. The first is a sum; of the second's log(1 + x) each summand has its share of x, which is
        the share that integrated gradients from an empty history give it.
        """
        column = positions(self.items, items)
        known = column >= 0
        profile = self._profile(histories, settings.history_half_life_items)[0]
        newest = self._profile(histories, TRANSITION_HALF_LIFE_ITEMS)[0]
        met = np.flatnonzero(profile + newest > LEAST_WEIGHT)
        alike, after = (np.zeros((len(met), len(items)), dtype=np.float32) for _ in range(2))
        alike[:, known] = profile[met, None] * self.item_to_item[met][:, column[known]]
        after[:, known] = TRANSITION_SCALE * newest[met, None] * self.transitions[met][:, column[known]]
        whole = after.sum(axis=0)
        after *= np.log1p(whole) / np.where(whole > 0, whole, 1)
        return self.items[met], alike, after

    def _profile(self, histories: Histories, half_life_items: float) -> Float32s:
        """Each user's history as weights over the catalogue: float32 [users, catalogue]."""
        column = positions(self.items, histories.item_ids)
        met = column >= 0
        weight = 0.5 ** (histories.ranks() / half_life_items)
        profile = np.zeros((len(histories), len(self.items)), dtype=np.float32)
        profile[histories.rows[met], column[met]] = weight[met]
        return profile


def ease(known: Interactions, column: Int64s, items: int, at: int, settings: SignalSettings) -> Float32s:
    """Item-to-item weights by EASE (Steck, 2019), older ratings counting less: float32 [items, items].

    With X the users' ratings weighted by age, G = X'X + ridge and P the inverse of G, the weight of item i on j is
    -P[i, j] / P[j, j], and 0 on itself.
    """
    age_days = (at - known.rated_at) / DAY_US
    decay = 0.5 ** (age_days / settings.rating_half_life_days)
    users, row = np.unique(known.user_ids, return_inverse=True)
    x = torch.zeros(len(users), items)
    x[torch.from_numpy(row), torch.from_numpy(column)] = torch.from_numpy(np.sqrt(decay).astype(np.float32))
    gram = x.T @ x + settings.ridge * torch.eye(items)
    precision = torch.linalg.inv(gram)
    weights = -precision / torch.diag(precision)
    # The inverse comes column by column; stored models come row by row, and the layout shows in the last bit of a sum.
    return np.asarray(weights.fill_diagonal_(0.0).contiguous().numpy(), dtype=np.float32)


def transitions(
    known: Interactions, column: Int64s, items: int, at: int, half_life_days: float, steps: int = TRANSITION_STEPS
) -> Float32s:
    """Weights of sequential rules (Ludewig and Jannach, 2018): each pair of a user's items up to `steps` events apart
    adds 1 / distance to the weight of the earlier on the later, decayed by the later one's age: float32 [items, items].
    """
    by_user = np.argsort(known.user_ids, kind="stable")  # stable keeps time order within a user
    users, of = known.user_ids[by_user], column[by_user]
    decay = 0.5 ** ((at - known.rated_at[by_user]) / DAY_US / half_life_days)
    weights = torch.zeros(items, items).numpy()
    for distance in range(1, min(steps, len(known) - 1) + 1):
        same = users[distance:] == users[:-distance]
        pairs = (of[:-distance][same], of[distance:][same])
        np.add.at(weights, pairs, (decay[distance:][same] / distance).astype(np.float32))
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights, dtype=np.float32)


def _product(left: Float32s, right: Float32s) -> Float32s:
    """The matrix product by torch, which keeps to the number of threads that training sets; numpy's does not.

    Torch's memory is aligned, numpy's is not always, and the last bit of a sum depends on that: hence the copy of the
    small side. The large side, a statistic, is torch's own memory.
    """
    return np.asarray((torch.from_numpy(left).clone() @ torch.from_numpy(right)).numpy(), dtype=np.float32)
