"""How are a declared view's features computed? One pure function, Arrow in and Arrow out.

A row is stamped with the end of a UTC day, 00:00 of the next one, and holds only what was known before that instant.
An event of day d is therefore joined with what was known at the end of day d-1 at the latest: no label is among its
own features. The same function makes a whole history (training), one more day of it (the nightly run) and the days of a
stream: a row is made of the events before its stamp alone, in one order of summation, so the bits are the same.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from features.aggregations import FIRST_OF_DAY, Aggregation, Part, TogetherWith
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Contract

if TYPE_CHECKING:
    import polars as pl

    from features.feature_view import Declaration

# Names that no declared column has. _DAY: when an event was known and a row is made; _HAPPENED: when it happened.
_DAY, _HAPPENED, _ROW, _BUCKET = "__day", "__happened", "__row", "__bucket"
# Rows whose companions are counted at once: their number times the events in two windows is held in memory.
_TOGETHER_ROWS = 2_000


def compute(
    contract: Contract,
    declaration: Declaration,
    rows: pa.Table,
    *,
    after: datetime | None = None,
    until: datetime | None = None,
) -> pa.Table:
    """One row for each entity and UTC day on which an event of it became known, sorted by entity and day.

    Args:
        contract: the view's columns; the result has its schema.
        declaration: how they are computed.
        rows: all events up to the day wanted: the source's columns that the declaration reads, any order.
        after: keep only rows stamped later than this instant (with a time zone), as a nightly run for one day does;
            ``rows`` must hold the history all the same.
        until: leave out rows stamped later than this instant, and what became known from then on.
    """
    import polars as pl

    events = _events(declaration, rows)
    if until is not None:
        events = events.filter(pl.col(_DAY).dt.offset_by("1d").cast(pl.Datetime("us", "UTC")) <= until)
    stamps = events.select(*declaration.entity, _DAY).unique(maintain_order=True)
    stamps = stamps.with_columns(
        pl.col(_DAY).dt.offset_by("1d").cast(pl.Datetime("us", "UTC")).alias(declaration.stamp)
    ).with_row_index(_ROW)
    wanted = stamps if after is None else stamps.filter(pl.col(declaration.stamp) > after)

    source = declaration.source.contract
    parts = {
        f"{name}.{part}": (made, aggregation.days)
        for name, aggregation in declaration.aggregations.items()
        if isinstance(aggregation, Aggregation)
        for part, made in aggregation.parts(source).items()
    }
    cells = events.group_by(*declaration.entity, _DAY, _HAPPENED, maintain_order=True).agg(
        made.of_day.alias(name) for name, (made, _) in parts.items()
    )
    result = wanted
    for days in dict.fromkeys(days for _, days in parts.values()):
        chosen = {name: made for name, (made, window) in parts.items() if window == days}
        if days is None:
            found, on = _cumulative(cells, chosen, declaration.entity), [*declaration.entity, _DAY]
        else:
            found, on = _windowed(cells, wanted, chosen, declaration.entity, days), [_ROW]
        result = result.join(found, on=on, how="left", maintain_order="left")
    for name, aggregation in declaration.aggregations.items():
        if isinstance(aggregation, Aggregation):
            own = {part: pl.col(f"{name}.{part}") for part in aggregation.parts(source)}
            result = result.with_columns(aggregation.value(own).alias(name))
        elif isinstance(aggregation, TogetherWith):
            found = _together(events, wanted, declaration.entity[0], aggregation)
            result = result.join(found, on=_ROW, how="left", maintain_order="left")
            result = result.rename({"companions": name}).with_columns(pl.col(name).fill_null([]))
    schema = arrow_schema(contract)
    return result.select(schema.names).to_arrow().cast(schema)


def _events(declaration: Declaration, rows: pa.Table) -> pl.DataFrame:
    """The columns that are read, in one order whatever order the rows came in: equal inputs give equal bits."""
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(rows.select(list(declaration.inputs))))
    times = [declaration.clock, *([declaration.created] if declaration.created else [])]
    happened, *created = [pl.col(name).dt.convert_time_zone("UTC").dt.date() for name in times]
    others = sorted({*declaration.inputs} - {*declaration.entity, *times})
    return (
        frame.with_columns(happened.alias(_HAPPENED), pl.max_horizontal(happened, *created).alias(_DAY))
        .sort(*declaration.entity, _DAY, *times, *others)
        .with_columns(pl.struct(*declaration.entity, _HAPPENED).is_first_distinct().alias(FIRST_OF_DAY))
    )


def _cumulative(cells: pl.DataFrame, parts: dict[str, Part], entity: tuple[str, ...]) -> pl.DataFrame:
    """(entity, day, parts), over all that was known by the end of each day with an event."""
    import polars as pl

    totals = []
    for name, part in parts.items():
        column = pl.col(name)
        # A day may have no value (null): what was known before it goes on.
        running = {
            "sum": column.cum_sum(),
            "min": column.cum_min().forward_fill(),
            "max": column.cum_max().forward_fill(),
        }[part.over_days]
        totals.append(running.over(entity).alias(name))
    return (
        cells.with_columns(totals)
        .group_by(*entity, _DAY, maintain_order=True)
        .agg(pl.col(name).last() for name in parts)
    )


def _windowed(
    cells: pl.DataFrame, stamps: pl.DataFrame, parts: dict[str, Part], entity: tuple[str, ...], days: int
) -> pl.DataFrame:
    """(row, parts), over what happened in the window and was known by the end of the row's day.

    Each window is added up by itself, in the order of the cells: a running sum would carry the rounding of what has
    left it. A window spans at most two buckets of its own length, so each row meets the cells of these two alone.
    """
    import polars as pl

    met = cells.select(*entity, pl.col(_DAY).alias("__known"), _HAPPENED, *parts).with_columns(_bucket(_HAPPENED, days))
    return (
        _bucketed(stamps.select(_ROW, *entity, _DAY), days)
        .join(met, on=[*entity, _BUCKET], maintain_order="left_right")
        .filter(_inside(days))
        .group_by(_ROW, maintain_order=True)
        .agg(getattr(pl.col(name), part.over_days)() for name, part in parts.items())
    )


def _together(events: pl.DataFrame, stamps: pl.DataFrame, entity: str, aggregation: TogetherWith) -> pl.DataFrame:
    """(row, companions): for each row the entities that share most values of ``by`` with it inside its window."""
    import polars as pl

    assert aggregation.days is not None
    days, by = aggregation.days, aggregation.by
    met = (
        events.filter(pl.col(by).is_not_null())
        .select(pl.col(entity).alias("__other"), by, pl.col(_DAY).alias("__known"), _HAPPENED)
        .unique(maintain_order=True)
        .with_columns(_bucket(_HAPPENED, days))
    )
    found = []
    for chunk in stamps.select(_ROW, pl.col(entity).alias("__own"), _DAY).iter_slices(_TOGETHER_ROWS):
        rows = _bucketed(chunk, days)
        own = rows.join(met, left_on=["__own", _BUCKET], right_on=["__other", _BUCKET]).filter(_inside(days))
        pairs = (
            _bucketed(own.select(_ROW, "__own", _DAY, by).unique(maintain_order=True), days)
            .join(met, on=[by, _BUCKET])
            .filter(_inside(days), pl.col("__other") != pl.col("__own"))
            .select(_ROW, "__other", by)
            .unique()
        )
        found.append(
            pairs.group_by(_ROW, "__other")
            .len("__times")
            .sort(_ROW, "__times", "__other", descending=[False, True, False])
            .group_by(_ROW, maintain_order=True)
            .agg(pl.col("__other").head(aggregation.top).alias("companions"))
        )
    if found:
        return pl.concat(found)
    kind = events.schema[entity]
    return pl.DataFrame(schema={_ROW: pl.UInt32, "companions": pl.List(kind)})


def _bucketed(rows: pl.DataFrame, days: int) -> pl.DataFrame:
    """Each row twice: once for the bucket before the one that its window ends in, and once for that one."""
    import polars as pl

    last = rows.with_columns(_bucket(_DAY, days))
    return pl.concat([last.with_columns(pl.col(_BUCKET) - 1), last])


def _bucket(day: str, days: int) -> pl.Expr:
    import polars as pl

    return pl.col(day).cast(pl.Int32).floordiv(days).alias(_BUCKET)


def _inside(days: int) -> pl.Expr:
    """Happened in the window that ends with the row's day, and known by the end of it."""
    import polars as pl

    age = (pl.col(_DAY) - pl.col(_HAPPENED)).dt.total_days()
    return (age < days) & (pl.col("__known") <= pl.col(_DAY))
