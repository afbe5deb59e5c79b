"""How do a person's rows leave a table's files? By a new version, twins of pinned versions, and deleted files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErasureError
from lakehouse.lake import Lakehouse
from lakehouse.privacy.log_statistics import forget_statistics
from lakehouse.query.files import TableFiles, stored_files, table_files
from lakehouse.query.reading import stream
from lakehouse.snapshot import open_delta, quote_name, schema_of
from lakehouse.storage import storage_of
from lakehouse.upkeep.acts import Act, conflicts_explained, publish_act, published, refuse_if_underway, settle
from lakehouse.upkeep.fates import fates, twin_uri, write_fates
from lakehouse.upkeep.vacuum import remove_files, remove_twin

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class Person:
    """Who is erased from one table.

    Attributes:
        columns: the columns that hold such values; of JSON text, the names inside it.
        value: what names the person, in the columns' own type.
    """

    columns: tuple[str, ...]
    value: int | str

    def mask(self, rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
        """Which rows are the person's; a column that these rows do not have names nobody."""
        found = pa.array([False] * rows.num_rows)
        for name in self.columns:
            if name in rows.schema.names:
                column = rows.column(name)
                column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
                if pa.types.is_integer(column.type) and isinstance(self.value, int):
                    same = pc.equal(column, self.value)
                else:  # as it came: a number may be text, and text padded
                    same = pa.array([self.is_named_by(value) for value in column.to_pylist()], pa.bool_())
                found = pc.or_(found, pc.fill_null(same, False))
        return found

    def is_named_by(self, value: object) -> bool:
        """Whether a value of unknown type, such as one that came in JSON, names the person."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value is not None and not isinstance(value, bool) and str(value).strip() == str(self.value)

    def is_in(self, text: str | None) -> bool:
        """Whether a JSON text says, at any depth, that one of the columns is the person."""
        if not text or str(self.value) not in text:
            return False
        try:
            return self._is_in(json.loads(text))
        except ValueError:
            return True  # not JSON, and the value is in it: rather one line too many

    def _is_in(self, document: object) -> bool:
        if isinstance(document, dict):
            return any(
                (name in self.columns and self.is_named_by(value)) or self._is_in(value)
                for name, value in document.items()
            )
        return isinstance(document, list) and any(self._is_in(item) for item in document)


#: Rows that are held in memory while a twin is written.
_PORTION = 500_000

#: Which rows of a file's columns are the person's.
Match = Callable[[pa.Table], pa.ChunkedArray | pa.Array]


@dataclass(frozen=True)
class Traces:
    """Where a person stands in one table's folder.

    Attributes:
        files: the table's files by version.
        marked: paths of the Parquet files that hold rows of the person, of whatever version or none.
    """

    files: TableFiles
    marked: frozenset[str]

    @property
    def current(self) -> frozenset[str]:
        """Those that the newest version needs."""
        return self.marked & self.files.needed([self.files.newest])

    @property
    def versions(self) -> set[int]:
        """The versions that hold the person's rows."""
        return self.files.versions_with(set(self.marked))


def traces(uri: str, columns: tuple[str, ...], match: Match) -> Traces:
    """Look into every Parquet file of a table's folder, unfinished ones and change data too."""
    _refuse_unsuitable(uri, columns)
    files = table_files(uri)
    paths = [path for path in stored_files(uri) if path.endswith(".parquet")]
    return Traces(files, frozenset(path for path in paths if holds(uri, path, columns, match)))


def holds(uri: str, path: str, columns: tuple[str, ...], match: Match) -> bool:
    """Whether a Parquet file has a row that matches; its row groups are read one by one."""
    with ExitStack() as stack:
        file: BinaryIO
        if "://" in uri:
            file = io.BytesIO(storage_of(uri).read(path))
        else:
            file = stack.enter_context(Path(uri, path).open("rb"))
        parquet = pq.ParquetFile(file)
        present = [name for name in columns if name in parquet.schema_arrow.names]
        return bool(present) and any(
            pc.any(match(parquet.read_row_group(group, columns=present))).as_py()
            for group in range(parquet.num_row_groups)
        )


def count(uri: str, person: Person, version: int) -> int:
    """The person's rows in one version."""
    batches = stream(open_delta(uri, version), list(person.columns), [])
    return sum(pc.sum(person.mask(batch)).as_py() or 0 for batch in batches)


def delete_from_newest(lake: Lakehouse, name: str, person: Person) -> None:
    """Publish a version without the person, if the newest one or the one that readers get holds any row of theirs.

    Delta's log keeps a DELETE's condition for good; a merge with the person as its only source row leaves no trace of
    who it was.
    """
    publications = settle(lake, name)
    uri = lake.uri(name)
    table = open_delta(uri)
    if any(p.published for p in publications):
        latest = published(publications, name)
        if latest.version != table.version():
            refuse_if_underway(lake, name, publications)
            if _is_marked(uri, person, latest.version) or _is_marked(uri, person, table.version()):
                with conflicts_explained(name):  # nothing is built on what was not published
                    table.restore(latest.version)
        if _is_marked(uri, person, table.version()):
            act = Act(kind="erase", parent=latest.version)
            with conflicts_explained(name):
                _merge_away(table, person, act)
            publish_act(lake, name, table.version(), act)
    elif _is_marked(uri, person, table.version()):
        with conflicts_explained(name):
            _merge_away(table, person, None)


def remove_traces(uri: str, columns: tuple[str, ...], match: Match, pinned: set[int]) -> None:
    """Give each pinned version that holds the person a redacted twin, and delete every file that does.

    The newest version must be free of them already. Readers learn of twins and lost versions before a file goes.
    """
    found = traces(uri, columns, match)
    name = uri.rpartition("/")[2]
    if found.current:
        raise ErasureError.remains(name, sorted(found.current))
    known = fates(uri)
    marked_twins = {
        version: twin for version, twin in known.twins.items() if traces(twin_uri(uri, twin), columns, match).marked
    }
    held = {v for v in found.versions if not known.is_removed(v)}
    twins = {}
    for version in sorted({*(held & pinned) - known.twins.keys(), *marked_twins}):
        before = known.twins.get(version, f"{version}-0")
        twins[version] = f"{version}-{int(before.partition('-')[2]) + 1}"
        _write_twin(uri, version, twins[version], match)
    lost = held - pinned - known.twins.keys()
    if twins or lost:
        write_fates(uri, known.without(lost).with_twins(twins))
    forget_statistics(uri, found.marked)  # before the files go, which tell whose they are
    remove_files(uri, found.marked)
    for twin in marked_twins.values():
        remove_twin(uri, twin)


def _write_twin(uri: str, version: int, twin: str, match: Match) -> None:
    """A table of its own with the version's rows but the person's; half of one from before a kill is written anew."""
    from deltalake import DeltaTable, write_deltalake

    source = open_delta(uri, version)
    place = twin_uri(uri, twin)
    remove_twin(uri, twin)
    metadata = source.metadata()
    DeltaTable.create(
        place,
        source.schema(),
        partition_by=metadata.partition_columns,
        name=metadata.name,
        description=f"{metadata.description or ''} (version {version}, redacted)".strip(),
    )
    # In portions: delta-rs can't read one table from within the writing of another.
    waiting: list[pa.RecordBatch] = []
    for batch in stream(source, None, []):
        waiting.append(batch.filter(pc.invert(match(pa.Table.from_batches([batch])))))
        if sum(rows.num_rows for rows in waiting) >= _PORTION:
            write_deltalake(place, pa.Table.from_batches(waiting), mode="append")
            waiting = []
    if any(rows.num_rows for rows in waiting):
        write_deltalake(place, pa.Table.from_batches(waiting), mode="append")


def _merge_away(table: DeltaTable, person: Person, act: Act | None) -> None:
    types = {field.name: field.type for field in schema_of(table)}
    source = pa.table({"value": pa.array([person.value], types[person.columns[0]])})
    merge = table.merge(
        source,
        predicate=" OR ".join(f"stored.{quote_name(name)} = erased.value" for name in person.columns),
        source_alias="erased",
        target_alias="stored",
        commit_properties=act.commit_properties() if act else None,
    )
    merge.when_matched_delete().execute()


def _is_marked(uri: str, person: Person, version: int) -> bool:
    return count(uri, person, version) > 0


def _refuse_unsuitable(uri: str, columns: tuple[str, ...]) -> None:
    """ErasureError for a table in whose files a person can't be looked for by the columns' names."""
    metadata = open_delta(uri).metadata()
    name = uri.rpartition("/")[2]
    if metadata.configuration.get("delta.columnMapping.mode", "none") != "none":
        raise ErasureError.mapped(name)
    for column in columns:
        if column in metadata.partition_columns:
            raise ErasureError.partitioned(name, column)
