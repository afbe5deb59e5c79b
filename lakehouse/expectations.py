"""What should hold for a table as a whole? Bounds on Deequ's metrics, in Deequ's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Names of Deequ's analyzers.
MetricName = Literal[
    "Size",
    "Completeness",
    "Compliance",
    "Uniqueness",
    "Distinctness",
    "ApproxCountDistinct",
    "ApproxQuantile",
    "Minimum",
    "Maximum",
    "Mean",
    "Sum",
    "StandardDeviation",
    "Correlation",
    "Entropy",
    "MinLength",
    "MaxLength",
]


@dataclass(frozen=True)
class Expectation:
    """One metric of a table version, and where it must lie.

    Attributes:
        metric: Deequ's analyzer.
        columns: the analyzer's columns, in its order; none for Size.
        ge: smallest value that passes.
        le: largest value that passes.
        quantile: of ApproxQuantile, between 0 and 1.
        condition: of Compliance, a Spark SQL condition; the metric is the share of rows that keep it.
        history: judged against the metric's own past instead of bounds: Deequ's anomaly detection.
    """

    metric: MetricName
    columns: tuple[str, ...] = ()
    ge: float | None = None
    le: float | None = None
    quantile: float | None = None
    condition: str | None = None
    history: OnlineNormal | RateOfChange | None = None


@dataclass(frozen=True)
class OnlineNormal:
    """Deequ's OnlineNormalStrategy: no further than so many standard deviations from the running mean.

    Attributes:
        below: standard deviations under the mean that are still accepted.
        above: standard deviations over the mean that are still accepted.
        at_least: versions of history below which nothing is judged.
    """

    below: float = 3.0
    above: float = 3.0
    at_least: int = 8


@dataclass(frozen=True)
class RateOfChange:
    """Deequ's RelativeRateOfChangeStrategy: the ratio to the version before lies in bounds.

    Attributes:
        ge: smallest ratio that passes, such as 0.9.
        le: largest ratio that passes, such as 2.
    """

    ge: float | None = None
    le: float | None = None
