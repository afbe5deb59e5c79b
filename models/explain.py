"""Which items of the history and which features moved a score? Integrated gradients over the ranker's inputs.

The question is the one that a ranking answers: why does this item stand above the average item of the catalogue, for
this user? The margin of an item is its score less that of an item with the catalogue's mean in every input. From there,
and from a user of whom nothing is known, all inputs go to their real values on a straight line, and each input's
contribution is its way times the margin's mean gradient along that line (Sundararajan, Taly and Yan, 2017). At the
start of the line the margin is 0, so the contributions add up to the margin. The signals that come from the history
are split over its items by `Signals.by_history`, which keeps the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models.anchors import USER_STATE, user_state
from models.evaluation import Float64s, top_k
from models.interactions import Histories, Int64s, Query
from models.recommender import Inputs, Recommender

#: Points of the line at which the gradient is taken (Gauss and Legendre's): what the kinks of the ranker leave of the
#: error is below a hundredth of the margin.
POINTS = 32
#: A named history item is compared with another one of the newest so many: older ones hardly weigh anything.
AMONG_NEWEST = 20


@dataclass(frozen=True)
class Explanation:
    """Why some items stand where they do, for one user.

    `items`: int64 [chosen]. `margins`: float64 [chosen], score less that of the average item. `inputs`: float64
    [chosen, inputs], what each input contributes, in the order of `input_names`. `met`: int64 [met], items of the
    history; `history`: float64 [chosen, met], the part of the inputs `item_to_item` and `transitions` that comes from
    each. Over the inputs, contributions add up to the margin; over the met, to those two inputs.
    """

    user_id: int
    items: Int64s
    margins: Float64s
    inputs: Float64s
    met: Int64s
    history: Float64s


def input_names(model: Recommender) -> list[str]:
    """What contributes: the signals, then the users' feature columns and their state, then the items' columns."""
    return list(dict.fromkeys(_sources(model)))


def explain(model: Recommender, query: Query, k: int) -> Iterator[Explanation]:
    """Explain the k best items that each user has not met, in the order of the query's users.

    Raises FeatureColumnError or FeatureValueError on unusable feature columns.
    """
    items = query.item_ids()
    for given in model.inputs(query):
        with torch.inference_mode():
            scores = model.ranker(given.signals, given.user, given.item).numpy()
        seen = given.histories.seen(items)
        best = top_k(scores, seen, k)
        signal_slopes, ways, margins = _along_the_line(model, given, best)
        for row, columns in enumerate(best):
            shown = np.flatnonzero(~seen[row, columns])
            met, alike, after = model.signals.by_history(
                given.histories.slice(row, row + 1), items, model.config.signals()
            )
            names = model.config.signals().names()
            history = np.zeros((len(shown), len(met)))
            for name, part in (("item_to_item", alike), ("transitions", after)):
                way = part[:, columns[shown]] - part.mean(axis=1, keepdims=True)
                history += signal_slopes[row, shown, names.index(name), None] * way.T
            yield Explanation(
                int(given.histories.user_ids[row]),
                items[columns[shown]],
                margins[row, shown],
                _by_name(model, ways[row, shown]),
                met,
                history,
            )


def faithfulness(model: Recommender, query: Query, seed: int = 0) -> tuple[Float64s, Float64s]:
    """What the first recommendation's score loses without the history item that its explanation names first, and
    without another one that is drawn from the newest `AMONG_NEWEST`: two float64 [users with two items or more].

    Both are asked anew of the model, with the history as it is without the item.
    """
    rng = np.random.default_rng(seed)
    rows, firsts, named, others = [], [], [], []
    for row, found in enumerate(explain(model, query, 1)):
        if not len(found.items) or len(found.met) < 2:
            continue
        name = int(found.met[found.history[0].argmax()])
        mine = query.histories.item_ids[query.histories.rows == row]
        newest = [item for item in dict.fromkeys(mine[::-1].tolist()) if item in found.met and item != name]
        rows.append(row)
        firsts.append(int(found.items[0]))
        named.append(name)
        others.append(int(rng.choice(newest[: AMONG_NEWEST - 1])))
    if not rows:
        return np.zeros(0), np.zeros(0)
    column = {int(item): place for place, item in enumerate(query.item_ids())}
    place = np.array([column[item] for item in firsts])

    def scores(left_out: list[int] | None) -> Float64s:
        asked = _without(query.histories, np.array(rows), left_out)
        found = model.scores(Query(asked, query.users, query.items, query.at))
        return np.asarray(found[np.arange(len(rows)), place], dtype=np.float64)

    whole = scores(None)
    return whole - scores(named), whole - scores(others)


def _along_the_line(model: Recommender, given: Inputs, best: Int64s) -> tuple[Float64s, Float64s, Float64s]:
    """For each user and chosen item: the mean gradient by signal, float64 [users, k, signals]; the contribution of
    every number that the ranker reads, float64 [users, k, numbers]; and the margin, float64 [users, k]."""
    users, k = best.shape
    columns = torch.from_numpy(best)
    row = torch.arange(users)[:, None]
    signals = given.signals[row, columns].flatten(0, 1)
    average = given.signals.mean(1).repeat_interleave(k, 0)
    item, average_item = given.item[columns].flatten(0, 1), given.item.mean(0).expand(users * k, -1)
    user = given.user.repeat_interleave(k, 0)
    nobody = _nobody(model).expand(users * k, -1)
    slopes = [torch.zeros_like(part, dtype=torch.float64) for part in (signals, user, item)]
    points, weights = np.polynomial.legendre.leggauss(POINTS)

    def slope(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The gradient of each pair's score: a pair's depends on its own inputs alone, so that of the sum holds all."""
        leaves = [part.detach().requires_grad_() for part in inputs]
        return torch.autograd.grad(model.ranker.pairs(*leaves).sum(), leaves)

    for t, weight in zip((points + 1) / 2, weights / 2, strict=True):
        at_user = torch.lerp(nobody, user, float(t))
        own = slope(torch.lerp(average, signals, float(t)), at_user, torch.lerp(average_item, item, float(t)))
        of_average = slope(average, at_user, average_item)
        # The average item stays where it is: of its score only the user moves.
        for place, moved in enumerate((own[0], own[1] - of_average[1], own[2])):
            slopes[place] += weight * moved.double()
    ways = [signals - average, user - nobody, item - average_item]
    contributions = torch.cat([s * way.double() for s, way in zip(slopes, ways, strict=True)], dim=1)
    with torch.inference_mode():
        margins = model.ranker.pairs(signals, user, item) - model.ranker.pairs(average, user, average_item)
    shape = (users, k, -1)
    return (
        slopes[0].reshape(shape).numpy(),
        contributions.reshape(shape).numpy(),
        margins.double().reshape(users, k).numpy(),
    )


def _nobody(model: Recommender) -> torch.Tensor:
    """What the ranker reads of a user without history and features: float32 [encoded]."""
    none = np.zeros(0, dtype=np.int64)
    nobody = Histories(np.zeros(1, dtype=np.int64), none, none, none, np.zeros(1, dtype=np.int64))
    return torch.from_numpy(np.concatenate([model.user_encoder.unknown(), user_state(nobody)[0]]))


def _sources(model: Recommender) -> list[str]:
    """The name under which each number that the ranker reads is told."""
    signals = model.ranker.inputs["signal"]
    return [*signals, *model.user_encoder.sources(), *USER_STATE, *model.item_encoder.sources()]


def _by_name(model: Recommender, numbers: Float64s) -> Float64s:
    """Contributions of the numbers, added up by name: float64 [chosen, names] from [chosen, numbers]."""
    names = input_names(model)
    out = np.zeros((len(numbers), len(names)))
    for place, name in enumerate(_sources(model)):
        out[:, names.index(name)] += numbers[:, place]
    return out


def _without(histories: Histories, rows: Int64s, left_out: list[int] | None) -> Histories:
    """The histories of some rows, each without one item."""
    place = np.full(len(histories), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    row = place[histories.rows]
    kept = row >= 0
    if left_out is not None:
        kept[kept] = histories.item_ids[kept] != np.array(left_out)[row[kept]]
    return Histories(
        histories.user_ids[rows], row[kept], histories.item_ids[kept], histories.rated_at[kept], histories.asked[rows]
    )
