"""How are online rows kept in SQLite? In the tables of Feast's own store, record and rows in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path

from features.encoding import EncodedRows
from features.errors import OnlineStoreError
from features.online import Asked, Change, Found, read_in_thread
from lakehouse.snapshot import quote_name

#: SQLite takes a limited number of values in one statement.
_KEYS = 10_000
#: In KiB: what a large write keeps in memory before it goes to the file.
_CACHE = 128 * 1024


class SqliteTables:
    """The online store in one file, one table a view.

    Args:
        path: the file; Feast makes the views' tables.
        project: Feast's name for the project.
    """

    def __init__(self, path: Path, project: str) -> None:
        self._path = path
        self._project = project

    @property
    def place(self) -> str:
        return str(self._path)

    def check(self) -> None:
        with self._open() as connection:
            connection.execute("PRAGMA schema_version")  # reads the file

    def record(self, view: str) -> str | None:
        if not self._path.is_file():
            return None
        with self._open() as connection:
            return _record(connection, view)

    def write(self, change: Change) -> None:
        view, rows = change.layout.view, change.rows
        table = quote_name(f"{self._project}_{view}")
        with self._open() as connection:
            connection.execute(f"PRAGMA cache_size = -{_CACHE}")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS millrace_materialized (view TEXT PRIMARY KEY, state TEXT)")
            if _record(connection, view) != change.expected:
                raise OnlineStoreError.contended(view, self.place)
            if change.replace:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608  (a quoted name)
            else:
                connection.executemany(
                    f"DELETE FROM {table} WHERE entity_key = ?",  # noqa: S608  (a quoted name)
                    zip(change.gone, strict=True),
                )
            connection.executemany(
                f"INSERT OR REPLACE INTO {table} (entity_key, feature_name, value, value_text, event_ts) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?)",
                _cells(rows),
            )
            connection.execute("INSERT OR REPLACE INTO millrace_materialized VALUES (?, ?)", [view, change.afterwards])
            connection.execute("COMMIT")

    def read(self, asked: Sequence[Asked]) -> list[Found]:
        if not self._path.is_file():
            return [Found(None, []) for _ in asked]
        with self._open() as connection:
            connection.execute("BEGIN")  # record and rows of one instant
            return [self._read(connection, one) for one in asked]

    async def read_async(self, asked: Sequence[Asked]) -> list[Found]:
        return await read_in_thread(self.read, asked)

    def _read(self, connection: sqlite3.Connection, asked: Asked) -> Found:
        record = _record(connection, asked.view)
        if record is None:
            return Found(None, [])
        table = quote_name(f"{self._project}_{asked.view}")
        places = {name: number for number, name in enumerate(asked.features)}
        rows: dict[bytes, list[bytes | None]] = {}
        distinct = list(dict.fromkeys(asked.keys))
        for start in range(0, len(distinct), _KEYS):
            keys = distinct[start : start + _KEYS]
            marks = ",".join("?" * len(keys))
            for key, name, value in connection.execute(
                f"SELECT entity_key, feature_name, value FROM {table} WHERE entity_key IN ({marks})",  # noqa: S608
                keys,
            ):
                if name in places:
                    rows.setdefault(key, [None] * len(places))[places[name]] = value
        nothing: list[bytes | None] = [None] * len(places)
        return Found(record, [rows.get(key, nothing) for key in asked.keys])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        except sqlite3.Error as error:
            raise OnlineStoreError.unreachable(self.place, str(error)) from error
        try:
            yield connection
        except sqlite3.Error as error:
            raise OnlineStoreError.unreachable(self.place, str(error)) from error
        finally:
            connection.close()  # what was not committed is undone


def _record(connection: sqlite3.Connection, view: str) -> str | None:
    there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'millrace_materialized'"
    if connection.execute(there).fetchone() is None:
        return None
    row = connection.execute("SELECT state FROM millrace_materialized WHERE view = ?", [view]).fetchone()
    return row[0] if row else None


def _cells(rows: EncodedRows) -> Iterator[tuple[bytes, str, bytes, str | None, int]]:
    """A row a value, in the order of the table's key."""
    seconds = list(map(_Seconds().__getitem__, rows.times))
    columns = [
        zip(rows.keys, repeat(name), rows.features[name], rows.texts[name], seconds) for name in sorted(rows.features)
    ]
    return chain.from_iterable(zip(*columns, strict=True))


class _Seconds(dict[int, int]):
    """What Feast's store keeps for an instant: whole seconds of the UTC time read as a local one."""

    def __missing__(self, micros: int) -> int:
        seconds, rest = divmod(micros, 1_000_000)
        clock = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest, tzinfo=None)
        self[micros] = found = int(clock.timestamp())
        return found
