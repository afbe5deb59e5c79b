"""Is the ranking as good for one group of users as for another? NDCG by group, and how far apart they may lie.

Fairlearn knows no ranking metric, so each user's NDCG goes into its MetricFrame as the prediction and the metric is
the mean. The measure of an attribute is the ratio of its worst group to its best one (Fairlearn's between-groups
ratio; 1 is parity). Its interval comes from users resampled within their groups (percentile bootstrap; B. Efron,
Annals of Statistics 7(1), 1979): Fairlearn's own resampling calls the metric for each group and resample, some
seconds an attribute, and may draw a sample without anybody of a small group.

The ratio of the worst to the best of several groups lies below 1 by chance alone, the more so the smaller the groups.
So an attribute is unfair only if its whole interval lies below the limit. At 95 users in the groups of MovieLens,
with no difference between groups, that happened in 1 of 200 simulated nights (tests/models/test_fairness.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Float64s = npt.NDArray[np.float64]

#: Groups with fewer users are shown and not judged: their mean says little about anybody.
MIN_USERS = 10
#: Smallest share of the best group's NDCG that the worst may have: the four-fifths rule of US employment guidance
#: (29 CFR 1607.4 D), for want of one made for recommenders.
LIMIT = 0.8

#: What users are called whose group is not known; they differ in more than the attribute.
UNKNOWN = "unknown"

_RESAMPLES = 1000


class GroupScore(BaseModel):
    """The mean of a per-user metric in one group.

    Attributes:
        attribute: what the groups differ in, such as gender.
        group: the group's name.
        users: its users in the test.
        value: mean over these users.
        judged: whether it has users enough to be compared.
    """

    model_config = ConfigDict(frozen=True)

    attribute: str
    group: str
    users: int
    value: float
    judged: bool


class Disparity(BaseModel):
    """How far apart the groups of one attribute lie.

    Attributes:
        attribute: what the groups differ in.
        worst, best: the groups with the lowest and the highest mean.
        ratio: worst over best, 1 where there are fewer than two groups to compare.
        low, high: 95 % bootstrap interval of the ratio of these two groups' means.
        limit: the smallest ratio that is accepted.
        fair: the interval reaches the limit.
    """

    model_config = ConfigDict(frozen=True)

    attribute: str
    worst: str
    best: str
    ratio: float
    low: float
    high: float
    limit: float
    fair: bool


def by_group(
    per_user: Float64s, attributes: Mapping[str, Sequence[str | None]], *, seed: int = 0
) -> tuple[list[GroupScore], list[Disparity]]:
    """Compare the groups of each attribute.

    Args:
        per_user: a metric from 0 to 1 of each user: float64 [users].
        attributes: for each attribute the group of every user, in the order of ``per_user``; None where it is not
            known, which is shown as a group of its own and not judged.
        seed: of the resampling.

    Returns:
        A row a group, in the order of their names, and a row an attribute.
    """
    from fairlearn.metrics import MetricFrame

    scores: list[GroupScore] = []
    disparities: list[Disparity] = []
    for attribute, known in attributes.items():
        groups = np.array([UNKNOWN if group is None else group for group in known], dtype=object)
        frame = MetricFrame(
            metrics={"mean": _mean_prediction, "users": _count},
            y_true=np.zeros(len(per_user)),
            y_pred=per_user,
            sensitive_features=groups,
        )
        found = [
            GroupScore(
                attribute=attribute,
                group=str(group),
                users=int(row["users"]),
                value=float(row["mean"]),
                judged=int(row["users"]) >= MIN_USERS and group != UNKNOWN,
            )
            for group, row in frame.by_group.iterrows()
        ]
        scores += found
        disparities.append(_disparity(attribute, found, per_user, groups, seed))
    return scores, disparities


def _mean_prediction(_: Float64s, predicted: Float64s) -> float:
    return float(np.mean(predicted))


def _count(_: Float64s, predicted: Float64s) -> int:
    return len(predicted)


def _disparity(
    attribute: str, scores: Sequence[GroupScore], per_user: Float64s, groups: npt.NDArray[np.object_], seed: int
) -> Disparity:
    judged = sorted((score for score in scores if score.judged), key=lambda score: (score.value, score.group))
    if len(judged) < 2 or judged[-1].value == 0:
        name = judged[-1].group if judged else ""
        return Disparity(
            attribute=attribute, worst=name, best=name, ratio=1.0, low=1.0, high=1.0, limit=LIMIT, fair=True
        )
    worst, best = judged[0], judged[-1]
    rng = np.random.default_rng(seed)
    means = []
    for score in (worst, best):
        members = per_user[groups == score.group]
        means.append(members[rng.integers(0, len(members), size=(_RESAMPLES, len(members)))].mean(axis=1))
    # A resample in which the best group finds nothing says nothing of the ratio.
    kept = means[1] > 0
    low, high = np.quantile(means[0][kept] / means[1][kept], [0.025, 0.975])
    return Disparity(
        attribute=attribute,
        worst=worst.group,
        best=best.group,
        ratio=worst.value / best.value,
        low=float(low),
        high=float(high),
        limit=LIMIT,
        fair=bool(high >= LIMIT),
    )


def band(value: float | None, bounds: Sequence[float]) -> str | None:
    """The band of a number: ``<25``, ``25-39``, ``40+`` for the bounds 25 and 40; None for none."""
    if value is None:
        return None
    if value < bounds[0]:
        return f"<{bounds[0]:g}"
    for low, high in pairwise(bounds):
        if value < high:
            return f"{low:g}-{high - 1:g}"
    return f"{bounds[-1]:g}+"
