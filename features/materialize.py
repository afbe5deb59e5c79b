"""How does the online store come to the end of a day? By writing what changed since the state it is known to hold.

Feast does not notice that a view's pin has changed, and never takes a row back. So the online database keeps, in a
table of its own, which version and instant each view stands at. Kept there, the record is lost when the store is lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from features.point_in_time import changed_rows, latest_rows
from features.views import event_time, feature_columns, join_keys
from lakehouse.errors import UnknownVersionError
from lakehouse.snapshot import Snapshot
from lakehouse.table import Table

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureView
    from feast.infra.provider import Provider
    from feast.repo_config import RepoConfig


class Materialized(BaseModel):
    """What a view's rows in the online store stand for, and what it took to bring them there.

    Attributes:
        view: name of the view.
        reference: the version they come from, as table@version.
        at: the instant: the newest row of each entity that was known then (UTC).
        written: entities written because their row was new or had changed.
        removed: entities that the new state no longer has.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    reference: str
    at: datetime
    written: int
    removed: int


class _State(BaseModel):
    """Which rows a view's online table holds."""

    model_config = ConfigDict(frozen=True)

    table_id: str
    uri: str
    version: int
    contract: str
    at: datetime

    @classmethod
    def of(cls, pin: Snapshot[Table], at: datetime) -> _State:
        return cls(
            table_id=pin.table_id, uri=pin.uri, version=pin.version, contract=pin.row.contract.fingerprint, at=at
        )


def bring_to(
    provider: Provider, config: RepoConfig, view: FeatureView, pin: Snapshot[Table], at: datetime
) -> Materialized:
    """Make the view's online rows the newest ones known at ``at`` in the pinned version; does nothing if they are.

    Cut off at any point it may be run again: a view whose record is missing is written anew.
    """
    contract = pin.row.contract
    keys, features = join_keys(contract), feature_columns(contract)
    records = _Records(Path(config.online_store.path))
    held, target = records.get(view.name), _State.of(pin, at)
    if held == target:
        return Materialized(view=view.name, reference=pin.reference, at=at, written=0, removed=0)

    after = _rows_at(pin, at)
    before = _rows_held(held, pin)
    # Imported here, not above: it loads Feast.
    from features.values import null_rows, online_rows

    records.forget(view.name)
    if before is None:
        provider.update_infra(config.project, [view], [], [], [], partial=True)
        provider.update_infra(config.project, [], [view], [], [], partial=True)
        before = after.slice(0, 0)
    changed, gone = changed_rows(before, after, keys)
    rows = online_rows(changed, contract, keys, features) + null_rows(gone, contract, features, at)
    if rows:
        provider.online_write_batch(config, view, rows, None)
    records.put(view.name, target)
    return Materialized(view=view.name, reference=pin.reference, at=at, written=changed.num_rows, removed=gone.num_rows)


def materialized_at(online: Path, view: str) -> datetime | None:
    """The instant that a view's online rows stand for; None if they were never written."""
    state = _Records(online).get(view)
    return state.at if state else None


def _rows_at(pin: Snapshot[Table], at: datetime) -> pa.Table:
    contract = pin.row.contract
    return latest_rows(pin, join_keys(contract), feature_columns(contract), event_time(contract), end=at)


def _rows_held(held: _State | None, pin: Snapshot[Table]) -> pa.Table | None:
    """The rows that the online store holds, or None where that can't be told from the lake any more."""
    if held is None or (held.uri, held.table_id) != (pin.uri, pin.table_id):
        return None
    if held.contract != pin.row.contract.fingerprint:
        return None
    try:
        return _rows_at(Snapshot(held.uri, held.version, pin.row), held.at)
    except UnknownVersionError:
        return None


class _Records:
    """The table in the online database that says what each view's rows stand for."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def get(self, view: str) -> _State | None:
        if not self._database.is_file():
            return None
        with self._open() as connection:
            row = connection.execute("SELECT state FROM millrace_materialized WHERE view = ?", [view]).fetchone()
        return _State.model_validate_json(row[0]) if row else None

    def put(self, view: str, state: _State) -> None:
        with self._open() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO millrace_materialized VALUES (?, ?)", [view, state.model_dump_json()]
            )

    def forget(self, view: str) -> None:
        with self._open() as connection:
            connection.execute("DELETE FROM millrace_materialized WHERE view = ?", [view])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._database, timeout=30)
        try:
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS millrace_materialized (view TEXT PRIMARY KEY, state TEXT)"
                )
                yield connection
        finally:
            connection.close()
