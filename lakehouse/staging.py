"""How does a batch wait at the gate? As a file of the rows as they came, under an id that names it for good."""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
from contextlib import suppress
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from lakehouse.errors import BatchConflictError, ContractError, StorageError
from lakehouse.lake import Lakehouse
from lakehouse.table import Table

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
    path = _path(lake, name, batch_id)
    numbered = _readable(rows).append_column(ROW_NUMBER, pa.array(range(rows.num_rows), pa.int64()))
    # Encoded here and written by plain file calls: a full disk is then an OSError with its own words.
    buffer = io.BytesIO()
    # Spark 3.5 reads no nanoseconds.
    pq.write_table(numbered, buffer, coerce_timestamps="us", allow_truncated_timestamps=True)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    if path.is_file():
        stored = hashlib.sha256(path.read_bytes()).hexdigest()
        if stored != digest:
            raise BatchConflictError.differs(name, batch_id, stored, digest)
    else:
        _write_whole(path, content)
    return _batch(lake, name, batch_id, day, path, rows.num_rows, digest)


def staged(lake: Lakehouse, row_model: type[Table], *, batch_id: str, day: date) -> Batch | None:
    """The batch staged under that id, or None."""
    name = row_model.contract.table
    path = _path(lake, name, batch_id)
    if not path.is_file():
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _batch(lake, name, batch_id, day, path, pq.read_metadata(path).num_rows, digest)


def _readable(rows: pa.Table) -> pa.Table:
    """The rows with what Spark 3.5 reads wrongly or not at all put as text: times of day, durations, typeless nulls."""
    # Nulls where the sender's schema has none are for the gate to judge.
    rows = pa.Table.from_arrays(rows.columns, schema=pa.schema([field.with_nullable(True) for field in rows.schema]))
    for place, field in enumerate(rows.schema):
        if pa.types.is_time(field.type) or pa.types.is_duration(field.type) or pa.types.is_null(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.string()))
        elif pa.types.is_float16(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.float32()))
    return rows


def _path(lake: Lakehouse, table: str, batch_id: str) -> Path:
    if not _BATCH_ID.fullmatch(batch_id):
        raise ContractError(
            f"{batch_id!r} is not a batch id.", fix="Use letters, digits, dots, dashes and underscores, at most 100."
        )
    return lake.root / "_staging" / table / f"{batch_id}.parquet"


def _batch(lake: Lakehouse, table: str, batch_id: str, day: date, path: Path, rows: int, digest: str) -> Batch:
    return Batch(
        lake_id=lake.id,
        table=table,
        batch_id=batch_id,
        day=day,
        path=str(path.relative_to(lake.root)),
        rows=rows,
        digest=digest,
    )


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there, also after a power cut."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StorageError(
            f"The batch {path.stem!r} can't be staged in {path.parent}: {error.strerror}.",
            fix="Free some disk space or mend the folder's permissions, then run again; nothing was published.",
        ) from error
