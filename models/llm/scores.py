"""How good are answers, and is one set of them worse than another? Scores a case, means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

#: Resamples of a bootstrap, its seed, and the share that its intervals cover.
_RESAMPLES, _SEED, _COVERS = 2000, 0, 0.95
#: A mean that is lower by more than this is worse, whatever the interval says: the golden sets are small.
TOLERANCE = 0.05

#: By case: its scores by metric, each from 0 (bad) to 1 (good).
Scores = Mapping[str, Mapping[str, float]]


class Measured(BaseModel):
    """One metric's mean over the cases, with its 95 % bootstrap interval over them."""

    model_config = ConfigDict(frozen=True)

    metric: str
    mean: float
    low: float
    high: float
    cases: int


class Compared(BaseModel):
    """Candidate minus champion in one metric, paired by case, with its 95 % bootstrap interval.

    ``worse``: the interval lies below 0, or the mean is lower by more than ``TOLERANCE``.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    mean: float
    low: float
    high: float
    cases: int

    @property
    def worse(self) -> bool:
        return self.high < 0 or self.mean < -TOLERANCE


class Verdict(BaseModel):
    """What an evaluation comes to.

    ``champion``: it is the accepted configuration itself; ``first``: nothing was accepted before; ``accepted``: in no
    metric worse than the champion; ``refused``: in at least one.
    """

    model_config = ConfigDict(frozen=True)

    outcome: Literal["champion", "first", "accepted", "refused"]
    reason: str
    compared: tuple[Compared, ...] = ()


def measure(scores: Scores) -> list[Measured]:
    """Each metric over all the cases."""
    return [
        Measured(metric=name, cases=len(values), **_interval(values)) for name, values in _by_metric(scores).items()
    ]


def compare(candidate: Scores, champion: Scores) -> Verdict:
    """Whether the candidate is worse than the champion, on the cases and in the metrics that both have."""
    shared = [case for case in candidate if case in champion]
    compared = []
    for metric in _by_metric(candidate):
        pairs = [
            candidate[case][metric] - champion[case][metric]
            for case in shared
            if metric in candidate[case] and metric in champion[case]
        ]
        if pairs:
            compared.append(Compared(metric=metric, cases=len(pairs), **_interval(pairs)))
    worse = [one for one in compared if one.worse]
    if worse:
        said = "; ".join(f"{one.metric} {one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})" for one in worse)
        return Verdict(outcome="refused", reason=f"worse than the champion: {said}", compared=tuple(compared))
    return Verdict(
        outcome="accepted",
        reason=f"not worse than the champion in {len(compared)} metrics on {len(shared)} cases",
        compared=tuple(compared),
    )


def _by_metric(scores: Scores) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for values in scores.values():
        for metric, value in values.items():
            found.setdefault(metric, []).append(value)
    return found


def _interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13)."""
    import numpy as np

    sample = np.asarray(values, dtype=float)
    rng = np.random.default_rng(_SEED)
    means = sample[rng.integers(0, len(sample), (_RESAMPLES, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - _COVERS) / 2, (1 + _COVERS) / 2])
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high)}
