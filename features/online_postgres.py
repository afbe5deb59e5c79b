"""How are online rows kept in PostgreSQL? In the tables of Feast's own store, record and rows in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import TYPE_CHECKING

import psycopg
from feast.infra.utils.postgres.connection_utils import _get_conn
from psycopg import sql

from features.encoding import EncodedRows
from features.errors import OnlineStoreError
from features.online import Asked, Change, Found, read_in_thread

if TYPE_CHECKING:
    from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStoreConfig

#: One writer at a time: a number of this project's own for PostgreSQL's advisory locks.
_LOCK = 0x4D494C4C
_COLUMNS = sql.SQL("entity_key, feature_name, value, value_text, event_ts")
_START = datetime(1970, 1, 1, tzinfo=UTC)


class PostgresTables:
    """The online store in a PostgreSQL database, one table a view.

    Args:
        config: Feast's own; Feast makes the views' tables.
        project: Feast's name for the project.
    """

    def __init__(self, config: PostgreSQLOnlineStoreConfig, project: str) -> None:
        self._config = config
        self._project = project
        self._reading: psycopg.Connection[tuple[object, ...]] | None = None

    @property
    def place(self) -> str:
        return f"postgresql://{self._config.host}:{self._config.port}/{self._config.database}"

    def check(self) -> None:
        with self._transaction() as connection:
            connection.execute("SELECT 1")

    def record(self, view: str) -> str | None:
        with self._transaction() as connection:
            return _record(connection, view)

    def write(self, change: Change) -> None:
        view, rows = change.layout.view, change.rows
        table = self._table(view)
        with self._transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute("CREATE TABLE IF NOT EXISTS millrace_materialized (view TEXT PRIMARY KEY, state TEXT)")
            if _record(connection, view) != change.expected:
                raise OnlineStoreError.contended(view, self.place)
            if change.replace:
                connection.execute(sql.SQL("DELETE FROM {}").format(table))
                self._copy(connection, table, rows)
            else:
                connection.execute(
                    sql.SQL("DELETE FROM {} WHERE entity_key = ANY(%s)").format(table), [change.gone + rows.keys]
                )
                self._copy(connection, table, rows)
            connection.execute(
                "INSERT INTO millrace_materialized VALUES (%s, %s) "
                "ON CONFLICT (view) DO UPDATE SET state = EXCLUDED.state",
                [view, change.afterwards],
            )

    def read(self, asked: Sequence[Asked]) -> list[Found]:
        with self._transaction() as connection:
            # Records and rows of one instant.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return [self._read(connection, one) for one in asked]

    async def read_async(self, asked: Sequence[Asked]) -> list[Found]:
        return await read_in_thread(self.read, asked)

    def _read(self, connection: psycopg.Connection[tuple[object, ...]], asked: Asked) -> Found:
        record = _record(connection, asked.view)
        if record is None:
            return Found(None, [])
        places = {name: number for number, name in enumerate(asked.features)}
        rows: dict[bytes, list[bytes | None]] = {}
        statement = sql.SQL(
            "SELECT entity_key, feature_name, value FROM {} WHERE entity_key = ANY(%s) AND feature_name = ANY(%s)"
        ).format(self._table(asked.view))
        for key, name, value in connection.execute(statement, [asked.keys, list(asked.features)], binary=True):
            assert isinstance(key, bytes) and isinstance(name, str) and isinstance(value, bytes)
            rows.setdefault(key, [None] * len(places))[places[name]] = value
        nothing: list[bytes | None] = [None] * len(places)
        return Found(record, [rows.get(key, nothing) for key in asked.keys])

    def _copy(
        self, connection: psycopg.Connection[tuple[object, ...]], table: sql.Identifier, rows: EncodedRows
    ) -> None:
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, _COLUMNS)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["bytea", "text", "bytea", "text", "timestamptz"])
            for cell in _cells(rows):
                copy.write_row(cell)

    def _table(self, view: str) -> sql.Identifier:
        return sql.Identifier(f"{self._project}_{view}")

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """A transaction on a connection that is kept; committed at the end, undone by an error."""
        try:
            if self._reading is None or self._reading.closed:
                self._reading = _get_conn(self._config)
            with self._reading.transaction():
                yield self._reading
        except psycopg.OperationalError as error:
            self._reading = None
            text = str(error).strip()
            if "authentication failed" in text or "no password supplied" in text:
                raise OnlineStoreError.refused(self.place, text) from error
            raise OnlineStoreError.unreachable(self.place, text) from error
        except psycopg.Error as error:
            raise OnlineStoreError.unreachable(self.place, str(error).strip()) from error


def _record(connection: psycopg.Connection[tuple[object, ...]], view: str) -> str | None:
    there = connection.execute("SELECT to_regclass('millrace_materialized')").fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute("SELECT state FROM millrace_materialized WHERE view = %s", [view]).fetchone()
    return str(row[0]) if row else None


def _cells(rows: EncodedRows) -> Iterator[tuple[bytes, str, bytes, str | None, datetime]]:
    """A row a value, in the order of the table's key."""
    instants = [_START + timedelta(microseconds=micros) for micros in rows.times]
    columns = [
        zip(rows.keys, repeat(name), rows.features[name], rows.texts[name], instants) for name in sorted(rows.features)
    ]
    return chain.from_iterable(zip(*columns, strict=True))
