"""Has a feature's distribution moved? Two tables compared column by column: how far, and whether by chance.

A feature has drifted if it moved *far enough to matter* and *further than chance explains*, in enough rows:

- Far enough: the population stability index is above 0.2. PSI = sum over bins of (c - r) * ln(c / r), where r and c
  are the shares of reference and current values in a bin (N. Siddiqi, Credit Risk Scorecards, Wiley 2006, chapter
  "Scorecard implementation"; it is Jeffreys' divergence of the binned distributions). The bins are fixed by the
  reference: deciles for numbers, the nine most frequent values and "all others" for strings, booleans and numbers of
  at most ten different values; nulls have a bin of their own. Half a count is added to each bin that either side
  uses, so that an empty one does not make the index infinite. The Jensen-Shannon distance of the same bins stands
  beside it (base 2, 0 to 1; D. Endres and J. Schindelin, IEEE Trans. Inf. Theory 49(7), 2003): bounded, so it can be
  compared between features.
- Not by chance: for numbers the two-sample Kolmogorov-Smirnov test, joined with a chi-square test on the share of
  nulls (twice the smaller p-value, Bonferroni); for all else a chi-square test on the bins. The p-values of one
  comparison are adjusted together so that the expected share of false alarms among the alarms is at most 1 % (Y.
  Benjamini and Y. Hochberg, J. R. Stat. Soc. B 57(1), 1995).
- Enough rows: at least 300 on both sides.

Neither half is enough alone. With n and m values of one distribution in B bins the index behaves like (1/n + 1/m)
times a chi-square variable with B - 1 degrees of freedom (B. Yurdakul and J. Naranjo, Journal of Risk Model
Validation 14(4), 2020), so small tables pass any fixed bound by chance; and in large tables a test finds shifts that
matter to nobody. The tests take rows as independent. Ratings of one user are not, which makes their p-values too
small: the index is what holds there.

Simulated with a fixed seed at 300 rows a side (tests/features/test_drift.py): no false alarm in 1,200 comparisons of
two samples of one distribution (a normal, a count and a string column), and at least 198 alarms in 200 where a normal
column had moved by three quarters of its standard deviation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from features.errors import DriftColumnError
from lakehouse.contracts.table import EventTime, Key, Table

#: An index above this says that the distribution has moved; the customary bound for "a major shift".
THRESHOLD = 0.2
#: Expected share of false alarms among the alarms of one comparison.
ALPHA = 0.01
#: Fewer rows than this on either side raise no alarm, for by chance alone they could pass the threshold.
MIN_ROWS = 300

_BINS = 10
#: A chi-square test needs about so many expected values in each bin (W. Cochran, Biometrics 10(4), 1954).
_EXPECTED = 5

Counts = npt.NDArray[np.int64]


class Drift(BaseModel):
    """One feature compared.

    Attributes:
        feature: the column.
        kind: numbers with more than ten different values, or categories.
        psi: population stability index, 0 for equal distributions; None where either side has no value.
        jensen_shannon: Jensen-Shannon distance of the binned distributions, 0 to 1; None as for psi.
        test: what made the p-value.
        p_value: chance of a difference this large between two samples of one distribution.
        adjusted_p_value: the same among all features compared (Benjamini-Hochberg).
        reference_rows: rows of the reference table.
        current_rows: rows of the current table.
        threshold: the bound that psi must pass.
        drifted: psi is above the threshold, the adjusted p-value below 0.01, and both sides have at least 300 rows.
    """

    model_config = ConfigDict(frozen=True)

    feature: str
    kind: Literal["number", "category"]
    psi: float | None
    jensen_shannon: float | None
    test: Literal["kolmogorov-smirnov", "chi-square"]
    p_value: float
    adjusted_p_value: float
    reference_rows: int
    current_rows: int
    threshold: float
    drifted: bool


class DriftRow(Table, name="drift"):
    """One feature compared between two windows, as the night that compared them found it."""

    drift_id: Annotated[str, Key(), Field(description="Run and feature, as run/feature.")]
    run_id: Annotated[str, Field(description="The run that compared.")]
    feature: str
    psi: Annotated[float, Field(ge=0, description="Population stability index.")]
    jensen_shannon: Annotated[float, Field(ge=0, le=1, description="Jensen-Shannon distance, base 2.")]
    test: Literal["kolmogorov-smirnov", "chi-square"]
    adjusted_p_value: Annotated[float, Field(ge=0, le=1, description="Benjamini-Hochberg, over the run's features.")]
    threshold: Annotated[float, Field(ge=0, description="Bound on the index.")]
    drifted: bool
    reference_rows: Annotated[int, Field(ge=0)]
    current_rows: Annotated[int, Field(ge=0)]
    compared_at: Annotated[datetime, EventTime()]


def drift(reference: pa.Table, current: pa.Table, features: Sequence[str]) -> list[Drift]:
    """Compare columns of two tables, in the order asked for. Raises DriftColumnError.

    Args:
        reference: what the model in use was trained on; it fixes the bins.
        current: what came since.
        features: columns of numbers, booleans, strings or lists of these (a list's values count one by one).
    """
    from scipy.stats import false_discovery_control

    found = [_compare(feature, reference, current) for feature in features]
    known = [one.p_value for one in found if one.psi is not None]
    adjusted = iter(false_discovery_control(known) if known else [])
    enough = min(reference.num_rows, current.num_rows) >= MIN_ROWS
    return [
        Drift(
            feature=feature,
            kind=one.kind,
            psi=one.psi,
            jensen_shannon=one.jensen_shannon,
            test="kolmogorov-smirnov" if one.kind == "number" else "chi-square",
            p_value=one.p_value,
            adjusted_p_value=(p := 1.0 if one.psi is None else float(next(adjusted))),
            reference_rows=reference.num_rows,
            current_rows=current.num_rows,
            threshold=THRESHOLD,
            drifted=enough and one.psi is not None and one.psi > THRESHOLD and p < ALPHA,
        )
        for feature, one in zip(features, found, strict=True)
    ]


def comparable(kind: pa.DataType) -> bool:
    """Whether columns of an Arrow type can be compared: numbers, booleans, strings and lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    checks = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    return any(check(kind) for check in checks)


class _Comparison(NamedTuple):
    kind: Literal["number", "category"]
    psi: float | None
    jensen_shannon: float | None
    p_value: float


def _compare(feature: str, reference: pa.Table, current: pa.Table) -> _Comparison:
    for side, table in (("reference", reference), ("current", current)):
        if feature not in table.column_names:
            raise DriftColumnError.missing(feature, side, table.column_names)
    before, after = _values(feature, reference[feature]), _values(feature, current[feature])
    number = pa.types.is_floating(before.type) and pc.count_distinct(before).as_py() > _BINS
    kind: Literal["number", "category"] = "number" if number else "category"
    if len(before) == 0 or len(after) == 0:
        return _Comparison(kind, None, None, 1.0)
    counts = _count_numbers(before, after) if number else _count_values(before, after)
    counts = counts[:, counts.sum(axis=0) > 0]
    smoothed = counts + 0.5
    shares = smoothed / smoothed.sum(axis=1, keepdims=True)
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    middle = shares.mean(axis=0)
    divergence = 0.5 * float((shares * np.log2(shares / middle)).sum())
    p_value = _number_p_value(before, after) if number else _chi_square_p_value(counts)
    return _Comparison(kind, psi, max(divergence, 0.0) ** 0.5, p_value)


def _number_p_value(before: pa.Array, after: pa.Array) -> float:
    """Kolmogorov-Smirnov on the values; joined with a test on the share of nulls where there are any."""
    from scipy.stats import ks_2samp

    known = [side.drop_null().to_numpy() for side in (before, after)]
    p_value = float(ks_2samp(*known).pvalue) if all(len(values) for values in known) else 0.0
    nulls = [side.null_count for side in (before, after)]
    if not any(nulls):
        return p_value
    held = np.array([[len(side) - null, null] for side, null in zip((before, after), nulls, strict=True)])
    return min(1.0, 2 * min(p_value, _chi_square_p_value(held)))


def _chi_square_p_value(counts: Counts) -> float:
    """Pearson's test of homogeneity; bins too thin for it are put together."""
    from scipy.stats import chi2_contingency

    expected = counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()
    thin = expected < _EXPECTED
    if thin.sum() > 1:
        counts = np.column_stack([counts[:, ~thin], counts[:, thin].sum(axis=1)])
    if counts.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(counts, correction=False).pvalue)


def _values(feature: str, column: pa.ChunkedArray) -> pa.Array:
    """The values as float64 (NaN is null), string or boolean; a list's values one by one."""
    values = column.combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    kind = values.type
    if not comparable(kind):
        raise DriftColumnError.wrong_type(feature, str(kind))
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values
    numbers = values.cast(pa.float64())
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


def _count_numbers(before: pa.Array, after: pa.Array) -> Counts:
    """[2, bins]: values by the reference's deciles, nulls last."""
    known = [side.drop_null().to_numpy() for side in (before, after)]
    edges = np.unique(np.quantile(known[0], np.arange(1, _BINS) / _BINS))
    rows = [
        [*np.bincount(np.searchsorted(edges, numbers), minlength=len(edges) + 1), side.null_count]
        for side, numbers in zip((before, after), known, strict=True)
    ]
    return np.array(rows, dtype=np.int64)


def _count_values(before: pa.Array, after: pa.Array) -> Counts:
    """[2, bins]: the reference's most frequent values, all others, nulls last."""
    counted = [Counter(side.drop_null().to_pylist()) for side in (before, after)]
    # All of the reference's values where they are few, else the most frequent; ties by value, so that runs agree.
    ranked = sorted(counted[0], key=lambda value: (-counted[0][value], value))
    frequent = ranked if len(ranked) <= _BINS else ranked[: _BINS - 1]
    rows = [
        [*(count[value] for value in frequent), count.total() - sum(count[v] for v in frequent), side.null_count]
        for side, count in zip((before, after), counted, strict=True)
    ]
    return np.array(rows, dtype=np.int64)
