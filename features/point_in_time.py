"""What was known at an instant? Point-in-time joins and latest rows over pinned Delta versions.

Columns and time bounds are pushed down to the Delta files, and rows are read as a stream. The join (features/as_of.py)
holds entity rows only, a slice of them at a time; what sorts or groups feature rows is left to DuckDB, which spills to
disk. Identifiers are quoted, and no value is ever part of a statement.
"""

# ruff: noqa: S608  (statements are put together from quoted identifiers only)

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.as_of import EntityIndex, Times, newest_known
from features.errors import EntityColumnsError, NaiveTimestampError, OfflineSourceError
from features.key_order import Integers
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Condition, Snapshot, quote_name, schema_of

if TYPE_CHECKING:
    import duckdb

#: Entity rows that are joined at once, by default: a slice takes about 150 bytes an entity row and eight a feature.
SLICE_ROWS = 4_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MIN = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)
_UTC = pa.timestamp("us", tz="UTC")
# What grouping may hold before it spills.
_MEMORY_LIMIT = "1GiB"


@dataclass(frozen=True)
class Lookup:
    """What one view contributes to a point-in-time join.

    Attributes:
        snapshot: where its rows are.
        keys: (column of the entities, column of the snapshot) for each join key; none for features of no entity.
        features: (name in the result, column of the snapshot) for each feature.
        known_at: the snapshot's event time: from this instant on, that instant included, a row is known.
        created_at: when a row was written down. Of two rows with one key and event time, the one created later counts.
        ttl: how long after its event time a row counts, that instant included; None is for ever.
        as_corrected: also rows that were written down only after the entity row's instant count. By default they do
            not: the answer is what was known then, not what was corrected later.
    """

    snapshot: Snapshot[Table]
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    known_at: str
    created_at: str | None = None
    ttl: timedelta | None = None
    as_corrected: bool = False


def join_as_of(entities: pa.Table, time: str, lookups: Sequence[Lookup], *, slice_rows: int = SLICE_ROWS) -> pa.Table:
    """Each entity row, in its order, with each view's newest row that was known at the row's own instant.

    Args:
        entities: any columns, among them the join keys and ``time``.
        time: a timestamp column with a time zone.
        lookups: the views; a feature of which nothing was known, or only what is older than the ttl, is null.
        slice_rows: entity rows that are joined at once; each slice reads the feature rows that it may need anew.

    Raises:
        EntityColumnsError: a column is missing, its type is not that of the feature rows' key, or an instant is null.
        NaiveTimestampError: ``time`` has no time zone.
        OfflineSourceError: a pinned version lacks a column.
    """
    joined = list(join_slices(entities.schema, entities.to_batches(), time, lookups, slice_rows=slice_rows))
    return pa.concat_tables(joined)


def join_slices(
    schema: pa.Schema,
    entities: Iterable[pa.RecordBatch],
    time: str,
    lookups: Sequence[Lookup],
    *,
    slice_rows: int = SLICE_ROWS,
) -> Iterator[pa.Table]:
    """As ``join_as_of``, for entity rows that come as a stream; one table a slice, at least one."""
    check_entities(schema, time, lookups)
    given = False
    for rows in _slices(schema, entities, slice_rows):
        given = True
        yield _join(rows, time, lookups)
    if not given:
        yield _join(schema.empty_table(), time, lookups)


def check_entities(schema: pa.Schema, time: str, lookups: Sequence[Lookup]) -> None:
    """EntityColumnsError or NaiveTimestampError unless these columns can be joined with the lookups."""
    needed = dict.fromkeys([*(key for lookup in lookups for key, _ in lookup.keys), time])
    missing = [name for name in needed if name not in schema.names]
    if missing:
        raise EntityColumnsError.missing(missing, schema.names)
    clock = schema.field(time).type
    if not pa.types.is_timestamp(clock) or clock.tz is None:
        raise NaiveTimestampError.column(time, str(clock))
    for lookup in lookups:
        stored = _schema(lookup.snapshot, [*(source for _, source in lookup.keys), lookup.known_at])
        for key, source in lookup.keys:
            kind, expected = schema.field(key).type, stored.field(source).type
            if _key_type(kind) != _key_type(expected):
                raise EntityColumnsError.wrong_type(key, str(expected), str(kind))


def joined_schema(entities: pa.Schema, lookups: Sequence[Lookup]) -> pa.Schema:
    """The columns of a join: the entities', then each lookup's features, with the types that they are stored in."""
    fields = list(entities)
    for lookup in lookups:
        stored = _schema(lookup.snapshot, [source for _, source in lookup.features])
        fields += [pa.field(name, stored.field(source).type) for name, source in lookup.features]
    return pa.schema(fields)


def latest_rows(
    snapshot: Snapshot[Table],
    keys: Sequence[str],
    features: Sequence[str],
    known_at: str,
    *,
    created_at: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    among: pa.Table | None = None,
) -> pa.Table:
    """The newest row of each key among those known from ``start`` to ``end``, both included: keys, features, times.

    Without a key it is the newest row of all. ``among`` are the only keys that count, if it is given.
    """
    columns = [*keys, *features, known_at, *([created_at] if created_at else [])]
    by = f"PARTITION BY {_names(keys)}" if keys else ""
    newest = ", ".join(f"{quote_name(time)} DESC" for time in (known_at, created_at) if time)
    with _connect() as connection:
        connection.register("known", rows_between(snapshot, columns, known_at, start=start, end=end))
        counted = ""
        if among is not None:
            connection.register("counted", among)
            counted = f"SEMI JOIN counted USING ({_names(keys)})"
        found: pa.Table = connection.sql(
            f"SELECT * FROM known {counted} QUALIFY row_number() OVER ({by} ORDER BY {newest}) = 1"
        ).to_arrow_table()
    # In one chunk: Feast's writer takes a table's first chunk for the whole of it.
    return found.combine_chunks() if found.num_rows else found


def rows_between(
    snapshot: Snapshot[Table],
    columns: Sequence[str],
    known_at: str,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pa.RecordBatchReader:
    """Every row known from ``start`` to ``end``, both included, as a stream; event times are instants in UTC."""
    wanted = list(dict.fromkeys([*columns, known_at]))
    stored = _schema(snapshot, wanted)
    first, last = (None if bound is None else (bound - _EPOCH) // _MICROSECOND for bound in (start, end))
    bounds = _bounds(stored, known_at, first, last)
    rows = snapshot.scan(wanted, bounds)
    place = wanted.index(known_at)
    schema = rows.schema.set(place, pa.field(known_at, _UTC))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            known = _instants(batch.column(place))
            columns = [known if name == known_at else batch.column(name) for name in wanted]
            shown = pa.RecordBatch.from_arrays(columns, schema=schema)
            if not bounds:
                for bound, compare in ((start, pc.greater_equal), (end, pc.less_equal)):
                    if bound is not None:
                        shown = shown.filter(compare(shown.column(place), pa.scalar(bound, _UTC)))
            yield shown

    return pa.RecordBatchReader.from_batches(schema, batches())


def changed_rows(before: pa.Table, after: pa.Table, keys: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """What turns one state of the latest rows into another: rows that are new or differ, and keys that are gone."""
    with _connect() as connection:
        connection.register("state_before", before)
        connection.register("state_after", after)
        names = _names(keys)
        written = connection.sql("SELECT * FROM state_after EXCEPT SELECT * FROM state_before")
        gone = connection.sql(f"SELECT {names} FROM state_before EXCEPT SELECT {names} FROM state_after")
        return written.to_arrow_table(), gone.to_arrow_table()


def _key_type(kind: pa.DataType) -> pa.DataType:
    """The type in which keys are compared: whole numbers and texts each are of one kind, whatever their width."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


def _slices(schema: pa.Schema, batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The batches as tables of so many rows, the last one of fewer."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for whole in batches:
        batch = whole
        while count + batch.num_rows >= rows:
            cut = rows - count
            yield pa.Table.from_batches([*waiting, batch.slice(0, cut)], schema)
            batch, waiting, count = batch.slice(cut), [], 0
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if count:
        yield pa.Table.from_batches(waiting, schema)


def _join(entities: pa.Table, time: str, lookups: Sequence[Lookup]) -> pa.Table:
    if entities[time].null_count:
        raise EntityColumnsError.nulls(time, entities[time].null_count)
    instants = _microseconds(entities[time].combine_chunks())
    indexes: dict[tuple[str, ...], EntityIndex] = {}  # several views of one entity share its sorted rows
    result = entities
    for lookup in lookups:
        keys = tuple(key for key, _ in lookup.keys)
        if keys not in indexes:
            indexes[keys] = EntityIndex([_keys(entities[key].combine_chunks()) for key in keys], instants)
        found = _found(indexes[keys], lookup)
        for name, source in lookup.features:
            result = result.append_column(pa.field(name, found.schema.field(source).type), found[source])
    return result


def _found(index: EntityIndex, lookup: Lookup) -> pa.Table:
    """The view's features by their columns' names, one row an entity row, in the order of the entity rows."""
    sources = [source for _, source in lookup.keys]
    features = list(dict.fromkeys(source for _, source in lookup.features))
    times = [lookup.known_at, *([lookup.created_at] if lookup.created_at else [])]
    wanted = list(dict.fromkeys([*sources, *features, *times]))
    schema = _schema(lookup.snapshot, wanted)
    ttl = None if lookup.ttl is None else lookup.ttl // _MICROSECOND
    if len(index) == 0:
        return pa.schema([schema.field(name) for name in features]).empty_table()
    first, last = int(index.instants.min()), int(index.instants.max())
    bounds = _bounds(schema, lookup.known_at, None if ttl is None else first - ttl, last)
    rows = lookup.snapshot.scan(wanted, bounds)

    def times_of(table: pa.Table) -> Times:
        known = _microseconds(table[lookup.known_at].combine_chunks())
        if lookup.created_at is None:
            return Times(known, None, known)
        written = table[lookup.created_at].combine_chunks()
        # A row that does not say when it was written down counts from its event time on, after all that do say.
        created = _microseconds(pc.if_else(written.is_null(), pa.scalar(_LONG_AGO, _UTC), _instants(written)))
        return Times(known, created, known if lookup.as_corrected else np.maximum(known, created))

    def prepared() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            known = batch.column(lookup.known_at)
            yield batch.filter(known.is_valid()) if known.null_count else batch

    return newest_known(
        index,
        prepared(),
        sources,
        features,
        pa.schema([rows.schema.field(name) for name in features]),
        times_of,
        ttl,
    )


def _keys(column: pa.Array) -> pa.Array:
    kind = _key_type(column.type)
    return column if column.type == kind else column.cast(kind)


def _instants(column: pa.Array) -> pa.Array:
    """Times as instants in UTC: what has no time zone is taken for UTC, and a date for its midnight."""
    if getattr(column.type, "tz", None) is not None:
        return column.cast(_UTC, safe=False)
    return column.cast(pa.timestamp("us"), safe=False).view(_UTC)


def _microseconds(column: pa.Array) -> Integers:
    """Instants as microseconds since 1970; there is no null among them."""
    values: Integers = _instants(column).view(pa.int64()).to_numpy()
    return values


def _bounds(schema: pa.Schema, known_at: str, first: int | None, last: int | None) -> list[Condition]:
    """Bounds in microseconds, both included, for the files; none on times without a time zone, which can't be asked."""
    kind = schema.field(known_at).type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        return []
    bounds: list[Condition] = []
    if first is not None and first > _MIN:
        bounds.append((known_at, ">=", _EPOCH + timedelta(microseconds=first)))
    if last is not None:
        bounds.append((known_at, "<=", _EPOCH + timedelta(microseconds=last)))
    return bounds


def _schema(snapshot: Snapshot[Table], columns: Sequence[str]) -> pa.Schema:
    """The version's columns, once they are known to hold these; optional ones that it lacks are read as nulls."""
    stored = schema_of(snapshot.delta())
    if snapshot.row is not Table:
        declared = arrow_schema(snapshot.row.contract)
        stored = pa.schema([*stored, *(one for one in declared if one.nullable and one.name not in stored.names)])
    missing = [name for name in columns if name not in stored.names]
    if missing:
        raise OfflineSourceError.columns(snapshot.reference, missing)
    return stored


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb

    # Nothing is ever fetched from outside, and instants read the same whatever the machine's time zone.
    return duckdb.connect(
        config={
            "TimeZone": "UTC",
            "autoinstall_known_extensions": "false",
            "temp_directory": tempfile.gettempdir(),
            "memory_limit": _MEMORY_LIMIT,
        }
    )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(quote_name(column) for column in columns)
