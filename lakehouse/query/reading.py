"""How are a version's rows read? From its files, if these are plain Parquet, else by delta-rs's scan.

| the table | reader | pushed down |
| --- | --- | --- |
| plain: no feature changes what a file means | pyarrow over the log's files | columns, conditions, partitions |
| the same, but small, or asked for whole partitions of this machine | pyarrow, file by file | columns, partitions |
| column mapping, deletion vectors | delta-rs's ``scan`` | columns, conditions on whole numbers and dates |
| a feature that delta-rs does not know | none: UnreadableFeatureError | |

The files' own statistics prune row groups, the log's prune files. Neither is asked about floats: statistics leave NaN
out, and engines that trust them (delta-rs, DuckDB's Parquet reader) give wrong rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from datetime import date
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from lakehouse.errors import UnknownColumnError
from lakehouse.query.conditions import backquoted, expression, kept, spark_rows, sql
from lakehouse.snapshot import Condition, schema_of

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

# Reader features under which a data file still holds the rows as they are, with the columns' own names.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
# Spark writes timestamps as INT96; as nanoseconds, as delta-rs reads them, those before 1678 or after 2262 overflow.
_TIMES = {"coerce_int96_timestamp_unit": "us"}
# Numbers files among their partition values; no declared column can be called so.
_NUMBER = "__file"
#: Bytes up to which a plain version is read file by file: pyarrow's datasets load half a second of code (pandas too).
SMALL = 8 * 2**20
#: Files from which on it pays to ask the log which of them a condition leaves out.
_MANY_FILES = 8


def read(
    table: DeltaTable, columns: Sequence[str] | None, where: Sequence[Condition], absent: Sequence[pa.Field] = ()
) -> pa.Table:
    """The rows of an opened table.

    Args:
        table: opened at the version to read.
        columns: names to read, in this order; default all.
        where: conditions that all must hold.
        absent: optional columns that the version does not have; they are read as nulls.

    Raises:
        UnknownColumnError: a column that is not there.
    """
    _check_names(table, columns, where, absent)
    whole = _whole(table, columns, where, absent, large=True)
    if whole is not None:
        return whole
    found = dataset(table, where, absent)
    if found is None:
        return _scan(table, columns, where, absent).read_all()
    return found.to_table(columns=_chosen(columns, found), filter=expression(where, found.schema))


def stream(
    table: DeltaTable, columns: Sequence[str] | None, where: Sequence[Condition], absent: Sequence[pa.Field] = ()
) -> pa.RecordBatchReader:
    """Like ``read``, as a stream that is read once."""
    _check_names(table, columns, where, absent)
    whole = _whole(table, columns, where, absent)
    if whole is not None:
        return whole.to_reader()
    found = dataset(table, where, absent)
    if found is None:
        return _scan(table, columns, where, absent)
    return found.scanner(columns=_chosen(columns, found), filter=expression(where, found.schema)).to_reader()


def source(
    table: DeltaTable, columns: Sequence[str] | None, where: Sequence[Condition], absent: Sequence[pa.Field] = ()
) -> ds.Dataset | pa.RecordBatchReader:
    """What DuckDB may read: a dataset, into which it pushes its own filters, or else a stream that is read once."""
    _check_names(table, columns, where, absent)
    whole = _whole(table, columns, where, absent)
    if whole is not None:
        return whole.to_reader()
    found = dataset(table, where, absent)
    if found is None:
        return _scan(table, columns, where, absent)
    if columns is not None:  # a dataset shows what its schema names, and reads no more
        hidden = [name for name in dict.fromkeys(c[0] for c in where) if name not in columns]
        if hidden:
            return found.scanner(columns=list(columns), filter=expression(where, found.schema)).to_reader()
        found = found.replace_schema(pa.schema([found.schema.field(name) for name in columns]))
    condition = expression(where, found.schema)
    return found if condition is None else found.filter(condition)


def spark_frame(
    session: SparkSession,
    table: DeltaTable,
    columns: Sequence[str] | None,
    where: Sequence[Condition],
    absent: Sequence[pa.Field] = (),
) -> DataFrame:
    """The version as a Spark frame; Spark reads the files itself, and nothing is read before it is asked for rows."""
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_type

    _check_names(table, columns, where, absent)
    place = local_folder(table) or table.table_uri.rstrip("/")
    frame = session.read.format("delta").option("versionAsOf", table.version()).load(place)
    for field in absent:
        frame = frame.withColumn(field.name, F.lit(None).cast(from_arrow_type(field.type)))
    floating = {field.name for field in schema_of(table) if pa.types.is_floating(field.type)}
    frame = spark_rows(frame, where, floating)
    return frame.select(*(backquoted(name) for name in columns)) if columns is not None else frame


def dataset(
    table: DeltaTable, where: Sequence[Condition] = (), absent: Sequence[pa.Field] = ()
) -> ds.FileSystemDataset | None:
    """The files of a version as a pyarrow dataset, or None where only delta-rs can tell what they hold.

    The conditions leave out files that can't hold a matching row; the dataset's reader must still filter.
    """
    if _uses(table, "deletionVectors") and deletion_masks(table):
        return None
    found = fragments(table)
    if found is None:
        return None
    stored = schema_of(table)
    kept = _pruned(table, where, stored, found.keys())
    chosen = [fragment for path, fragment in found.items() if kept is None or path in kept]
    return dataset_of(table, chosen, absent)


def dataset_of(
    table: DeltaTable, files: Sequence[ds.ParquetFileFragment], absent: Sequence[pa.Field] = ()
) -> ds.FileSystemDataset:
    """Some of the ``fragments`` of a table as a dataset in the table's schema."""
    import pyarrow.dataset as ds

    schema = pa.schema([*schema_of(table), *absent])
    return ds.FileSystemDataset(files, schema, _file_format(table), file_system(table))


def fragments(table: DeltaTable) -> dict[str, ds.ParquetFileFragment] | None:
    """A version's files by path, with their partition values; None where they are not to be read by name.

    Rows that a deletion vector takes out are in them still.
    """
    import pyarrow.dataset as ds

    files = _files(table)
    if files is None:
        return None
    filesystem, file_format = file_system(table), _file_format(table)
    found = {}
    for path, values in files.items():
        guarantee = _all(
            ds.field(name) == value if value.is_valid else ds.field(name).is_null() for name, value in values.items()
        )
        found[path] = file_format.make_fragment(path, filesystem=filesystem, partition_expression=guarantee)
    return found


def _files(
    table: DeltaTable, actions: pa.Table | None = None, where: Sequence[Condition] = ()
) -> dict[str, dict[str, pa.Scalar]] | None:
    """Each file's partition values by path; None where a feature says that files don't hold the columns' names.

    Args:
        table: opened.
        actions: its files, if they are known.
        where: conditions on partition columns, which leave out files.
    """
    special = set(table.protocol().reader_features or ()) - _HARMLESS
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")  # may be allowed and not used
    if mapping != "none" or special - {"columnMapping", "deletionVectors"}:
        return None
    actions = _actions(table) if actions is None else actions
    paths = actions["path"].to_pylist()
    if any(":" in path.partition("/")[0] or path.startswith("/") for path in paths):  # a clone's, in another folder
        return None
    stored = schema_of(table)
    named = [name for name in actions.schema.names if name.startswith("partition.")]
    partitions = {name: actions[f"partition.{name}"] for name in (n.removeprefix("partition.") for n in named)}
    if any(pa.types.is_floating(column.type) or pa.types.is_binary(column.type) for column in partitions.values()):
        return None
    values = {name: column.cast(stored.field(name).type) for name, column in partitions.items()}
    chosen = range(len(paths))
    if where:
        numbered = pa.Table.from_pydict({**values, _NUMBER: pa.array(chosen)})
        chosen = kept(numbered, where)[_NUMBER].to_pylist()
    return {unquote(paths[n]): {name: column[n] for name, column in values.items()} for n in chosen}


def _whole(
    table: DeltaTable,
    columns: Sequence[str] | None,
    where: Sequence[Condition],
    absent: Sequence[pa.Field],
    *,
    large: bool = False,
) -> pa.Table | None:
    """A plain version's rows, file by file without pyarrow's datasets, which take two or three times as long.

    None where the version is not plain; and, as datasets leave out row groups and read many files of an object store
    at once, where it is not small, unless it is local and whole partitions are asked for (``large``).
    """
    import pyarrow.parquet as pq

    if _uses(table, "deletionVectors") and deletion_masks(table):
        return None
    partitions = table.metadata().partition_columns
    rest = [condition for condition in where if condition[0] not in partitions]
    actions = _actions(table)
    small = _is_small(actions)
    if not small and (rest or not large or local_folder(table) is None):
        return None
    files = _files(table, actions, [condition for condition in where if condition not in rest])
    if files is None:
        return None
    stored = schema_of(table)
    pruned = _pruned(table, rest, stored, files.keys()) if len(files) >= _MANY_FILES else None
    if pruned is not None:
        files = {path: values for path, values in files.items() if path in pruned}
    schema = pa.schema([*stored, *absent])
    chosen = list(columns) if columns is not None else schema.names
    needed = pa.schema([schema.field(name) for name in dict.fromkeys([*chosen, *(c[0] for c in rest)])])
    parts = [pa.Table.from_batches([], schema=needed)]
    filesystem = file_system(table)
    for path, values in files.items():
        with filesystem.open_input_file(path) as source, pq.ParquetFile(source, **_TIMES) as file:
            present = set(file.schema_arrow.names)  # made anew each time that it is asked
            inside = [name for name in needed.names if name in present and name not in values]
            found = file.read(columns=inside, use_threads=not small)
            rows = file.metadata.num_rows
        arrays = [
            found[field.name].cast(field.type)
            if field.name in inside
            else pa.chunked_array([pa.repeat(values.get(field.name, pa.scalar(None, field.type)), rows)])
            for field in needed
        ]
        parts.append(pa.Table.from_arrays(arrays, schema=needed))
    return kept(pa.concat_tables(parts), rest).select(chosen)


def deletion_masks(table: DeltaTable) -> dict[str, pa.BooleanArray]:
    """By path, which rows of a file still count, from its first; rows after the mask's end do."""
    if not _uses(table, "deletionVectors"):
        return {}
    base = unquote(table.table_uri.rstrip("/")) + "/"
    vectors = pa.RecordBatchReader.from_stream(table.deletion_vectors()).read_all()
    paths = [unquote(unquote(path)).removeprefix(unquote(base)) for path in vectors["filepath"].to_pylist()]
    by_plain_path = {unquote(unquote(path)): unquote(path) for path in _paths(table)}
    return {
        by_plain_path[path]: mask.values
        for path, mask in zip(paths, vectors["selection_vector"].combine_chunks(), strict=True)
    }


def is_small(table: DeltaTable) -> bool:
    """Whether the version's files are so few bytes that nothing is gained by leaving out some of them."""
    return _is_small(_actions(table))


def _is_small(actions: pa.Table) -> bool:
    return bool(sum(actions["size_bytes"].to_pylist()) <= SMALL)


def file_sizes(table: DeltaTable) -> dict[str, int]:
    """Bytes of each file of the version, by path."""
    actions = _actions(table)
    return dict(zip(map(unquote, actions["path"].to_pylist()), actions["size_bytes"].to_pylist(), strict=True))


def file_system(table: DeltaTable) -> pafs.FileSystem:
    """The table's folder or bucket, for pyarrow; paths are relative to the table."""
    folder = local_folder(table)
    if folder is not None:
        return pafs.SubTreeFileSystem(folder, pafs.LocalFileSystem())
    from deltalake.fs import DeltaStorageHandler

    return pafs.PyFileSystem(DeltaStorageHandler(table.table_uri))


def table_name(table: DeltaTable) -> str:
    """The last part of the table's place."""
    return unquote(table.table_uri.rstrip("/").rpartition("/")[2])


def local_folder(table: DeltaTable) -> str | None:
    """Path of the table's folder; None where it lies in an object store."""
    uri = table.table_uri
    if "://" not in uri:
        return uri.rstrip("/")
    return unquote(uri.removeprefix("file://")).rstrip("/") if uri.startswith("file://") else None


def _chosen(columns: Sequence[str] | None, found: ds.Dataset) -> list[str]:
    return list(columns) if columns is not None else found.schema.names


def _check_names(
    table: DeltaTable, columns: Sequence[str] | None, where: Sequence[Condition], absent: Sequence[pa.Field]
) -> None:
    known = [*schema_of(table).names, *(field.name for field in absent)]
    for name in (*(columns or ()), *(condition[0] for condition in where)):
        if name not in known:
            raise UnknownColumnError.named(table_name(table), name, known)


def _uses(table: DeltaTable, feature: str) -> bool:
    return feature in (table.protocol().reader_features or ())


def _actions(table: DeltaTable) -> pa.Table:
    """The log's entry of each file, asked once while a table is open at a version."""
    version, known = getattr(table, _KNOWN, (-1, None))
    if version != table.version():
        # ``pa.table`` would load pandas, to see whether this is one of its frames.
        known = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
        setattr(table, _KNOWN, (table.version(), known))
    return known


#: Where an opened table keeps what ``_actions`` has asked, and at which version.
_KNOWN = "_millrace_files"


def _paths(table: DeltaTable) -> list[str]:
    return cast("list[str]", _actions(table)["path"].to_pylist())


def _file_format(table: DeltaTable) -> ds.ParquetFileFormat:
    import pyarrow.dataset as ds

    return ds.ParquetFileFormat(
        read_options=ds.ParquetReadOptions(**_TIMES),
        # Whole row groups held in memory bring nothing where files are near.
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=local_folder(table) is None),
    )


def _pruned(table: DeltaTable, where: Sequence[Condition], schema: pa.Schema, paths: Set[str]) -> set[str] | None:
    """Paths of the files that may hold a matching row, by the log's statistics; None for all."""
    partitions = table.metadata().partition_columns  # the dataset sees to these by itself
    askable = [c for c in where if c[0] not in partitions and _by_statistics(c, schema)]
    if not askable:
        return None
    base = f"{local_folder(table) or table.table_uri.rstrip('/')}/"
    filters = cast("list[tuple[str, str, object]]", askable)
    kept = {uri.removeprefix(base) for uri in table.file_uris(file_pruning_predicate=filters)}
    return kept if kept <= paths else None


def _by_statistics(condition: Condition, schema: pa.Schema) -> bool:
    """Whether the log may be asked: not about floats, nor with values that stand for a null there."""
    name, sign, value = condition
    kind = schema.field(name).type if name in schema.names else None
    values = value if isinstance(value, (list, tuple)) else [value]
    return (
        sign != "!="
        and kind is not None
        and (pa.types.is_integer(kind) or pa.types.is_date(kind) or pa.types.is_string(kind))
        and bool(values)
        and all(type(item) in (int, date, str) and item != "" for item in values)
    )


def _scan(
    table: DeltaTable, columns: Sequence[str] | None, where: Sequence[Condition], absent: Sequence[pa.Field]
) -> pa.RecordBatchReader:
    """delta-rs's scan; what it can't be trusted with is filtered here."""
    stored = schema_of(table)
    whole = pa.schema([*stored, *absent])
    chosen = list(columns) if columns is not None else whole.names
    # Not texts either: of these the log keeps only the beginning, and delta-rs takes equal bounds for the value.
    pushed = [c for c in where if _by_statistics(c, stored) and not pa.types.is_string(stored.field(c[0]).type)]
    rest = [condition for condition in where if condition not in pushed]
    needed = [name for name in dict.fromkeys([*chosen, *(c[0] for c in rest)]) if name in stored.names]
    reader = pa.RecordBatchReader.from_stream(table.scan(columns=needed or stored.names[:1], predicate=sql(pushed)))
    schema = pa.schema([whole.field(name) for name in chosen])

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            rows = pa.Table.from_batches([batch])
            rows = rows.cast(pa.schema([whole.field(name) for name in rows.column_names]))
            for field in absent:
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
            yield from kept(rows, rest).select(chosen).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _all(expressions: Iterable[pc.Expression]) -> pc.Expression | None:
    found = None
    for one in expressions:
        found = one if found is None else found & one
    return found
