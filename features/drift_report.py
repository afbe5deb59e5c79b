"""How do two samples look side by side? Evidently's report of them, one HTML file that loads nothing from elsewhere.

It is for people to look at: each feature's two distributions over another, with Evidently's own population stability
index of its own bins. What decides is ``features.drift``, which also asks how many rows there are and what chance does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from features.drift import THRESHOLD, Drift
from features.errors import DriftColumnError
from lakehouse.errors import MissingPackageError

if TYPE_CHECKING:
    import pandas as pd


def write_report(path: Path, reference: pa.Table, current: pa.Table, found: Sequence[Drift]) -> None:
    """Write Evidently's drift report of the features that were compared.

    Args:
        path: the HTML file; one that is there is replaced.
        reference: the rows that ``features.drift.drift`` was given.
        current: likewise.
        found: what it found. A list's values are shown as one text; a feature without a value on one side is left out.

    Raises:
        MissingPackageError: Evidently is not installed.
        DriftColumnError: no feature has values on both sides.
    """
    drawn = [one for one in found if one.psi is not None]
    if not drawn:
        raise DriftColumnError.empty([one.feature for one in found])
    # Only Evidently's server sends usage data; here nothing may.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        from evidently import DataDefinition, Dataset, Report  # type: ignore[import-untyped]
        from evidently.presets import DataDriftPreset  # type: ignore[import-untyped]
    except ImportError:
        raise MissingPackageError.for_extra("Evidently's report", "drift") from None
    columns = DataDefinition(
        numerical_columns=[one.feature for one in drawn if one.kind == "number"],
        categorical_columns=[one.feature for one in drawn if one.kind == "category"],
    )
    sides = [Dataset.from_pandas(_frame(table, drawn), columns) for table in (current, reference)]
    preset = DataDriftPreset(num_method="psi", cat_method="psi", num_threshold=THRESHOLD, cat_threshold=THRESHOLD)
    unfinished = path.with_name(f".{path.name}.part")
    Report([preset]).run(*sides).save_html(str(unfinished))
    unfinished.replace(path)


def _frame(table: pa.Table, drawn: Sequence[Drift]) -> pd.DataFrame:
    """The features with the types that Evidently takes for numbers and for categories."""
    columns = {}
    for one in drawn:
        column = table[one.feature].combine_chunks()
        if one.kind == "number":
            columns[one.feature] = column.cast(pa.float64())
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            texts = [None if value is None else ", ".join(sorted(map(str, value))) for value in column.to_pylist()]
            columns[one.feature] = pa.array(texts, pa.string())
        else:
            columns[one.feature] = pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame
