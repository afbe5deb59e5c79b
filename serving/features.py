"""Which features does a request get? Those in the online store now; if it does not answer, what it last said.

Items' features are read once for the whole catalogue and again when the store's record says that it was written. A
user's are read for each request, with a deadline. All users' last values are kept as the snapshot to fall back on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Literal, NamedTuple

import pyarrow as pa

from features.encoding import OnlineValue
from features.errors import NotMaterializedError, OnlineStoreError, UnknownViewError
from features.online import OnlineAnswer, OnlineReader
from features.store import EVENT_TIMESTAMP, FeatureStore
from features.views import feature_columns, full_name
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from serving.errors import NotReadyError

#: Entities read from the store at once.
_AT_ONCE = 5_000
#: Seconds for which the store is left alone after it failed to answer.
_PAUSE = 1.0

Values = dict[str, OnlineValue]


class UserFeatures(NamedTuple):
    """One user's features.

    Attributes:
        values: by column as the model calls them; None for a user of whom the store knows nothing.
        source: the store, or the snapshot of what it last said.
        answer: what the store said, with what its rows stand for; None if it was not asked.
    """

    values: Values | None
    source: Literal["online", "snapshot"]
    answer: OnlineAnswer | None = None


class Entities(NamedTuple):
    """The features of all entities of one kind: columns named view__feature, and the key."""

    key: str
    columns: dict[str, list[OnlineValue]]

    def values(self, row: int, names: Iterable[str]) -> Values:
        """Some features of one entity."""
        return {name: self.columns[name][row] for name in names}


class OnlineFeatures:
    """The features of users and items that a model names.

    Args:
        store: views registered and materialized by the nightly job.
        user_columns, item_columns: what the model reads, as ``view__feature``.
        extra_item_columns: what is shown of an item beside that.
        deadline: seconds that a request waits for the store.
    """

    def __init__(
        self,
        store: FeatureStore,
        user_columns: Sequence[str],
        item_columns: Sequence[str],
        *,
        extra_item_columns: Sequence[str] = (),
        deadline: float,
    ) -> None:
        self._deadline = deadline
        self._store = store
        self.user_columns = tuple(user_columns)
        self.item_columns = tuple(dict.fromkeys([*item_columns, *extra_item_columns]))
        try:
            pins = store.pins()
            self._users = _reader(store, self.user_columns)
            self._items = _reader(store, self.item_columns)
        except UnknownViewError as error:
            raise NotReadyError.because(error.message) from error
        views = {name.partition("__")[0] for name in (*self.user_columns, *self.item_columns)}
        self.pins: dict[str, Snapshot[Table]] = {view: pins[view] for view in sorted(views)}
        self._described = {pin.row.contract.key: pin for pin in pins.values()}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="features")
        self._quiet_until = 0.0
        self.down: str | None = None
        self.known_at: dict[str, datetime] = {}
        self.item_table = pa.table({})
        self.items = Entities("item_id", {})
        self._kept: dict[int, int] = {}
        self._snapshot = Entities("user_id", {})

    @property
    def references(self) -> list[str]:
        """The pinned versions, as table@version."""
        return [pin.reference for pin in self.pins.values()]

    @property
    def user_schema(self) -> pa.Schema:
        """A user as the model reads them: the key and the columns, of the types that are declared."""
        from lakehouse.contracts.arrow import arrow_type

        fields = [pa.field("user_id", pa.int64())]
        for name in self.user_columns:
            view, _, feature = name.partition("__")
            fields.append(pa.field(name, arrow_type(self.pins[view].row.contract.column(feature).type)))
        return pa.schema(fields)

    def load(self, at: datetime) -> None:
        """Read every item and every user; from the pinned versions themselves if the store does not answer.

        Args:
            at: the instant of which the pinned versions are asked then.

        Raises NotReadyError if no view was ever materialized.
        """
        try:
            items, users = self._all(self._items, "item_id", at), self._all(self._users, "user_id", at)
            self.down = None
        except OnlineStoreError as error:
            self.down = error.message
            items, users = self._offline("item_id", at), self._offline("user_id", at)
        except NotMaterializedError as error:
            raise NotReadyError.because(error.message) from error
        self.items, self._snapshot = items, users
        self.item_table = self._table(items)
        self._kept = {int(str(user)): row for row, user in enumerate(users.columns["user_id"])}

    async def user(self, user_id: int) -> UserFeatures:
        """One user's features, within the deadline."""
        if time.monotonic() >= self._quiet_until:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(self._pool, self._users.read, {"user_id": [user_id]})
            done, _ = await asyncio.wait({asked}, timeout=self._deadline)
            why = f"no answer within {1000 * self._deadline:g} ms"
            if done:
                try:
                    answer = asked.result()
                    self.down = None
                    return UserFeatures(self._known(answer), "online", answer)
                except (OnlineStoreError, NotMaterializedError) as error:
                    why = error.message
            else:
                asked.add_done_callback(lambda late: late.exception())  # looked at, so that nobody complains
            self.down = why
            self._quiet_until = time.monotonic() + _PAUSE
        return self.last(user_id)

    def last(self, user_id: int) -> UserFeatures:
        """What the store last said of a user."""
        row = self._kept.get(user_id)
        if row is None:
            return UserFeatures(None, "snapshot")
        values = self._snapshot.values(row, self.user_columns)
        return UserFeatures(values if _any(values) else None, "snapshot")

    def user_ids(self) -> list[int]:
        """Every user that the snapshot has."""
        return list(self._kept)

    def changed(self) -> bool:
        """Whether the store was written since the features were read; False if it does not answer."""
        try:
            states = {**self._users.read({"user_id": [1]}).states, **self._items.read({"item_id": [1]}).states}
        except (OnlineStoreError, NotMaterializedError):
            return False
        return {view: state.interval.end for view, state in states.items()} != self.known_at or any(
            state.version != self.pins[view].version for view, state in states.items()
        )

    def _known(self, answer: OnlineAnswer) -> Values | None:
        values = {name: answer.values[name][0] for name in self.user_columns}
        return values if _any(values) else None

    def _all(self, reader: OnlineReader, key: str, at: datetime) -> Entities:
        """Every entity's features as the store has them."""
        ids = self._ids(key)
        columns: dict[str, list[OnlineValue]] = {key: list(ids)}
        for start in range(0, max(len(ids), 1), _AT_ONCE):
            answer = reader.read({key: ids[start : start + _AT_ONCE]})
            for name, values in answer.values.items():
                columns.setdefault(name, []).extend(values)
            self.known_at |= {view: state.interval.end for view, state in answer.states.items()}
        return Entities(key, columns)

    def _offline(self, key: str, at: datetime) -> Entities:
        """Every entity's features in the pinned versions, as known at an instant."""
        names = self.user_columns if key == "user_id" else self.item_columns
        ids = self._ids(key)
        instants = pa.array([at] * len(ids), pa.timestamp("us", tz="UTC"))
        entities = pa.table({key: pa.array(ids, pa.int64()), EVENT_TIMESTAMP: instants})
        found = self._store.training_set(entities, [name.replace("__", ":", 1) for name in names])
        for name in names:
            self.known_at.setdefault(name.partition("__")[0], at)
        return Entities(key, {name: found[name].to_pylist() for name in (key, *names)})

    def _ids(self, key: str) -> list[int]:
        """The entities that the table described by this key alone has: users, movies."""
        pin = self._described.get((key,))
        if pin is None:
            raise NotReadyError.because(f"No feature view describes a {key.removesuffix('_id')}.")
        return [int(value) for value in pin.arrow([key])[key].to_pylist()]

    def _table(self, items: Entities) -> pa.Table:
        """The items as the model reads them, with their declared types."""
        from lakehouse.contracts.arrow import arrow_type

        columns = {"item_id": pa.array(items.columns["item_id"], pa.int64())}
        for view, pin in self.pins.items():
            for name in feature_columns(pin.row.contract):
                full = full_name(view, name)
                if full in items.columns:
                    columns[full] = pa.array(items.columns[full], arrow_type(pin.row.contract.column(name).type))
        return pa.table(columns)


def _reader(store: FeatureStore, columns: Sequence[str]) -> OnlineReader:
    """What reads these columns; views with the same entity only."""
    wanted: dict[str, list[str]] = {}
    for view, _, feature in (name.partition("__") for name in columns):
        wanted.setdefault(view, []).append(feature)
    return store.reader(list(wanted), wanted)


def _any(values: Mapping[str, OnlineValue]) -> bool:
    return any(value is not None for value in values.values())
