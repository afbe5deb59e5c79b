"""Which entities does a training set ask about, and when? A frame, an Arrow table, a snapshot, SQL, or everyone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import EntityColumnsError, OfflineSourceError
from features.point_in_time import Lookup, rows_between
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd
    from feast.feature_view import FeatureView

#: What the column with the instants is called, unless it is the only column of timestamps.
EVENT_TIMESTAMP = "event_timestamp"

_UTC = pa.timestamp("us", tz="UTC")


class Batches(Protocol):
    """Reads the rows of an entity frame."""

    def __call__(self, columns: Sequence[str] | None = None) -> Iterable[pa.RecordBatch]: ...


@dataclass(frozen=True)
class EntityFrame:
    """Entity rows that can be read more than once.

    Attributes:
        schema: their columns.
        time: the column with the instants.
        batches: the rows from the beginning, with some of their columns or all.
    """

    schema: pa.Schema
    time: str
    batches: Batches

    @classmethod
    def of(cls, given: pd.DataFrame | pa.Table | Snapshot[Table] | str, lake: str | None = None) -> EntityFrame:
        """The rows of what Feast was given.

        Args:
            given: a DataFrame, an Arrow table, a snapshot, or SQL for the lake (``ratings@12`` works in it).
            lake: the lake's root; by default the one that the settings name.

        Raises:
            EntityColumnsError: no column says when, or one mixes types.
            OfflineSourceError: anything else was given.
            QueryError: the SQL is not a read, or does not run.
        """
        if isinstance(given, Snapshot):
            return cls._of_snapshot(given)
        if isinstance(given, str):
            from lakehouse.lake import Lakehouse
            from lakehouse.query.sql import query

            given = query(Lakehouse.open(lake), given)
        if not isinstance(given, pa.Table):
            given = _of_pandas(given)
        return cls._of_table(given)

    @classmethod
    def between(
        cls, views: Sequence[FeatureView], lookups: Sequence[Lookup], start: datetime | None, end: datetime | None
    ) -> EntityFrame:
        """Every entity of the views with a row from ``start`` to ``end``, asked about at the end.

        Dates without a time zone are taken for UTC. Without an end it is now; without a start it is the longest ttl of
        the views, else 30 days, before the end (Feast's rule). An entity that one view knows has nulls for the keys
        that only others have.
        """
        from feast.utils import compute_non_entity_date_range

        first, last = compute_non_entity_date_range(list(views), start, end)
        keys = list(dict.fromkeys(key for lookup in lookups for key, _ in lookup.keys))
        if not keys:
            return cls._of_table(pa.table({EVENT_TIMESTAMP: pa.array([last], _UTC)}))
        found = []
        for lookup in lookups:
            names = {source: key for key, source in lookup.keys}
            rows = rows_between(lookup.snapshot, list(names), lookup.known_at, start=first, end=last)
            if names:
                found.append(_distinct(rows, list(names)).rename_columns(list(names.values())))
        everyone = pa.concat_tables(found, promote_options="default").group_by(keys, use_threads=False).aggregate([])
        in_order = everyone.sort_by([(key, "ascending") for key in keys])
        return cls._of_table(in_order.append_column(EVENT_TIMESTAMP, pa.array([last] * in_order.num_rows, _UTC)))

    def span(self) -> tuple[datetime | None, datetime | None]:
        """The first and the last instant; None where there is no row."""
        ends = [pc.min_max(batch.column(self.time)) for batch in self.batches([self.time])]
        instants = [end[name].as_py() for end in ends for name in ("min", "max") if end[name].is_valid]
        return min(instants, default=None), max(instants, default=None)

    @classmethod
    def _of_table(cls, table: pa.Table) -> EntityFrame:
        def batches(columns: Sequence[str] | None = None) -> Iterable[pa.RecordBatch]:
            shown = table if columns is None else table.select(list(columns))
            return cast("list[pa.RecordBatch]", shown.to_batches())

        return cls(table.schema, time_of(table.schema), batches)

    @classmethod
    def _of_snapshot(cls, snapshot: Snapshot[Table]) -> EntityFrame:
        schema = snapshot.scan().schema
        return cls(schema, time_of(schema, snapshot.row), snapshot.scan)


def time_of(schema: pa.Schema, row: type[Table] = Table) -> str:
    """The column with the instants: the one called so, the row model's event time, or the only one of timestamps."""
    if EVENT_TIMESTAMP in schema.names:
        return EVENT_TIMESTAMP
    if row is not Table and row.contract.event_time is not None:
        return row.contract.event_time
    stamps = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    if len(stamps) != 1:
        raise EntityColumnsError.no_time(schema.names)
    return str(stamps[0])


def _of_pandas(frame: object) -> pa.Table:
    """A DataFrame's columns without its index."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise OfflineSourceError.entity_frame(type(frame).__name__)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        for name, column in frame.items():
            kinds = sorted({type(value).__name__ for value in column if value is not None})
            if column.dtype == object and len(kinds) > 1:
                raise EntityColumnsError.mixed(str(name), kinds) from None
        raise


def _distinct(rows: pa.RecordBatchReader, columns: Sequence[str]) -> pa.Table:
    """Each combination of values once."""
    known = rows.schema.empty_table().select(list(columns))
    for batch in rows:
        both = pa.concat_tables([known, pa.Table.from_batches([batch]).select(list(columns))])
        known = both.group_by(list(columns), use_threads=False).aggregate([]).select(list(columns))
    return known
