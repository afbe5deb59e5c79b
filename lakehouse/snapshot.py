"""What is a table at one version? A Snapshot: small, immutable, and readable into any engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

from lakehouse.errors import ContractMismatchError, MillraceError, StorageError, UnknownVersionError, first_line
from lakehouse.table import Table

if TYPE_CHECKING:
    import polars
    import pyarrow as pa
    from deltalake import DeltaTable

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
        return str(self.delta().metadata().id)

    def delta(self) -> DeltaTable:
        """The delta-rs table opened at this version; UnknownVersionError if it can't be."""
        return open_delta(self.uri, self.version)

    def arrow(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> pa.Table:
        """Rows as an Arrow table; columns and conditions are pushed down to the files.

        Args:
            columns: names to read, in this order; default all.
            where: conditions that all must hold.
        """
        with self._reading():
            return self.scan(columns, where).read_all()

    def scan(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> pa.RecordBatchReader:
        """Like ``arrow``, as a stream of record batches that is read once."""
        import pyarrow as pa

        table = self.delta()
        self._check_contract(table)
        predicate = " AND ".join(_condition_sql(condition) for condition in where) or None
        with self._reading():
            reader = table.scan(columns=list(columns) if columns is not None else None, predicate=predicate)
            return pa.RecordBatchReader.from_stream(reader)

    def polars(self, columns: Sequence[str] | None = None, where: Sequence[Condition] = ()) -> polars.DataFrame:
        """Rows as a Polars frame."""
        import polars

        return cast("polars.DataFrame", polars.from_arrow(self.arrow(columns, where)))

    def rows(self) -> Iterator[Row]:
        """Rows as validated instances of the row model."""
        from lakehouse.arrow import records

        for record in records(self.arrow()):
            yield self.row.model_validate(record)

    def count(self) -> int:
        """Number of rows, from the log's statistics where it has them."""
        return int(self.delta().count())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What the reading engine raises, as a StorageError that names the version."""
        try:
            yield
        except MillraceError:
            raise
        except Exception as error:
            raise StorageError(
                f"{self.reference} can't be read: {first_line(error)}.",
                fix="A file of the table is damaged or gone; restore it or read another version.",
            ) from error

    def _check_contract(self, table: DeltaTable) -> None:
        if self.row is Table:
            return
        from lakehouse.arrow import arrow_schema

        stored = schema_of(table)
        declared = arrow_schema(self.row.contract)
        differences = [
            f"column {column.name} is declared {column.type} but "
            + (f"stored as {stored.field(column.name).type}" if column.name in stored.names else "missing")
            for column in declared
            if column.name not in stored.names or not _same_type(stored.field(column.name).type, column.type)
        ]
        if differences:
            raise ContractMismatchError.between(self.name, self.version, differences)


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
        # delta-rs looks for a version that is not there one by one, up to it.
        if version is not None and version > _FAR and version > DeltaTable(uri).version():
            raise OverflowError
        return DeltaTable(uri, version=version)
    except (DeltaError, OSError, OverflowError) as error:
        if version is None or not DeltaTable.is_deltatable(uri):
            raise StorageError(
                f"Table {name!r} can't be opened: {first_line(error)}.",
                fix="Check that its folder is there and readable.",
            ) from error
        try:
            latest = DeltaTable(uri).version()
        except (DeltaError, OSError) as damage:
            raise StorageError(
                f"The log of table {name!r} can't be read: {first_line(damage)}.",
                fix="A file of its _delta_log folder is damaged or gone; restore it.",
            ) from damage
        if version > latest or version < 0:
            raise UnknownVersionError.numbered(name, version, latest) from None
        raise UnknownVersionError.vacuumed(name, version) from error


def quote_name(name: str) -> str:
    """An identifier for SQL, quoted."""
    return '"' + name.replace('"', '""') + '"'


def _condition_sql(condition: Condition) -> str:
    column, operator, value = condition
    if operator == "in":
        assert isinstance(value, Sequence) and not isinstance(value, str)
        return f"{quote_name(column)} IN ({', '.join(_literal_sql(item) for item in value)})" if value else "false"
    return f"{quote_name(column)} {operator} {_literal_sql(cast(Value, value))}"


def _literal_sql(value: Value) -> str:
    """A value as a literal of delta-rs's SQL dialect (DataFusion)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return f"arrow_cast('{value}', 'Float64')"  # a bare inf would be a column's name
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, datetime):
        utc = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        return f"arrow_cast('{utc}Z', 'Timestamp(Microsecond, Some(\"UTC\"))')"
    if isinstance(value, date):
        return f"arrow_cast('{value.isoformat()}', 'Date32')"
    return "'" + value.replace("'", "''") + "'"


def _same_type(stored: pa.DataType, declared: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_list(stored) and pa.types.is_list(declared):
        return _same_type(stored.value_type, declared.value_type)
    return bool(stored == declared)
