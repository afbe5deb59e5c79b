"""Is a metric what its own past lets one expect? Deequ's anomaly detection on the metrics of published versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lakehouse.contracts.expectations import OnlineNormal, RateOfChange

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def anomalies(
    spark: SparkSession, strategy: OnlineNormal | RateOfChange, values: Sequence[float], *, first: int
) -> dict[int, str]:
    """Which of the values, from place ``first`` on, don't fit those before them, and what Deequ says of each.

    No value is judged by later ones; OnlineNormal counts it into the deviation that it is judged by. One that has too
    little past (``at_least`` of OnlineNormal, one value of RateOfChange) is not judged.
    """
    jvm: Any = spark._jvm
    some = jvm.scala.Option.apply
    start = max(first, strategy.at_least if isinstance(strategy, OnlineNormal) else 1)
    if start >= len(values):
        return {}
    kinds = jvm.com.amazon.deequ.anomalydetection
    java = (
        # No share of the series is passed over at its start: at_least says how much past is enough.
        kinds.OnlineNormalStrategy(some(float(strategy.below)), some(float(strategy.above)), 0.0, True)
        if isinstance(strategy, OnlineNormal)
        else kinds.RelativeRateOfChangeStrategy(some(_double(strategy.ge)), some(_double(strategy.le)), 1)
    )
    series = jvm.PythonUtils.toSeq([float(value) for value in values]).toVector()
    found = java.detect(series, jvm.scala.Tuple2(start, len(values)))
    return {
        int(found.apply(n)._1()): str(found.apply(n)._2().detail().getOrElse(None) or "it is an anomaly")
        for n in range(found.size())
    }


def _double(value: float | None) -> float | None:
    return None if value is None else float(value)
