"""How are online features read? Straight from the bytes that Feast's stores hold, one round trip for all views.

Feast's SDK reads the same bytes and gives the same values. It turns each answer into several protobuf messages, which
costs more than the store does; here a value goes from its bytes to Python at once. The record that says what the rows
stand for comes with them, so an answer knows its version and instant, and rows that are half-written are refused.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from features.encoding import EncodedRows, KeyValue, Layout, OnlineValue, decoder, encode_keys
from features.errors import EntityColumnsError, NotMaterializedError, OnlineStoreError, UnknownFeatureError
from features.intervals import Record, State
from features.views import full_name
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig


class Change(NamedTuple):
    """What is to be done to one view's rows.

    Attributes:
        layout: the view.
        rows: what is written.
        gone: entity keys whose rows are removed.
        replace: every other row is removed as well.
        stale: features that rows may hold and the view no longer has.
        expected: the record as it was when the change was worked out; None if there was none.
        meanwhile: the record while rows are being written.
        afterwards: the record once all is done.
    """

    layout: Layout
    rows: EncodedRows
    gone: list[bytes]
    replace: bool
    stale: tuple[str, ...]
    expected: str | None
    meanwhile: str
    afterwards: str


class Asked(NamedTuple):
    """Some features of one view, for the entities with these keys."""

    view: str
    features: tuple[str, ...]
    keys: list[bytes]


class Found(NamedTuple):
    """The view's record, and for each key the features' values; None where there is no row."""

    record: str | None
    rows: Sequence[Sequence[bytes | None]]


class OnlineTables(Protocol):
    """An online store in Feast's layout, with a record for each view. Every call may raise OnlineStoreError."""

    @property
    def place(self) -> str:
        """Where it is, without a password."""

    def check(self) -> None:
        """Whether it answers."""

    def record(self, view: str) -> str | None:
        """The view's record; None if there is none."""

    def write(self, change: Change) -> None:
        """Make the change, and the record of it. Killed at any point, record and rows still fit together."""

    def read(self, asked: Sequence[Asked]) -> list[Found]:
        """Records and rows, of one instant for each view."""

    async def read_async(self, asked: Sequence[Asked]) -> list[Found]:
        """The same without holding up the event loop; may be cancelled."""


async def read_in_thread(read: Callable[[Sequence[Asked]], list[Found]], asked: Sequence[Asked]) -> list[Found]:
    """For a store whose library waits for its answers."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), read, asked)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own, so that a store that hangs holds up nothing else."""
    return ThreadPoolExecutor(4, thread_name_prefix="features")


def online_tables(config: RepoConfig) -> OnlineTables:
    """The store that Feast's configuration names: SQLite, Redis or PostgreSQL."""
    kind = config.online_store.type
    if kind == "redis":
        from features.online_redis import RedisTables

        return RedisTables(config.online_store, config.project)
    if kind == "postgres":
        from features.online_postgres import PostgresTables

        return PostgresTables(config.online_store, config.project)
    from features.online_sqlite import SqliteTables

    return SqliteTables(Path(config.online_store.path), config.project)


@dataclass(frozen=True)
class OnlineAnswer:
    """Features as the online store has them.

    Attributes:
        values: for each feature, called ``view__feature``, a value an entity; None where there is none.
        states: what each view's rows stand for.
    """

    values: dict[str, list[OnlineValue]]
    states: dict[str, State]


class OnlineReader:
    """Reads the same features again and again.

    Args:
        tables: the online store.
        pins: the snapshot of each view, by view; its row model says what the values are.
        features: the features wanted of each view; by default all.
    """

    def __init__(
        self,
        tables: OnlineTables,
        pins: Mapping[str, Snapshot[Table]],
        features: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._tables = tables
        self._layouts = {view: Layout.of(pin.row.contract) for view, pin in pins.items()}
        self._contracts = {view: pin.row.contract.fingerprint for view, pin in pins.items()}
        self._names = {view: tuple((features or {}).get(view, layout.names)) for view, layout in self._layouts.items()}
        for view, layout in self._layouts.items():
            for name in self._names[view]:
                if name not in layout.names:
                    raise UnknownFeatureError.named(view, name, layout.names)
        self._decoders = {
            view: [(full_name(view, name), decoder(dict(layout.features)[name])) for name in self._names[view]]
            for view, layout in self._layouts.items()
        }
        self._known: dict[str, tuple[str, State]] = {}

    def read(self, entities: Mapping[str, Sequence[KeyValue]]) -> OnlineAnswer:
        """The features of each entity, in order.

        Args:
            entities: a sequence of equal length for each key column of the views.

        Raises:
            EntityColumnsError: a key column is missing.
            NotMaterializedError: a view was never written, is half-written, or was written under another declaration.
            OnlineStoreError: the store does not answer.
        """
        return self._answer(self._tables.read(self._asked(entities)))

    async def read_async(self, entities: Mapping[str, Sequence[KeyValue]]) -> OnlineAnswer:
        """The same without holding up the event loop; may be cancelled."""
        return self._answer(await self._tables.read_async(self._asked(entities)))

    def _asked(self, entities: Mapping[str, Sequence[KeyValue]]) -> list[Asked]:
        keys: dict[tuple[str, ...], list[bytes]] = {}
        asked = []
        for view, layout in self._layouts.items():
            names = tuple(name for name, _ in layout.keys)
            if names not in keys:
                missing = [name for name in names if name not in entities]
                if missing:
                    raise EntityColumnsError.missing(missing, list(entities))
                keys[names] = encode_keys(layout, entities)
            asked.append(Asked(view, self._names[view], keys[names]))
        return asked

    def _answer(self, found: Sequence[Found]) -> OnlineAnswer:
        values: dict[str, list[OnlineValue]] = {}
        states = {}
        for (view, decoders), (record, rows) in zip(self._decoders.items(), found, strict=True):
            states[view] = self._state(view, record)
            for number, (name, decode) in enumerate(decoders):
                values[name] = [decode(row[number]) for row in rows]
        return OnlineAnswer(values, states)

    def _state(self, view: str, record: str | None) -> State:
        """What the rows stand for; the same record is taken apart once."""
        if record is not None and view in self._known and self._known[view][0] == record:
            return self._known[view][1]
        state = whole_state(view, record)
        if state.contract != self._contracts[view]:
            raise NotMaterializedError.other_contract(view)
        assert record is not None
        self._known[view] = (record, state)
        return state


def whole_state(view: str, record: str | None) -> State:
    """What a view's rows stand for. Raises NotMaterializedError if that can't be said."""
    if record is None:
        raise NotMaterializedError.view(view)
    state = Record.model_validate_json(record).whole
    if state is None:
        raise NotMaterializedError.half_written(view)
    return state


def online_config(url: str) -> dict[str, object]:
    """Feast's ``online_store`` for a URL: redis://, rediss:// or postgresql://. Raises OnlineStoreError."""
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise OnlineStoreError.url() from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    database = unquote(parts.path.removeprefix("/"))
    if host is None or parts.scheme not in ("redis", "rediss", "postgresql"):
        raise OnlineStoreError.url()
    if parts.scheme == "postgresql":
        return {
            "type": "postgres",
            "host": host,
            "port": port or 5432,
            "database": database or user,
            "user": user,
            "password": password,
            "sslmode": dict(parse_qsl(parts.query)).get("sslmode", "prefer"),
        }
    if "," in user + password or ":" in host or not (database or "0").isdigit():
        raise OnlineStoreError.url()  # Feast's own way of writing it has no room for them
    words = {"db": database or "0", "username": _quoted(user), "password": _quoted(password)}
    if parts.scheme == "rediss":
        words["ssl"] = "true"
    options = [f"{name}={word}" for name, word in words.items() if word]
    return {"type": "redis", "connection_string": ",".join([f"{host}:{port or 6379}", *options])}


def _quoted(word: str) -> str:
    """As Feast reads it back: JSON, so that a password of digits stays a text."""
    import json

    return json.dumps(word) if word else ""
