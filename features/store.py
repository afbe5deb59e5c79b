"""How are features read and written? One FeatureStore: training sets from the past, online rows for now.

It is Feast underneath, and plain Feast clients can open the same registry and online store. What it adds: views are
pinned to snapshots, Arrow goes in and comes out without loss, and a changed pin reaches the online store.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from features.errors import (
    EntityColumnsError,
    NaiveTimestampError,
    OfflineSourceError,
    UnknownFeatureError,
    UnknownViewError,
)
from features.materialize import Materialized, bring_to
from features.online import OnlineReader, OnlineTables, online_config, online_tables, whole_state
from features.views import entity, feature_columns, feature_view, full_name, join_keys, on_demand_view
from lakehouse.contracts.arrow import arrow_type
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot

if TYPE_CHECKING:
    import feast
    from feast import FeatureView
    from feast.infra.provider import Provider
    from feast.repo_config import RepoConfig

#: The entities' column that says at which instant a training row asks for features.
EVENT_TIMESTAMP = "event_timestamp"


def end_of(day: date) -> datetime:
    """The instant at which a UTC day is over: 00:00 of the next."""
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)


class FeatureStore:
    """Feature views over pinned snapshots, with an online store.

    Args:
        folder: where Feast's registry and the SQLite online store are kept; made if it is not there.
        online: redis://, rediss:// or postgresql:// URL of another online store.
    """

    def __init__(self, folder: Path, online: str | None = None) -> None:
        self.folder = folder.resolve()
        self._online = online_config(online) if online else None

    @classmethod
    def open(cls, state: Path) -> FeatureStore:
        """The store of a state folder, with the online store that the settings name."""
        from features.settings import OnlineSettings

        online = OnlineSettings().online_store
        return cls(state / "features", online.get_secret_value() if online else None)

    def apply(self, pins: Iterable[Snapshot[Table]]) -> None:
        """Register the view of each snapshot's table, pinned to it; views not named stay as they are.

        Raises:
            ViewDeclarationError: no view can be derived from a table.
            UnknownVersionError: a version that is not there.
            OnlineStoreError: the online store does not answer.
        """
        self._tables.check()
        snapshots = list(pins)
        for snapshot in snapshots:
            snapshot.delta()  # refuses a version that is not there
        entities = {
            key: entity(snapshot.row.contract, key)
            for snapshot in snapshots
            if snapshot.row is not Table
            for key in join_keys(snapshot.row.contract)
        }
        views = [feature_view(snapshot) for snapshot in snapshots]
        on_demand = map(on_demand_view, snapshots, views)
        with warnings.catch_warnings():
            # Feast calls its on-demand views slow offline; these are one subtraction a row.
            warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
            self._feast.apply([*entities.values(), *views, *(view for view in on_demand if view is not None)])

    def pins(self) -> dict[str, Snapshot[Table]]:
        """The snapshot that each registered view reads, by view, as last applied by any process."""
        # Feast's cache is good here: for a registry in a file it looks at the file's time before each use.
        return {view.name: _pin(view) for view in self._feast.list_feature_views(allow_cache=True)}

    def ttl(self, view: str) -> timedelta | None:
        """How long after its event time a row of the view counts; None is for ever. Raises UnknownViewError."""
        self._pins_of([view])
        ttl: timedelta | None = self._feast.get_feature_view(view, allow_registry_cache=True).ttl
        return ttl or None

    def training_set(self, entities: pa.Table, views: Sequence[str]) -> pa.Table:
        """The entities with each view's features as known at each row's own instant.

        Args:
            entities: ``event_timestamp`` (timestamp with a time zone) and the views' key columns; any others are
                passed through.
            views: names of registered views, for all of their features, or ``view:feature`` for one.

        Returns:
            The entities' columns and rows in their order, and a column ``view__feature`` for each feature, of the
            type its row model declares; null where nothing was known.

        Raises:
            UnknownViewError: no view of that name is registered.
            UnknownFeatureError: the view has no feature of that name.
            EntityColumnsError: a key column or the instant is missing from the entities.
            NaiveTimestampError: an instant has no time zone.
        """
        pins = self._pins_of(list(dict.fromkeys(view.partition(":")[0] for view in views)))
        references = _references(pins)
        for view, _, feature in (name.partition(":") for name in views):
            known = feature_columns(pins[view].row.contract)
            if feature and feature not in known:
                raise UnknownFeatureError.named(view, feature, known)
        references = [ref for ref in references if ref in views or ref.partition(":")[0] in views]
        keys = _check_entities(entities, pins, [EVENT_TIMESTAMP])
        clock = entities.schema.field(EVENT_TIMESTAMP).type
        if not pa.types.is_timestamp(clock) or clock.tz is None:
            raise NaiveTimestampError.column(EVENT_TIMESTAMP, str(clock))
        # Nothing leaves Arrow: Feast hands on to the offline store what is no DataFrame.
        asked = entities.select([*keys, EVENT_TIMESTAMP])
        found = self._feast.get_historical_features(asked, references, full_feature_names=True).to_arrow()
        for view, _, feature in (reference.partition(":") for reference in references):
            called, kind = full_name(view, feature), arrow_type(pins[view].row.contract.column(feature).type)
            entities = entities.append_column(pa.field(called, kind), found[called].cast(kind))
        return entities

    def materialize(self, day: date) -> list[Materialized]:
        """Bring the online rows of every registered view to the end of that UTC day, in the version it is pinned to.

        What is there already is not written again; a view whose pin or day changed has only its differences written.

        Raises:
            OnlineStoreError: the store does not answer, or another process wrote a view in the meantime.
        """
        at = end_of(day)
        self._tables.check()
        done = []
        for view in self._feast.list_feature_views():
            # Feast makes the view's table, where it was lost with the store.
            self._provider.update_infra(self._feast.project, [], [view], [], [], partial=True)
            done.append(bring_to(self._tables, _pin(view), at, view.ttl or None))
            if at not in [end for _, end in view.materialization_intervals]:
                # Feast's clients and its UI show the interval.
                beginning = datetime.min.replace(tzinfo=UTC)
                self._feast.registry.apply_materialization(view, self._feast.project, beginning, at)
        return done

    def materialized_at(self, view: str) -> datetime:
        """The instant that the view's online rows stand for. Raises UnknownViewError, NotMaterializedError."""
        self._pins_of([view])
        return whole_state(view, self._tables.record(view)).interval.end

    def reader(self, views: Sequence[str], features: Mapping[str, Sequence[str]] | None = None) -> OnlineReader:
        """What reads the views' online features again and again, without Feast; the pins are those of now.

        Args:
            views: names of registered views.
            features: the features wanted of each view; by default all.

        Raises:
            UnknownViewError: no view of that name is registered.
            UnknownFeatureError: the view has no feature of that name.
        """
        return OnlineReader(self._tables, self._pins_of(views), features)

    def online(self, entities: pa.Table, views: Sequence[str]) -> pa.Table:
        """The entities with each view's features as the online store has them; columns as in ``training_set``.

        Args:
            entities: the views' key columns; any others are passed through.
            views: names of registered views, each materialized.

        Raises:
            UnknownViewError: no view of that name is registered.
            EntityColumnsError: a key column or the instant is missing from the entities.
            NotMaterializedError: the view has no online rows yet.
        """
        pins = self._pins_of(views)
        keys = _check_entities(entities, pins, [])
        answer = OnlineReader(self._tables, pins).read({key: entities[key].to_pylist() for key in keys})
        return _with_features(entities, pins, lambda name, kind: pa.array(answer.values[name], kind))

    @cached_property
    def _feast(self) -> feast.FeatureStore:
        import feast

        self.folder.mkdir(parents=True, exist_ok=True)
        return feast.FeatureStore(config=self._config())

    @cached_property
    def _provider(self) -> Provider:
        from feast.infra.provider import get_provider

        return get_provider(self._feast.config)

    @cached_property
    def _tables(self) -> OnlineTables:
        self.folder.mkdir(parents=True, exist_ok=True)
        return online_tables(self._config())

    def _config(self) -> RepoConfig:
        """The checked-in configuration, with this store's folder and online store in place of the default ones."""
        import yaml  # type: ignore[import-untyped]
        from feast.repo_config import RepoConfig

        config = yaml.safe_load((Path(__file__).parent / "feature_store.yaml").read_text())
        config["registry"]["path"] = str(self.folder / "registry.db")
        config["online_store"] = self._online or {"type": "sqlite", "path": str(self.folder / "online.db")}
        return RepoConfig(**config)

    def _pins_of(self, views: Sequence[str]) -> dict[str, Snapshot[Table]]:
        pins = self.pins()
        unknown = [view for view in views if view not in pins]
        if unknown:
            raise UnknownViewError.named(unknown[0], pins)
        return {view: pins[view] for view in views}


def _check_entities(entities: pa.Table, pins: dict[str, Snapshot[Table]], others: Sequence[str]) -> list[str]:
    """The views' key columns, once they are known to be there, whole and of the declared types."""
    types = {
        key: arrow_type(pin.row.contract.column(key).type)
        for pin in pins.values()
        for key in join_keys(pin.row.contract)
    }
    missing = [name for name in (*types, *others) if name not in entities.column_names]
    if missing:
        raise EntityColumnsError.missing(missing, entities.column_names)
    for key, kind in types.items():
        if entities.schema.field(key).type != kind:
            raise EntityColumnsError.wrong_type(key, str(kind), str(entities.schema.field(key).type))
    for name in (*types, *others):
        if entities[name].null_count:
            raise EntityColumnsError.nulls(name, entities[name].null_count)
    return list(types)


def _references(pins: dict[str, Snapshot[Table]]) -> list[str]:
    """Every feature of the views, as Feast writes it: view:feature."""
    return [f"{view}:{name}" for view, pin in pins.items() for name in feature_columns(pin.row.contract)]


def _with_features(
    entities: pa.Table,
    pins: dict[str, Snapshot[Table]],
    column: Callable[[str, pa.DataType], pa.Array | pa.ChunkedArray],
) -> pa.Table:
    """The entities with each feature of the views, in their order and of the declared types."""
    for view, pin in pins.items():
        for name in feature_columns(pin.row.contract):
            called, kind = full_name(view, name), arrow_type(pin.row.contract.column(name).type)
            entities = entities.append_column(pa.field(called, kind), column(called, kind))
    return entities


def _pin(view: FeatureView) -> Snapshot[Table]:
    from features.delta_source import DeltaSource

    if not isinstance(view.batch_source, DeltaSource):
        raise OfflineSourceError.not_delta(view.name, type(view.batch_source).__name__)
    return view.batch_source.snapshot()
