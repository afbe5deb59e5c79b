"""Has a feature's distribution moved? The population stability index between a reference and a current table.

PSI = sum over bins of (c - r) * ln(c / r), where r and c are the shares of reference and current values in a bin
(N. Siddiqi, Credit Risk Scorecards, Wiley 2006, chapter "Scorecard implementation"; it is Jeffreys' divergence of the
binned distributions). The bins are fixed by the reference: deciles for numbers, the nine most frequent values and "all
others" for strings, booleans and numbers of at most ten different values; nulls have a bin of their own. Half a
count is added to each bin that either side uses, so that an empty one does not make the index infinite.

With n and m values of one distribution in B bins the index behaves like (1/n + 1/m) times a chi-square variable with
B - 1 degrees of freedom (B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index",
Journal of Risk Model Validation 14(4), 2020). That is why a minimum number of rows belongs to a fixed threshold: at 300
rows a side the theory puts a false alarm at about 1 in 1,000 or rarer. Simulated with a fixed seed at that size
(tests/features/test_drift.py): no false alarm in 1,200 comparisons of two samples of one distribution (a normal, a
count and a string column), and at least 198 alarms in 200 where a normal column had moved by three quarters of its
standard deviation. Every further feature compared is one more chance of a false alarm: nothing corrects for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from features.errors import DriftColumnError

#: An index above this says that the distribution has moved; the customary bound for "a major shift".
THRESHOLD = 0.2
#: Fewer rows than this on either side raise no alarm, for by chance alone they could pass the threshold.
MIN_ROWS = 300

_BINS = 10

Counts = npt.NDArray[np.int64]


class Drift(BaseModel):
    """One feature compared.

    Attributes:
        feature: the column.
        psi: population stability index, 0 for equal distributions; None where either side has no value.
        reference_rows: rows of the reference table.
        current_rows: rows of the current table.
        threshold: the bound that psi must pass.
        drifted: psi is above the threshold and both sides have at least 300 rows.
    """

    model_config = ConfigDict(frozen=True)

    feature: str
    psi: float | None
    reference_rows: int
    current_rows: int
    threshold: float
    drifted: bool


def drift(reference: pa.Table, current: pa.Table, features: Sequence[str]) -> list[Drift]:
    """Compare columns of two tables, in the order asked for. Raises DriftColumnError.

    Args:
        reference: what the model in use was trained on; it fixes the bins.
        current: what came since.
        features: columns of numbers, booleans, strings or lists of these (a list's values count one by one).
    """
    found = []
    for feature in features:
        for side, table in (("reference", reference), ("current", current)):
            if feature not in table.column_names:
                raise DriftColumnError.missing(feature, side, table.column_names)
        psi = _psi(feature, reference[feature], current[feature])
        enough = min(reference.num_rows, current.num_rows) >= MIN_ROWS
        found.append(
            Drift(
                feature=feature,
                psi=psi,
                reference_rows=reference.num_rows,
                current_rows=current.num_rows,
                threshold=THRESHOLD,
                drifted=enough and psi is not None and psi > THRESHOLD,
            )
        )
    return found


def _psi(feature: str, reference: pa.ChunkedArray, current: pa.ChunkedArray) -> float | None:
    before, after = _values(feature, reference), _values(feature, current)
    if len(before) == 0 or len(after) == 0:
        return None
    if pa.types.is_floating(before.type) and pc.count_distinct(before).as_py() > _BINS:
        counts = _count_numbers(before, after)
    else:
        counts = _count_values(before, after)
    used = counts.sum(axis=0) > 0
    smoothed = counts[:, used] + 0.5
    shares = smoothed / smoothed.sum(axis=1, keepdims=True)
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _values(feature: str, column: pa.ChunkedArray) -> pa.Array:
    """The values as float64 (NaN is null), string or boolean; a list's values one by one."""
    values = column.combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = values.cast(pa.float64())
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values
    raise DriftColumnError.wrong_type(feature, str(kind))


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
