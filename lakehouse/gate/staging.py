"""How does a batch wait at the gate? As a file of the rows as they came, under an id that names it for good."""

from __future__ import annotations

import hashlib
import io
import re
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.arrow import as_type
from lakehouse.contracts.table import Table
from lakehouse.errors import BatchConflictError, ContractError, StorageError, first_line
from lakehouse.lake import Lakehouse

#: Column of a staged file that numbers the rows as they came.
ROW_NUMBER = "__row"

_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Batch(BaseModel):
    """Rows that wait to be published.

    Attributes:
        lake_id: the lake they wait in.
        table: the table they are for.
        batch_id: the batch's own id; staging or publishing it again changes nothing.
        day: the day (UTC) whose end the batch brings the table to.
        path: the staged file (Parquet), relative to the lake's root.
        rows: rows as they came.
        digest: SHA-256 of the file.
    """

    model_config = ConfigDict(frozen=True)

    lake_id: str
    table: str
    batch_id: str
    day: date
    path: str
    rows: int
    digest: str


def stage(lake: Lakehouse, row_model: type[Table], rows: pa.Table, *, batch_id: str, day: date) -> Batch:
    """Write a batch as it came, whatever its columns and types, so that no row is lost if judging it fails.

    Raises:
        BatchConflictError: the batch id already stands for other rows.
        StorageError: the file can't be written.
    """
    name = row_model.contract.table
    key = _key(name, batch_id)
    known = _let_go(lake, name, batch_id)
    numbered = _readable(rows).append_column(ROW_NUMBER, pa.array(range(rows.num_rows), pa.int64()))
    # Encoded here and written by plain file calls: a full disk is then an OSError with its own words.
    buffer = io.BytesIO()
    # Spark 3.5 reads no nanoseconds.
    pq.write_table(numbered, buffer, coerce_timestamps="us", allow_truncated_timestamps=True)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    if known is not None:
        if known.digest != digest:
            raise BatchConflictError.differs(name, batch_id, known.digest, digest)
        if not known.wanted(lake, name, batch_id):
            return _batch(lake, name, batch_id, day, key, known.rows_left(lake, key), digest)
    try:
        if not lake.storage.write(key, content):
            stored = hashlib.sha256(lake.storage.read(key)).hexdigest()
            if stored != digest:
                raise BatchConflictError.differs(name, batch_id, stored, digest)
    except OSError as error:
        raise StorageError(
            f"The batch {batch_id!r} can't be staged in {lake.root}/{key.rpartition('/')[0]}: "
            f"{error.strerror or first_line(error)}.",
            fix="Free some disk space or mend the folder's permissions, then run again; nothing was published.",
        ) from error
    return _batch(lake, name, batch_id, day, key, rows.num_rows, digest)


def staged(lake: Lakehouse, row_model: type[Table], *, batch_id: str, day: date) -> Batch | None:
    """The batch staged under that id, or None."""
    name = row_model.contract.table
    key = _key(name, batch_id)
    known = _let_go(lake, name, batch_id)
    if known is not None and not known.wanted(lake, name, batch_id):
        return _batch(lake, name, batch_id, day, key, known.rows_left(lake, key), known.digest)
    if not lake.storage.exists(key):
        return None
    content = lake.storage.read(key)
    rows = pq.read_metadata(io.BytesIO(content)).num_rows
    return _batch(lake, name, batch_id, day, key, rows, hashlib.sha256(content).hexdigest())


class LetGo(BaseModel):
    """What stays of a staged file that was removed or rewritten: enough to know the batch when it comes again.

    Attributes:
        digest: SHA-256 of the file as it came.
        rows: rows that it held when it was removed.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    rows: int

    def wanted(self, lake: Lakehouse, name: str, batch_id: str) -> bool:
        """Whether the rows must be staged again: the file is gone, and a restore has withdrawn the batch."""
        from lakehouse.upkeep.restore import withdrawn

        if lake.storage.exists(_key(name, batch_id)):
            return False
        publications = lake.publications(name)
        gone = withdrawn(publications)
        return all(p.publication_id in gone for p in publications if p.batch_id == batch_id)

    def rows_left(self, lake: Lakehouse, key: str) -> int:
        """Rows of the file as it stands, of one that is gone the rows that it held."""
        try:
            return int(pq.read_metadata(io.BytesIO(lake.storage.read(key))).num_rows)
        except FileNotFoundError:
            return self.rows


def let_go(lake: Lakehouse, name: str, batch_id: str, *, rest: pa.Table | None = None) -> None:
    """Remove a staged file whose rows are in the table, or leave only the rest of its rows in it.

    The batch stays known by what it was, so that sending it again changes nothing and other rows are refused.
    """
    key = _key(name, batch_id)
    known = _let_go(lake, name, batch_id)
    content = lake.storage.read(key)
    rows = pq.read_metadata(io.BytesIO(content)).num_rows
    digest = hashlib.sha256(content).hexdigest() if known is None else known.digest
    mark = LetGo(digest=digest, rows=rows).model_dump_json().encode()
    lake.storage.write(_mark(name, batch_id), mark, overwrite=True)
    if rest is None:
        lake.storage.delete(key)
        return
    buffer = io.BytesIO()
    pq.write_table(rest, buffer)
    lake.storage.write(key, buffer.getvalue(), overwrite=True)


def _let_go(lake: Lakehouse, name: str, batch_id: str) -> LetGo | None:
    try:
        return LetGo.model_validate_json(lake.storage.read(_mark(name, batch_id)))
    except (FileNotFoundError, NotADirectoryError):  # writing will say what is wrong with the folder
        return None


def _mark(name: str, batch_id: str) -> str:
    return _key(name, batch_id).removesuffix("parquet") + "json"


def _readable(rows: pa.Table) -> pa.Table:
    """The rows with what Spark 3.5 reads wrongly or not at all put as text: times of day, durations, typeless nulls."""
    # Nulls where the sender's schema has none are for the gate to judge.
    rows = pa.Table.from_arrays(rows.columns, schema=pa.schema([field.with_nullable(True) for field in rows.schema]))
    for place, field in enumerate(rows.schema):
        kind = _readable_type(field.type)
        if kind != field.type:
            parts = [as_type(part, kind) for part in rows.column(place).chunks]
            rows = rows.set_column(place, field.name, pa.chunked_array(parts, kind))
    return rows


def _readable_type(kind: pa.DataType) -> pa.DataType:
    """The type to write in place of one, within lists and structs too."""
    types = pa.types
    if types.is_time(kind) or types.is_duration(kind) or types.is_null(kind):
        return pa.string()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_readable_type(kind.value_type)))
    if types.is_struct(kind):
        # Parquet has no struct without fields.
        return pa.struct([f.with_type(_readable_type(f.type)) for f in kind]) if kind.num_fields else pa.string()
    return kind


def _key(table: str, batch_id: str) -> str:
    if not _BATCH_ID.fullmatch(batch_id):
        raise ContractError(
            f"{batch_id!r} is not a batch id.", fix="Use letters, digits, dots, dashes and underscores, at most 100."
        )
    return f"_staging/{table}/{batch_id}.parquet"


def _batch(lake: Lakehouse, table: str, batch_id: str, day: date, key: str, rows: int, digest: str) -> Batch:
    return Batch(
        lake_id=lake.id,
        table=table,
        batch_id=batch_id,
        day=day,
        path=key,
        rows=rows,
        digest=digest,
    )
