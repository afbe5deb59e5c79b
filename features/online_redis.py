"""How are online rows kept in Redis? In the hashes of Feast's own store, written in guarded transactions.

A hash is an entity and holds the fields of all its views; a field's name is a hash of view and feature. The record of a
view is a key of its own. Rows are written some thousands at a time, each time in a transaction that goes through only
if the record is still the writer's own, so two writers can't mix. A change that fits into one transaction is seen at
once or not at all; while a larger one is written, the record names both states.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import redis
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from features.encoding import EncodedRows, Layout, key_prefix
from features.errors import OnlineStoreError
from features.online import Asked, Change, Found

if TYPE_CHECKING:
    from feast.infra.online_stores.redis import RedisOnlineStoreConfig
    from redis.asyncio import ConnectionPool as AsyncConnectionPool
    from redis.connection import ConnectionInterface

#: Rows in one transaction: the server does nothing else for some milliseconds.
_ROWS = 2_000
_U32 = struct.Struct("<I")


class RedisTables:
    """The online store in one Redis server.

    Args:
        config: Feast's own.
        project: Feast's name for the project, the end of each key.
    """

    def __init__(self, config: RedisOnlineStoreConfig, project: str) -> None:
        client = RedisOnlineStore()._get_client(config)
        assert isinstance(client, redis.Redis)
        self._config = config
        self._pool = client.connection_pool
        self._async_pool: tuple[asyncio.AbstractEventLoop, AsyncConnectionPool] | None = None
        self._project = project.encode()

    @property
    def place(self) -> str:
        words = self._pool.connection_kwargs
        return f"redis://{words.get('host')}:{words.get('port')}/{words.get('db', 0)}"

    def check(self) -> None:
        self._ask([_command(b"PING")])

    def record(self, view: str) -> str | None:
        return _text(self._ask([_command(b"GET", self._record_key(view))])[0])

    def write(self, change: Change) -> None:
        layout = change.layout
        fields = [*change.rows.features, *change.stale]
        names = [_field(layout.view, name) for name in fields] + [_clock(layout.view)]
        settle = _command(b"SET", self._record_key(layout.view), change.afterwards.encode())
        gone = [_command(b"HDEL", key + self._project, *names) for key in change.gone]
        with self._connection() as connection:
            if not change.replace and len(change.rows.keys) + len(gone) <= _ROWS:
                rows = self._hashes(layout.view, change.rows)
                self._guarded(connection, change, change.expected, [*rows, *gone, settle])
                return
            begin = _command(b"SET", self._record_key(layout.view), change.meanwhile.encode())
            self._guarded(connection, change, change.expected, [begin])
            for part in change.rows.slices(_ROWS):
                self._guarded(connection, change, change.meanwhile, self._hashes(layout.view, part))
            if change.replace:
                written = set(change.rows.keys)
                stale = [_field(layout.view, name) for name in change.stale]
                for found in self._scan(connection, layout):
                    gone += [
                        _command(b"HDEL", key + self._project, *(stale if key in written else names))
                        for key in found
                        if stale or key not in written
                    ]
            for start in range(0, len(gone), _ROWS):
                self._guarded(connection, change, change.meanwhile, gone[start : start + _ROWS])
            self._guarded(connection, change, change.meanwhile, [settle])

    def read(self, asked: Sequence[Asked]) -> list[Found]:
        commands = self._reading(asked)
        while True:
            found = _taken_apart(asked, self._ask(commands))
            if found is not None:
                return found

    async def read_async(self, asked: Sequence[Asked]) -> list[Found]:
        commands = self._reading(asked)
        while True:
            found = _taken_apart(asked, await self._ask_async(commands))
            if found is not None:
                return found

    def _reading(self, asked: Sequence[Asked]) -> list[bytes]:
        """The records before and after the rows."""
        records = [_command(b"GET", self._record_key(one.view)) for one in asked]
        return [*records, *chain.from_iterable(map(self._lookups, asked)), *records]

    def _lookups(self, asked: Asked) -> Iterator[bytes]:
        """One HMGET an entity."""
        head = b"*%d\r\n$5\r\nHMGET\r\n" % (len(asked.features) + 2)
        tail = self._project + b"\r\n" + b"".join(_bulk(_field(asked.view, name)) for name in asked.features)
        extra = len(self._project)
        return (b"%b$%d\r\n%b%b" % (head, len(key) + extra, key, tail) for key in asked.keys)

    def _hashes(self, view: str, rows: EncodedRows) -> Iterator[bytes]:
        """One HSET a row, put together column by column."""
        head = b"*%d\r\n$4\r\nHSET\r\n" % (2 * len(rows.features) + 4)
        project = self._project
        keys = [b"$%d\r\n%b%b\r\n" % (len(key) + len(project), key, project) for key in rows.keys]
        columns = [
            list(map(_Once(_bulk(_field(view, name))).__getitem__, values)) for name, values in rows.features.items()
        ]
        stamps = list(map(_Stamps(_bulk(_clock(view))).__getitem__, rows.times))
        return map(b"".join, zip(repeat(head), keys, stamps, *columns))

    def _guarded(
        self, connection: ConnectionInterface, change: Change, expected: str | None, commands: Iterable[bytes]
    ) -> None:
        """The commands in one transaction, if the record is as expected when it is carried out."""
        key = self._record_key(change.layout.view)
        _, held = _exchange(connection, [_command(b"WATCH", key), _command(b"GET", key)])
        if _text(held) != expected:
            raise OnlineStoreError.contended(change.layout.view, self.place)
        listed = list(commands)
        answers = _exchange(connection, [_command(b"MULTI"), *listed, _command(b"EXEC")])
        if answers[-1] is None:
            raise OnlineStoreError.contended(change.layout.view, self.place)
        failed = next((one for one in answers[-1] if isinstance(one, Exception)), None)
        if failed is not None:
            raise failed

    def _scan(self, connection: ConnectionInterface, layout: Layout) -> Iterator[list[bytes]]:
        """The entity keys that hold a row of the view, some at a time."""
        prefix, cursor = key_prefix(layout), b"0"
        pattern = _literally(prefix) + b"*" + _literally(self._project)
        while True:
            ((cursor, found),) = _exchange(
                connection, [_command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _ROWS)]
            )
            keys = [key for key in found if self._is_row(key, len(prefix), len(layout.keys))]
            clock = _clock(layout.view)
            held = _exchange(connection, [_command(b"HEXISTS", key, clock) for key in keys])
            yield [key[: -len(self._project)] for key, is_held in zip(keys, held, strict=True) if is_held]
            if cursor == b"0":
                return

    def _is_row(self, key: bytes, start: int, parts: int) -> bool:
        """Whether what follows the entity's values is this project's name, and not another one that ends like it."""
        for _ in range(parts):
            if len(key) < start + 8:
                return False
            start += 8 + _U32.unpack_from(key, start + 4)[0]
        return key[start:] == self._project

    def _record_key(self, view: str) -> bytes:
        return b"millrace:materialized:%b:%b" % (self._project, view.encode())

    def _ask(self, commands: list[bytes]) -> list[Any]:
        with self._connection() as connection:
            return _exchange(connection, commands)

    async def _ask_async(self, commands: list[bytes]) -> list[Any]:
        with self._errors():
            pool = await self._pool_of_loop()
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.send_packed_command(b"".join(commands), check_health=False)
                return [await connection.read_response(disable_decoding=True) for _ in commands]
            except BaseException:
                await connection.disconnect(nowait=True)  # answers may still be on their way
                raise
            finally:
                await pool.release(connection)

    async def _pool_of_loop(self) -> AsyncConnectionPool:
        """Connections belong to the event loop that made them."""
        loop = asyncio.get_running_loop()
        if self._async_pool is None or self._async_pool[0] is not loop:
            client = await RedisOnlineStore()._get_client_async(self._config)
            self._async_pool = (loop, client.connection_pool)
        return self._async_pool[1]

    @contextmanager
    def _connection(self) -> Iterator[ConnectionInterface]:
        with self._errors():
            connection = self._pool.get_connection()
            try:
                yield connection
            except BaseException:
                connection.disconnect()  # type: ignore[no-untyped-call]  # answers may still be on their way
                raise
            finally:
                self._pool.release(connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (AuthenticationError, NoPermissionError) as error:
            raise OnlineStoreError.refused(self.place, str(error)) from error
        except (RedisError, OSError) as error:
            raise OnlineStoreError.unreachable(self.place, str(error)) from error


def _taken_apart(asked: Sequence[Asked], replies: list[Any]) -> list[Found] | None:
    """What was found; None where a writer came between."""
    before, after = replies[: len(asked)], replies[-len(asked) :]
    if before != after:
        return None
    found = []
    start = len(asked)
    for one, record in zip(asked, before, strict=True):
        end = start + len(one.keys)
        found.append(Found(_text(record), replies[start:end]))
        start = end
    return found


def _exchange(connection: ConnectionInterface, commands: Sequence[bytes]) -> list[Any]:
    """Send the commands together and take an answer for each."""
    connection.send_packed_command([b"".join(commands)])  # type: ignore[no-untyped-call]
    read: Callable[..., Any] = connection.read_response
    return [read(disable_decoding=True) for _ in commands]


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(map(_bulk, words))


def _bulk(word: bytes) -> bytes:
    """A text as the Redis protocol writes it."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _literally(text: bytes) -> bytes:
    """A text in a pattern, where these characters would stand for others."""
    return b"".join(b"\\%c" % byte if byte in b"*?[]\\^" else b"%c" % byte for byte in text)


def _field(view: str, feature: str) -> bytes:
    name: bytes = _mmh3(f"{view}:{feature}")
    return name


def _clock(view: str) -> bytes:
    return f"_ts:{view}".encode()


def _text(reply: object) -> str | None:
    return reply.decode() if isinstance(reply, bytes) else None


class _Once(dict[bytes, bytes]):
    """A field and its value, written once for each different value."""

    def __init__(self, field: bytes) -> None:
        super().__init__()
        self._field = field

    def __missing__(self, value: bytes) -> bytes:
        self[value] = written = b"%b$%d\r\n%b\r\n" % (self._field, len(value), value)
        return written


class _Stamps(dict[int, bytes]):
    """The field of the event time, in microseconds, with its value."""

    def __init__(self, field: bytes) -> None:
        super().__init__()
        self._field = field

    def __missing__(self, micros: int) -> bytes:
        stamp = Timestamp()
        stamp.FromMicroseconds(micros)
        self[micros] = written = self._field + _bulk(stamp.SerializeToString())
        return written
