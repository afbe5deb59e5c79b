"""What was known at an instant? Point-in-time joins and latest rows over pinned Delta versions, in DuckDB.

Columns and time bounds are pushed down to the Delta files; the join is DuckDB's ASOF join, so its cost grows with the
rows read and not with how far back they reach. Identifiers are quoted, and no value is ever part of a statement.
"""

# ruff: noqa: S608  (statements are put together from quoted identifiers only)

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import NaiveTimestampError, OfflineSourceError
from lakehouse.snapshot import Condition, Snapshot, quote_name, schema_of
from lakehouse.table import Table

if TYPE_CHECKING:
    import duckdb

_ROW = "__row"


@dataclass(frozen=True)
class Lookup:
    """What one view contributes to a point-in-time join.

    Attributes:
        snapshot: where its rows are.
        keys: (column of the entities, column of the snapshot) for each join key.
        features: (name in the result, column of the snapshot) for each feature.
        known_at: the snapshot's event time: from this instant on, that instant included, a row is known.
        created_at: of two rows with one key and event time, the one created later counts.
        ttl: how long after its event time a row counts, that instant included; None is for ever.
    """

    snapshot: Snapshot[Table]
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    known_at: str
    created_at: str | None = None
    ttl: timedelta | None = None


def join_as_of(entities: pa.Table, time: str, lookups: Sequence[Lookup]) -> pa.Table:
    """Each entity row, in its order, with each view's newest row that was known at the row's own instant.

    Args:
        entities: any columns, among them the join keys and ``time``.
        time: a timestamp column with a time zone.
        lookups: the views; a feature of which nothing was known, or only what is older than the ttl, is null.

    Raises:
        NaiveTimestampError: ``time`` has no time zone.
        OfflineSourceError: a pinned version lacks a column.
    """
    kind = entities.schema.field(time).type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise NaiveTimestampError.column(time, str(kind))
    span = pc.min_max(entities[time].cast(pa.timestamp("us", tz="UTC"))).as_py()
    with _connect() as connection:
        keys = list(dict.fromkeys(key for lookup in lookups for key, _ in lookup.keys))
        asked = entities.select(list(dict.fromkeys([*keys, time])))
        asked = asked.append_column(_ROW, pa.array(range(asked.num_rows), pa.int64()))
        connection.register("asked_rows", asked)
        connection.execute(
            f"CREATE TEMP TABLE asked AS SELECT * REPLACE ({_instant(time)} AS {quote_name(time)}) FROM asked_rows"
        )
        result = entities
        for lookup in lookups:
            found = _lookup(connection, lookup, time, span["min"], span["max"])
            for name in found.column_names:
                result = result.append_column(found.schema.field(name), found[name])
    return result


def latest_rows(
    snapshot: Snapshot[Table],
    keys: Sequence[str],
    features: Sequence[str],
    known_at: str,
    *,
    created_at: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """The newest row of each key among those known from ``start`` to ``end``, both included: keys, features, times."""
    with _connect() as connection:
        columns = _load(connection, snapshot, [*keys, *features], known_at, created_at, start, end)
        newest = f"QUALIFY row_number() OVER (PARTITION BY {_names(keys)} ORDER BY {_newest(known_at, created_at)}) = 1"
        return _table(connection, f"SELECT {_names(columns)} FROM loaded {newest}")


def rows_between(
    snapshot: Snapshot[Table],
    columns: Sequence[str],
    known_at: str,
    *,
    created_at: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.Table:
    """Every row known from ``start`` to ``end``, both included."""
    with _connect() as connection:
        loaded = _load(connection, snapshot, columns, known_at, created_at, start, end)
        return _table(connection, f"SELECT {_names(loaded)} FROM loaded")


def changed_rows(before: pa.Table, after: pa.Table, keys: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """What turns one state of the latest rows into another: rows that are new or differ, and keys that are gone."""
    with _connect() as connection:
        connection.register("state_before", before)
        connection.register("state_after", after)
        names = _names(keys)
        written = _table(connection, "SELECT * FROM state_after EXCEPT SELECT * FROM state_before")
        gone = _table(connection, f"SELECT {names} FROM state_before EXCEPT SELECT {names} FROM state_after")
        return written, gone


def _lookup(
    connection: duckdb.DuckDBPyConnection, lookup: Lookup, time: str, first: datetime | None, last: datetime | None
) -> pa.Table:
    """The view's features, one row an entity row, in the order of the entity rows."""
    sources = [source for _, source in lookup.keys]
    earliest = first - lookup.ttl if first is not None and lookup.ttl is not None else None
    needed = [*sources, *(source for _, source in lookup.features)]
    _load(connection, lookup.snapshot, needed, lookup.known_at, lookup.created_at, earliest, last)
    if lookup.created_at is not None:
        order = _newest(lookup.known_at, lookup.created_at)
        partition = _names([*sources, lookup.known_at])
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE loaded AS SELECT * FROM loaded "
            f"QUALIFY row_number() OVER (PARTITION BY {partition} ORDER BY {order}) = 1"
        )
    asked_at, known_at = f"asked.{quote_name(time)}", f"loaded.{quote_name(lookup.known_at)}"
    alive = f"{asked_at} - {known_at} <= $ttl" if lookup.ttl is not None else "true"
    features = ", ".join(
        f"CASE WHEN {alive} THEN loaded.{quote_name(source)} END AS {quote_name(name)}"
        for name, source in lookup.features
    )
    matches = " AND ".join(f"asked.{quote_name(key)} = loaded.{quote_name(source)}" for key, source in lookup.keys)
    return _table(
        connection,
        f"SELECT {features} FROM asked ASOF LEFT JOIN loaded "
        f"ON {matches} AND {asked_at} >= {known_at} ORDER BY asked.{quote_name(_ROW)}",
        {"ttl": lookup.ttl} if lookup.ttl is not None else {},
    )


def _load(
    connection: duckdb.DuckDBPyConnection,
    snapshot: Snapshot[Table],
    columns: Sequence[str],
    known_at: str,
    created_at: str | None,
    start: datetime | None,
    end: datetime | None,
) -> list[str]:
    """Read the columns and the times into the temporary table ``loaded``, event time as an instant in UTC."""
    wanted = list(dict.fromkeys([*columns, known_at, *([created_at] if created_at else [])]))
    stored = schema_of(snapshot.delta())
    missing = [name for name in wanted if name not in stored.names]
    if missing:
        raise OfflineSourceError.columns(snapshot.reference, missing)
    bounds: list[Condition] = []
    if start is not None:
        bounds.append((known_at, ">=", start))
    if end is not None:
        bounds.append((known_at, "<=", end))
    connection.register("scanned", snapshot.scan(wanted, bounds))  # a stream: read once, by the next statement
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE loaded AS "
        f"SELECT * REPLACE ({_instant(known_at)} AS {quote_name(known_at)}) FROM scanned"
    )
    connection.unregister("scanned")
    return wanted


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb

    # Nothing is ever fetched from outside, and instants read the same whatever the machine's time zone.
    return duckdb.connect(
        config={
            "TimeZone": "UTC",
            "autoinstall_known_extensions": "false",
            "temp_directory": tempfile.gettempdir(),
        }
    )


def _table(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, timedelta] | None = None
) -> pa.Table:
    table: pa.Table = connection.sql(query, params=parameters or None).to_arrow_table()
    # In one chunk: Feast's writer takes a table's first chunk for the whole of it.
    return table.combine_chunks() if table.num_rows else table


def _instant(column: str) -> str:
    return f"{quote_name(column)}::TIMESTAMPTZ"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(quote_name(column) for column in columns)


def _newest(known_at: str, created_at: str | None) -> str:
    times = [known_at, *([created_at] if created_at else [])]
    return ", ".join(f"{quote_name(time)} DESC" for time in times)
