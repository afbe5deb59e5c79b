"""How are features computed from ratings? Two pure functions, Arrow in and Arrow out.

A row is stamped with the end of its day, 00:00 UTC of the next one, and holds only what was rated before that instant.
A rating of day d is therefore joined with what was known at the end of day d-1 at the latest: no label is among its
own features.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from features.tables import RECENT_DAYS, ItemStats, UserStats
from lakehouse.arrow import arrow_schema
from lakehouse.table import Table

if TYPE_CHECKING:
    import polars as pl


def user_stats(ratings: pa.Table, after: datetime | None = None) -> pa.Table:
    """One row for each user and UTC day with a rating, cumulative, in UserStats' schema, sorted by user and day.

    Args:
        ratings: all ratings up to the day wanted: user_id (int64), item_id (int64), rating (float64), rated_at
            (timestamp, UTC).
        after: keep only rows stamped later than this instant (with a time zone), as a nightly run for one day does;
            ``ratings`` must hold the history all the same.
    """
    import polars as pl

    days = _days(ratings, "user_id").with_columns(
        active_days=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("user_id", order_by="day"),
    )
    return _finish(days, UserStats, after)


def item_stats(ratings: pa.Table, after: datetime | None = None) -> pa.Table:
    """One row for each movie and UTC day with a rating, cumulative, in ItemStats' schema, sorted by movie and day.

    ``recent_count`` counts ratings with computed_at - 30 days <= rated_at < computed_at. Arguments as ``user_stats``.
    """
    import polars as pl

    days = _days(ratings, "item_id").with_columns(
        recent_count=pl.col("day_count").rolling_sum_by("day", f"{RECENT_DAYS}d", closed="right").over("item_id"),
    )
    return _finish(days, ItemStats, after)


def _days(ratings: pa.Table, key: str) -> pl.DataFrame:
    """(key, day, computed_at, day_count, ratings_count, mean_rating), a row a day with a rating, sorted."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(ratings.select(["user_id", "item_id", "rating", "rated_at"])))
    return (
        # One order of summation whatever order the rows came in: equal inputs give equal bits.
        frame.sort(key, "rated_at", "user_id", "item_id", "rating")
        .with_columns(day=pl.col("rated_at").dt.convert_time_zone("UTC").dt.date())
        .group_by(key, "day", maintain_order=True)
        .agg(day_count=pl.len().cast(pl.Int64), day_sum=pl.col("rating").sum())
        .with_columns(
            computed_at=(pl.col("day") + pl.duration(days=1)).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            ratings_count=pl.col("day_count").cum_sum().over(key),
        )
        .with_columns(mean_rating=pl.col("day_sum").cum_sum().over(key) / pl.col("ratings_count"))
    )


def _finish(days: pl.DataFrame, row: type[Table], after: datetime | None) -> pa.Table:
    """The contract's columns of the rows stamped later than ``after``."""
    import polars as pl

    if after is not None:
        days = days.filter(pl.col("computed_at") > after)
    schema = arrow_schema(row.contract)
    return days.select(schema.names).to_arrow().cast(schema)
