"""What changed between two versions of a table? Rows added, removed and changed, and columns.

Only files that one version has and the other lacks are read, and of a file in both only the rows whose deletion marks
differ. (With column mapping both versions are read whole.) A MERGE that changes a row rewrites the row's file: where
the table keeps a change data feed, and that is fewer bytes, the feed is read instead (docs/adr/0012-diff.md). Rows are
matched by the row model's key, else as equal or not. DuckDB does it, in bounded memory: what doesn't fit goes to a
temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.table import Table
from lakehouse.errors import DiffError
from lakehouse.query import feed, reading
from lakehouse.snapshot import Snapshot, quote_name, schema_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

#: What the engine may hold in memory; more goes to a temporary folder.
MEMORY = "1GB"


@dataclass(frozen=True)
class RowChange:
    """One row that is not in both versions as it is.

    Attributes:
        kind: what happened to it.
        before: its values in the first version; None if it was added.
        after: its values in the second one; None if it was removed.
        columns: of a changed row, the columns that differ.
    """

    kind: Literal["added", "removed", "changed"]
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ColumnChange:
    """One column that only one version has, or whose type differs.

    Attributes:
        column: its name.
        before: its type in the first version; None if it is new.
        after: its type in the second one; None if it is gone.
    """

    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class DiffCounts:
    """How many rows were added, removed and changed."""

    added: int
    removed: int
    changed: int

    @property
    def total(self) -> int:
        return self.added + self.removed + self.changed


class Diff:
    """The difference of two versions of one table; nothing is read before it is asked for.

    Args:
        before: the first version.
        after: the second one; it may be the older.
        key: columns that tell rows apart; default the row model's key. Without one, a changed row is one removed and
            one added. Where several rows share a key, equal ones are matched first.

    Raises:
        DiffError: the snapshots are of two tables, or a key column is missing.
    """

    def __init__(self, before: Snapshot[Table], after: Snapshot[Table], key: Sequence[str] | None = None) -> None:
        if before.uri != after.uri:
            raise DiffError.of_two_tables(before.reference, after.reference)
        self.before = before
        self.after = after
        declared = next((s.row.contract.key for s in (after, before) if s.row is not Table), ())
        self.key = tuple(declared if key is None else key)
        self._schemas = [schema_of(snapshot.delta()) for snapshot in (before, after)]
        missing = [name for name in self.key if any(name not in schema.names for schema in self._schemas)]
        if missing:
            raise DiffError.without_key(before.name, missing)

    @cached_property
    def columns(self) -> tuple[ColumnChange, ...]:
        """What changed in the schema, in the order of the columns."""
        one, two = ({field.name: str(field.type) for field in schema} for schema in self._schemas)
        return tuple(
            ColumnChange(name, one.get(name), two.get(name))
            for name in dict.fromkeys([*one, *two])
            if one.get(name) != two.get(name)
        )

    def counts(self) -> DiffCounts:
        """How many rows changed in which way."""
        with self._changes() as relation:
            found = dict(relation.aggregate("kind, count(*)").fetchall())
        return DiffCounts(found.get("added", 0), found.get("removed", 0), found.get("changed", 0))

    def rows(self, limit: int | None = None) -> Iterator[RowChange]:
        """The rows that changed, ordered by key, at most ``limit``; a column whose type changed is given as text."""
        from lakehouse.contracts.arrow import records

        for batch in self.arrow(limit):
            for record in records(pa.Table.from_batches([batch])):
                yield self._row_change(record)

    def arrow(self, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Batches with ``kind``, and of each column ``x`` what it was and is, as ``before.x`` and ``after.x``."""
        with self._changes() as changes:
            reader = (changes if limit is None else changes.limit(limit)).to_arrow_reader(10_000)
            names = ["kind", *(f"{side}.{name}" for side in ("before", "after") for name in self._names)]
            for batch in reader:
                yield batch.rename_columns(names)

    @cached_property
    def files(self) -> int:
        """How many files must be read, both versions' together, or those of the feed."""
        found = self._feed
        return found.files if found is not None else sum(len(side.paths) for side in self._sides)

    @cached_property
    def _feed(self) -> feed.Feed | None:
        """The table's own record of the changes, where it has one that is fewer bytes to read than the files."""
        if self._schemas[0] != self._schemas[1]:
            return None
        found = feed.between(self.before, self.after)
        return found if found is not None and found.bytes < sum(side.bytes for side in self._sides) else None

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for schema in self._schemas for name in schema.names))

    def _row_change(self, record: Mapping[str, object]) -> RowChange:
        sides = [{name: record[f"{side}.{name}"] for name in self._names} for side in ("before", "after")]
        kind = record["kind"]
        if kind == "added":
            return RowChange("added", None, sides[1], ())
        if kind == "removed":
            return RowChange("removed", sides[0], None, ())
        differing = tuple(name for name in self._names if not _same(sides[0][name], sides[1][name]))
        return RowChange("changed", sides[0], sides[1], differing)

    @cached_property
    def _sides(self) -> tuple[_Side, _Side]:
        one, two = self.before.delta(), self.after.delta()
        files = [reading.fragments(table) or {} for table in (one, two)]
        if not all(files) or one.table_uri != two.table_uri:  # a redacted twin lies elsewhere
            return _Side(self.before, one, None), _Side(self.after, two, None)
        masks = [reading.deletion_masks(table) for table in (one, two)]
        chosen: list[dict[str, _Rows]] = [{}, {}]
        for mine, other in ((0, 1), (1, 0)):
            for path, fragment in files[mine].items():
                if path not in files[other]:
                    chosen[mine][path] = _Rows(fragment, masks[mine].get(path), None)
                elif not _same_mask(masks[mine].get(path), masks[other].get(path)):
                    others = masks[other].get(path, pa.array([], pa.bool_()))
                    chosen[mine][path] = _Rows(fragment, masks[mine].get(path), others)
        return _Side(self.before, one, chosen[0]), _Side(self.after, two, chosen[1])

    @contextmanager
    def _changes(self) -> Iterator[duckdb.DuckDBPyRelation]:
        import duckdb

        with tempfile.TemporaryDirectory(prefix="millrace-diff-") as folder, duckdb.connect(":memory:") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET memory_limit = '{MEMORY}'")
            connection.execute("SET temp_directory = $folder", {"folder": folder})
            if self._feed is None or not self._load_feed(connection, self._feed):
                for name, side in zip(("before", "after"), self._sides, strict=True):
                    self._load(connection, name, side)
            yield connection.sql(self._statement(connection))

    def _load_feed(self, connection: duckdb.DuckDBPyConnection, found: feed.Feed) -> bool:
        """Write what the feed says was there and is no more, and what came; False if a file of it is gone.

        As often as a row went and came again in between, it is on both sides, and counts for nothing.
        """
        import duckdb
        from deltalake.exceptions import DeltaError

        columns = ", ".join(f"{quote_name(name)} AS c{number}" for number, name in enumerate(self._names))
        try:
            connection.register("rows_of_it", found.reader())
            connection.execute(f"CREATE TABLE feed AS SELECT {columns}, {feed.GONE} AS gone FROM rows_of_it")  # noqa: S608
        except (duckdb.Error, DeltaError, OSError):  # vacuum keeps the feed of kept versions alone
            return False
        for name, condition in (("before", "gone"), ("after", "NOT gone")):
            connection.execute(f"CREATE VIEW {name} AS SELECT * EXCLUDE (gone) FROM feed WHERE {condition}")  # noqa: S608
        return True

    def _load(self, connection: duckdb.DuckDBPyConnection, name: str, side: _Side) -> None:
        """Write one side's rows into a table with the columns c0, c1, … of both versions."""
        retyped = {change.column for change in self.columns if change.before and change.after}
        types = {field.name: field.type for schema in self._schemas for field in schema}
        schema = pa.schema([(f"c{number}", types[column]) for number, column in enumerate(self._names)])
        own = schema_of(side.table)
        stored = pa.schema(
            [field.with_type(own.field(column).type) if column in own.names else field
             for field, column in zip(schema, self._names, strict=True)]
        )  # fmt: skip

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in side.batches():
                arrays = [
                    batch.column(column) if column in own.names else pa.nulls(batch.num_rows, types[column])
                    for column in self._names
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=stored)

        connection.register("rows_of_it", pa.RecordBatchReader.from_batches(stored, batches()))
        columns = ", ".join(
            f"CAST(c{number} AS VARCHAR) AS c{number}" if column in retyped else f"c{number}"
            for number, column in enumerate(self._names)
        )
        connection.execute(f"CREATE TABLE {name} AS SELECT {columns} FROM rows_of_it")  # noqa: S608
        connection.unregister("rows_of_it")

    def _statement(self, connection: duckdb.DuckDBPyConnection) -> str:
        """SQL for the changes; its names are all made here."""
        keys = [f"c{self._names.index(name)}" for name in self.key]
        every = [f"c{number}" for number in range(len(self._names))]
        group = ", ".join(keys)
        repeated = f"SELECT 1 FROM {{}} GROUP BY {group} HAVING count(*) > 1 LIMIT 1"  # noqa: S608
        left, right = "before", "after"
        if keys and not any(connection.execute(repeated.format(side)).fetchall() for side in (left, right)):
            place = "0"
        else:
            place = f"row_number() OVER (PARTITION BY {group})" if keys else "0"
            left, right = "(FROM before EXCEPT ALL FROM after)", "(FROM after EXCEPT ALL FROM before)"
        same = [f"b.{name} IS NOT DISTINCT FROM a.{name}" for name in keys]
        differs = " OR ".join(f"b.{name} IS DISTINCT FROM a.{name}" for name in every)
        shown = ", ".join([f"b.{name} AS b{name}" for name in every] + [f"a.{name} AS a{name}" for name in every])
        condition = " AND ".join([*same, "b.place = a.place"]) if keys else "false"
        order = f" ORDER BY {', '.join(f'coalesce(b.{name}, a.{name})' for name in keys)}" if keys else ""
        return f"""
            SELECT CASE WHEN b.place IS NULL THEN 'added' WHEN a.place IS NULL THEN 'removed' ELSE 'changed' END kind,
                   {shown}
            FROM (SELECT *, {place} AS place FROM {left}) b
            FULL JOIN (SELECT *, {place} AS place FROM {right}) a ON {condition}
            WHERE b.place IS NULL OR a.place IS NULL OR {differs}{order}
        """  # noqa: S608


@dataclass(frozen=True)
class _Rows:
    """The rows of a file that one version has and the other lacks: those it keeps and the other does not."""

    fragment: ds.ParquetFileFragment
    kept: pa.BooleanArray | None
    kept_by_other: pa.BooleanArray | None

    def batches(self, file: ds.Dataset) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in file.scanner(use_threads=False).to_reader():
            mine = _cut(self.kept, start, batch.num_rows)
            if self.kept_by_other is not None:
                mine = pc.and_not(mine, _cut(self.kept_by_other, start, batch.num_rows))
            start += batch.num_rows
            yield batch.filter(mine)


@dataclass(frozen=True)
class _Side:
    """What one version has that the other may lack; all of it where files are not to be compared."""

    snapshot: Snapshot[Table]
    table: DeltaTable
    rows: Mapping[str, _Rows] | None

    @property
    def paths(self) -> list[str]:
        return list(self.rows) if self.rows is not None else [str(uri) for uri in self.table.file_uris()]

    @property
    def bytes(self) -> int:
        """What must be read; of a file in both versions all of it."""
        sizes = reading.file_sizes(self.table)
        return sum(sizes.values()) if self.rows is None else sum(sizes[path] for path in self.rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        if self.rows is None:
            yield from Snapshot.of(self.table, self.snapshot.uri, Table).scan()
            return
        with Snapshot.of(self.table, self.snapshot.uri, Table).reading():
            for rows in self.rows.values():
                yield from rows.batches(reading.dataset_of(self.table, [rows.fragment]))


def _cut(mask: pa.BooleanArray | None, start: int, rows: int) -> pa.BooleanArray:
    """A mask's part; what lies behind its end is kept."""
    part = pa.array([], pa.bool_()) if mask is None else mask.slice(start, rows)
    return pa.concat_arrays([part, pa.repeat(pa.scalar(True), rows - len(part))])


def _same_mask(one: pa.BooleanArray | None, two: pa.BooleanArray | None) -> bool:
    length = max(len(one or ()), len(two or ()))
    return bool(_cut(one, 0, length).equals(_cut(two, 0, length)))


def _same(one: object, two: object) -> bool:
    """Equal, where NaN is equal to itself."""
    return bool(one == two or (one != one and two != two))
