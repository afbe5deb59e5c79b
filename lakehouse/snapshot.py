"""What is a table at one version? A Snapshot: small, immutable, and readable into any engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

from lakehouse.contracts.table import Table
from lakehouse.errors import ContractMismatchError, MillraceError, UnknownVersionError
from lakehouse.upkeep.fates import fates, twin_uri

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

    from lakehouse.query.diff import Diff

Row = TypeVar("Row", bound=Table, covariant=True)
Value = int | float | str | bool | date | datetime
#: One condition of a filter; the conditions of a list must all hold.
Condition = tuple[str, Literal["=", "!=", "<", "<=", ">", ">=", "in"], Value | Sequence[Value]]


@dataclass(frozen=True)
class Snapshot(Generic[Row]):
    """A table at one version.

    Attributes:
        uri: the Delta table's folder.
        version: its Delta version.
        row: the row model; ``Table`` itself where the table is not declared in this process.
    """

    uri: str
    version: int
    row: type[Row] = field(default=cast("type[Row]", Table), compare=False)

    @property
    def name(self) -> str:
        return Path(self.uri).name

    @property
    def reference(self) -> str:
        """``name@version``, as reports and the ledger write it."""
        return f"{self.name}@{self.version}"

    def __str__(self) -> str:
        return self.reference

    @cached_property
    def table_id(self) -> str:
        """The Delta table's own id: two lakes never share one, whatever their paths."""
        return str(self._table.metadata().id)

    @property
    def redacted(self) -> bool:
        """Whether a twin stands in for the version, without the people who were erased."""
        return self.version in fates(self.uri).twins

    @classmethod
    def of(cls, table: DeltaTable, uri: str, row: type[Row]) -> Snapshot[Row]:
        """The snapshot of a table that is open already, at the version it is open at."""
        snapshot = cls(uri, table.version(), row)
        snapshot.__dict__["_table"] = table
        return snapshot

    def as_stored(self) -> Snapshot[Table]:
        """The same version without its row model: as it stands, also from before the contract changed."""
        plain = Snapshot(self.uri, self.version, Table)
        if "_table" in self.__dict__:
            plain.__dict__["_table"] = self._table
        return plain

    def open(self) -> None:
        """Open the version for reading; UnknownVersionError if it is not there."""
        _ = self._table

    def delta(self) -> DeltaTable:
        """The delta-rs table opened at this version; UnknownVersionError if it can't be."""
        return open_delta(self.uri, self.version)

    def arrow(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> pa.Table:
        """Rows as an Arrow table; columns and conditions are pushed down to the files.

        Args:
            columns: names to read, in this order; default all.
            where: conditions that all must hold; a null fulfils none, NaN only ``!=``.

        Raises:
            ContractMismatchError: the version is not what the row model declares; an optional column that it lacks
                is read as nulls.
            UnreadableFeatureError: the table uses a feature that only Spark can read here.
            StorageError: a file is damaged or gone; it names the file.
        """
        from lakehouse.query.reading import read

        with self.reading():
            return read(self._table, columns, where, self._absent)

    def scan(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> pa.RecordBatchReader:
        """Like ``arrow``, as a stream of record batches that is read once."""
        import pyarrow as pa

        from lakehouse.query.reading import stream

        with self.reading():
            reader = stream(self._table, columns, where, self._absent)

        def batches() -> Iterator[pa.RecordBatch]:
            with self.reading():
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def polars(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> polars.DataFrame:
        """Rows as a Polars frame."""
        import polars

        return cast("polars.DataFrame", polars.from_arrow(self.arrow(columns, where)))

    def pandas(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> pandas.DataFrame:
        """Rows as a pandas frame; whole numbers with nulls become floats, as pandas has it."""
        return cast("pandas.DataFrame", self.arrow(columns, where).to_pandas())

    def source(self) -> ds.Dataset | None:
        """What DuckDB can push columns and filters into; None where the version must be streamed (``scan``)."""
        from lakehouse.query.reading import dataset, is_small

        with self.reading():
            return None if is_small(self._table) else dataset(self._table, absent=self._absent)

    def duckdb(
        self,
        connection: duckdb.DuckDBPyConnection,
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
    ) -> duckdb.DuckDBPyRelation:
        """Rows as a relation of a DuckDB connection, read when it is asked; its own filters are pushed down too."""
        from lakehouse.query.reading import source

        with self.reading():
            return connection.from_arrow(source(self._table, columns, where, self._absent))

    def spark(
        self, session: SparkSession, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()
    ) -> DataFrame:
        """Rows as a frame of a Spark session, pinned to this version."""
        from lakehouse.query.reading import spark_frame

        with self.reading():
            return spark_frame(session, self._table, columns, where, self._absent)

    def rows(self) -> Iterator[Row]:
        """Rows as validated instances of the row model."""
        from lakehouse.contracts.arrow import records

        for record in records(self.arrow()):
            yield self.row.model_validate(record)

    def count(self) -> int:
        """Number of rows, from the log's statistics where it has them."""
        with self.reading():
            return int(self._table.count())

    def diff(self, other: Snapshot[Table]) -> Diff:
        """What changed from this version to another of the same table: rows and columns."""
        from lakehouse.query.diff import Diff

        return Diff(self, other)

    def columns(self) -> list[str]:
        """Names of the columns that the version has, whatever its row model declares."""
        return list(schema_of(self._table).names)

    def absent(self) -> list[str]:
        """Optional columns that are declared and that the version does not have; they are read as nulls.

        Raises:
            ContractMismatchError: the version is not what the row model declares.
        """
        return [field.name for field in self._absent]

    @cached_property
    def _table(self) -> DeltaTable:
        """Opened once, for reading alone: ``delta()`` gives callers one that they may change."""
        return self.delta()

    @cached_property
    def _absent(self) -> list[pa.Field]:
        """Optional columns that the row model declares and the version does not have yet."""
        if self.row is Table:
            return []
        from lakehouse.contracts.arrow import arrow_schema
        from lakehouse.contracts.differences import same_type

        stored = schema_of(self._table)
        differences = []
        absent = []
        for column in arrow_schema(self.row.contract):
            if column.name in stored.names:
                kind = stored.field(column.name).type
                if not same_type(kind, column.type):
                    differences.append(f"column {column.name} is declared {column.type} but stored as {kind}")
            elif column.nullable:
                absent.append(column.remove_metadata())
            else:
                differences.append(f"column {column.name} is declared {column.type} but missing")
        if differences:
            raise ContractMismatchError.between(self.name, self.version, differences)
        return absent

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What the reading engine raises, as a StorageError that names the version and the file."""
        try:
            yield
        except (MillraceError, KeyError, GeneratorExit):
            raise
        except Exception as error:
            raise self.fault(error) from error

    def fault(self, error: Exception) -> MillraceError:
        """What a reading engine raised, as an error that names the version and the file at fault."""
        from lakehouse.query.damage import unreadable

        return unreadable(self.reference, self._table, error)

    def __getstate__(self) -> dict[str, object]:
        """What travels to another process: not the opened table."""
        return {"uri": self.uri, "version": self.version, "row": self.row}


_FAR = 10_000


def schema_of(table: DeltaTable) -> pa.Schema:
    """A delta-rs table's schema as a pyarrow schema."""
    import pyarrow as pa

    return pa.schema(table.schema().to_arrow())


def open_delta(uri: str, version: int | None = None) -> DeltaTable:
    """Open a Delta table, at its newest version by default; typed errors for what is not there."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    name = Path(uri).name
    try:
        if version is not None:
            known = fates(uri)
            if known.is_removed(version):
                raise UnknownVersionError.vacuumed(name, version)
            if version in known.twins:
                return DeltaTable(twin_uri(uri, known.twins[version]))
        # delta-rs looks for a version that is not there one by one, up to it.
        if version is not None and version > _FAR and version > DeltaTable(uri).version():
            raise OverflowError
        return DeltaTable(uri, version=version)
    except (DeltaError, OSError, OverflowError) as error:
        from lakehouse.query.damage import unopened

        raise unopened(uri, version, error) from error


def quote_name(name: str) -> str:
    """An identifier for SQL, quoted."""
    return '"' + name.replace('"', '""') + '"'
