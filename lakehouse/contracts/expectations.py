"""What should hold for a table as a whole? Bounds on Deequ's metrics, in Deequ's own words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lakehouse.errors import ContractError, suggestion

if TYPE_CHECKING:
    from lakehouse.contracts.contract import ColumnType

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
        columns: the analyzer's columns, in its order; none for Size and Compliance.
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

    @property
    def measured(self) -> str:
        """The metric and what it is taken of, such as ``Mean(rating)`` or ``ApproxQuantile(rating, 0.5)``."""
        parts = [*self.columns, *([] if self.quantile is None else [str(self.quantile)])]
        return f"{self.metric}({', '.join(parts) if self.condition is None else self.condition})"

    @property
    def name(self) -> str:
        """What reports call it, such as ``Mean(rating) ge 2.5 le 4.5``."""
        if self.history is not None:
            return f"{self.measured} {self.history}"
        return f"{self.measured}{_bounds(self.ge, self.le)}"


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
    # Deequ counts the judged value into its own deviation: with fewer than 10 before it none can lie 3 outside.
    at_least: int = 12

    def __str__(self) -> str:
        return f"within -{self.below} and +{self.above} standard deviations of its past"


@dataclass(frozen=True)
class RateOfChange:
    """Deequ's RelativeRateOfChangeStrategy: the ratio to the version before lies in bounds.

    Attributes:
        ge: smallest ratio that passes, such as 0.9.
        le: largest ratio that passes, such as 2.
    """

    ge: float | None = None
    le: float | None = None

    def __str__(self) -> str:
        return f"to the version before{_bounds(self.ge, self.le)}"


_NUMBERS = ("int", "float", "decimal")
_SCALARS = (*_NUMBERS, "bool", "str", "date", "datetime")
#: Of each metric: the fewest and most columns it takes, and their kinds.
_TAKES: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "Size": (0, 0, ()),
    "Compliance": (0, 0, ()),
    "Completeness": (1, 1, _SCALARS),
    "Uniqueness": (1, 8, _SCALARS),
    "Distinctness": (1, 8, _SCALARS),
    "ApproxCountDistinct": (1, 1, _SCALARS),
    "Entropy": (1, 1, _SCALARS),
    "ApproxQuantile": (1, 1, _NUMBERS),
    "Minimum": (1, 1, _NUMBERS),
    "Maximum": (1, 1, _NUMBERS),
    "Mean": (1, 1, _NUMBERS),
    "Sum": (1, 1, _NUMBERS),
    "StandardDeviation": (1, 1, _NUMBERS),
    "Correlation": (2, 2, _NUMBERS),
    "MinLength": (1, 1, ("str",)),
    "MaxLength": (1, 1, ("str",)),
}
#: Least and greatest value that a metric can have.
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("Completeness", "Compliance", "Uniqueness", "Distinctness"), (0.0, 1.0)),
    **dict.fromkeys(
        ("Size", "ApproxCountDistinct", "Entropy", "StandardDeviation", "MinLength", "MaxLength"), (0.0, math.inf)
    ),
    "Correlation": (-1.0, 1.0),
}


def check_expectation(table: str, expectation: Expectation, types: Mapping[str, ColumnType]) -> None:
    """ContractError for an expectation that can't be measured, or that nothing or everything would pass.

    Args:
        table: for the message.
        expectation: what was declared.
        types: the table's columns.
    """
    if expectation.metric not in get_args(MetricName):
        raise ContractError(
            f"Table {table!r} expects {expectation.metric!r}, which is no metric of Deequ's.",
            fix=suggestion(expectation.metric, get_args(MetricName), what="Metrics"),
        )
    where = f"The expectation {expectation.measured} of table {table!r}"
    _check_columns(where, expectation, types)
    _check_parameters(where, expectation)
    if isinstance(expectation.history, OnlineNormal):
        history = expectation.history
        if history.below <= 0 or history.above <= 0 or history.at_least < 2:
            raise ContractError(
                f"{where} can't be judged by {history}.",
                fix="Give deviations above 0, and at_least=2 or more versions.",
            )
    elif expectation.history is not None:
        _check_bounds(where, expectation.history.ge, expectation.history.le, 0.0, math.inf)
    if expectation.history is None:
        _check_bounds(where, expectation.ge, expectation.le, *_RANGES.get(expectation.metric, (-math.inf, math.inf)))
    elif expectation.ge is not None or expectation.le is not None:
        raise ContractError(f"{where} has bounds and a history.", fix="Make them two expectations.")


def _check_columns(where: str, expectation: Expectation, types: Mapping[str, ColumnType]) -> None:
    fewest, most, kinds = _TAKES[expectation.metric]
    if not fewest <= len(expectation.columns) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise ContractError(
            f"{where} names {len(expectation.columns)} column(s).", fix=f"{expectation.metric} takes {wanted}."
        )
    for name in expectation.columns:
        if name not in types:
            raise ContractError(f"{where} names no column of it.", fix=suggestion(name, list(types), what="Columns"))
        if types[name].kind not in kinds:
            raise ContractError(
                f"{where} can't be measured: {name} is a {types[name]}.",
                fix=f"{expectation.metric} takes columns of type {', '.join(kinds)}.",
            )


def _check_parameters(where: str, expectation: Expectation) -> None:
    quantile, condition = expectation.quantile, expectation.condition
    if (expectation.metric == "ApproxQuantile") != (quantile is not None) or (
        quantile is not None and not 0 <= quantile <= 1
    ):
        raise ContractError(
            f"{where} has quantile={quantile}.", fix="ApproxQuantile takes one, from 0 to 1; others none."
        )
    if (expectation.metric == "Compliance") != (condition is not None) or (
        condition is not None and not condition.strip()
    ):
        raise ContractError(f"{where} has condition={condition!r}.", fix="Compliance takes one; others none.")


def _check_bounds(where: str, ge: float | None, le: float | None, least: float, greatest: float) -> None:
    if ge is None and le is None:
        raise ContractError(f"{where} has no bound.", fix="Give ge, le or both, or a history.")
    for bound in (ge, le):
        if bound is not None and not math.isfinite(bound):
            raise ContractError(f"{where} has the bound {bound}.", fix="Bounds are finite; leave one out that is not.")
    if (ge if ge is not None else least) > (le if le is not None else greatest):
        raise ContractError(
            f"{where} can never be met{_bounds(ge, le)}.", fix=f"The metric lies between {least} and {greatest}."
        )
    if (ge is not None and ge > greatest) or (le is not None and le < least):
        raise ContractError(
            f"{where} can never be met{_bounds(ge, le)}.", fix=f"The metric lies between {least} and {greatest}."
        )


def _bounds(ge: float | None, le: float | None) -> str:
    given = (("ge", ge), ("le", le))
    return "".join(f" {word} {value}" for word, value in given if value is not None)
