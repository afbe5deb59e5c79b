"""How are features read and written? One FeatureStore: training sets from the past, online rows for now.

It is Feast underneath, and plain Feast clients can open the same registry and online store. What it adds: views are
pinned to snapshots, Arrow goes in and comes out without loss, and a changed pin reaches the online store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from features.errors import (
    EntityColumnsError,
    NaiveTimestampError,
    NotMaterializedError,
    OfflineSourceError,
    UnknownViewError,
)
from features.materialize import Materialized, bring_to, materialized_at
from features.views import entity, feature_columns, feature_view, full_name, join_keys
from lakehouse.arrow import arrow_type
from lakehouse.snapshot import Snapshot
from lakehouse.table import Table

if TYPE_CHECKING:
    import feast
    from feast import FeatureView
    from feast.infra.provider import Provider
    from feast.repo_config import RepoConfig

#: The entities' column that says at which instant a training row asks for features.
EVENT_TIMESTAMP = "event_timestamp"

# SQLite takes a limited number of values in one statement.
_ONLINE_CHUNK = 10_000


def end_of(day: date) -> datetime:
    """The instant at which a UTC day is over: 00:00 of the next."""
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)


class FeatureStore:
    """Feature views over pinned snapshots, with an online store.

    Args:
        folder: where Feast's registry and the SQLite online store are kept; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def apply(self, pins: Iterable[Snapshot[Table]]) -> None:
        """Register the view of each snapshot's table, pinned to it; views not named stay as they are.

        Raises:
            ViewDeclarationError: no view can be derived from a table.
            UnknownVersionError: a version that is not there.
        """
        snapshots = list(pins)
        for snapshot in snapshots:
            snapshot.delta()  # refuses a version that is not there
        entities = {
            key: entity(snapshot.row.contract, key)
            for snapshot in snapshots
            if snapshot.row is not Table
            for key in join_keys(snapshot.row.contract)
        }
        self._feast.apply([*entities.values(), *(feature_view(snapshot) for snapshot in snapshots)])

    def pins(self) -> dict[str, Snapshot[Table]]:
        """The snapshot that each registered view reads, by view, as last applied by any process."""
        # Feast's cache is good here: for a registry in a file it looks at the file's time before each use.
        return {view.name: _pin(view) for view in self._feast.list_feature_views(allow_cache=True)}

    def training_set(self, entities: pa.Table, views: Sequence[str]) -> pa.Table:
        """The entities with each view's features as known at each row's own instant.

        Args:
            entities: ``event_timestamp`` (timestamp with a time zone) and the views' key columns; any others are
                passed through.
            views: names of registered views.

        Returns:
            The entities' columns and rows in their order, and a column ``view__feature`` for each feature, of the
            type its row model declares; null where nothing was known.

        Raises:
            UnknownViewError, EntityColumnsError, NaiveTimestampError.
        """
        pins = self._pins_of(views)
        keys = _check_entities(entities, pins, [EVENT_TIMESTAMP])
        clock = entities.schema.field(EVENT_TIMESTAMP).type
        if not pa.types.is_timestamp(clock) or clock.tz is None:
            raise NaiveTimestampError.column(EVENT_TIMESTAMP, str(clock))
        if entities.num_rows == 0:
            return _with_features(entities, pins, lambda _, kind: pa.nulls(0, kind))
        # Only what Feast needs goes through pandas; all else never leaves Arrow.
        frame = entities.select([*keys, EVENT_TIMESTAMP]).to_pandas()
        found = self._feast.get_historical_features(frame, _references(pins), full_feature_names=True).to_arrow()
        return _with_features(entities, pins, lambda name, kind: found[name].cast(kind))

    def materialize(self, day: date) -> list[Materialized]:
        """Bring the online rows of every registered view to the end of that UTC day, in the version it is pinned to.

        What is there already is not written again; a view whose pin or day changed has only its differences written.
        """
        at = end_of(day)
        done = []
        for view in self._feast.list_feature_views():
            state = bring_to(self._provider, self._feast.config, view, _pin(view), at)
            if at not in [end for _, end in view.materialization_intervals]:
                # Feast's clients and its UI show the interval.
                beginning = datetime.min.replace(tzinfo=UTC)
                self._feast.registry.apply_materialization(view, self._feast.project, beginning, at)
            done.append(state)
        return done

    def materialized_at(self, view: str) -> datetime:
        """The instant that the view's online rows stand for. Raises UnknownViewError, NotMaterializedError."""
        self._pins_of([view])
        at = materialized_at(self._online_path, view)
        if at is None:
            raise NotMaterializedError.view(view)
        return at

    def online(self, entities: pa.Table, views: Sequence[str]) -> pa.Table:
        """The entities with each view's features as the online store has them; columns as in ``training_set``.

        Args:
            entities: the views' key columns; any others are passed through.
            views: names of registered views, each materialized.

        Raises:
            UnknownViewError, EntityColumnsError, NotMaterializedError.
        """
        pins = self._pins_of(views)
        keys = _check_entities(entities, pins, [])
        for view in views:
            if materialized_at(self._online_path, view) is None:
                raise NotMaterializedError.view(view)
        references = _references(pins)
        found: defaultdict[str, list[object]] = defaultdict(list)
        for start in range(0, entities.num_rows, _ONLINE_CHUNK):
            asked = {key: entities[key].slice(start, _ONLINE_CHUNK).to_pylist() for key in keys}
            answer = self._feast.get_online_features(references, asked, full_feature_names=True).to_dict()
            for name, values in answer.items():
                found[name].extend(values)
        return _with_features(entities, pins, lambda name, kind: pa.array(found[name], kind))

    @cached_property
    def _feast(self) -> feast.FeatureStore:
        import feast

        self.folder.mkdir(parents=True, exist_ok=True)
        return feast.FeatureStore(config=self._config())

    @cached_property
    def _provider(self) -> Provider:
        from feast.infra.provider import get_provider

        return get_provider(self._feast.config)

    @property
    def _online_path(self) -> Path:
        return self.folder / "online.db"

    def _config(self) -> RepoConfig:
        """The checked-in configuration, with this store's folder in place of the default one."""
        import yaml  # type: ignore[import-untyped]
        from feast.repo_config import RepoConfig

        config = yaml.safe_load((Path(__file__).parent / "feature_store.yaml").read_text())
        config["registry"]["path"] = str(self.folder / "registry.db")
        config["online_store"]["path"] = str(self._online_path)
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
