"""How does Feast read the past? An offline store over pinned Delta versions, named in feature_store.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL, FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from features.delta_source import DeltaSource, SavedDatasetDeltaStorage
from features.entity_frame import EntityFrame
from features.errors import EntityColumnsError, OfflineSourceError
from features.point_in_time import (
    SLICE_ROWS,
    Lookup,
    check_entities,
    join_slices,
    joined_schema,
    latest_rows,
    rows_between,
)
from features.views import full_name

if TYPE_CHECKING:
    import pandas as pd
    from feast.data_source import DataSource
    from feast.saved_dataset import SavedDatasetStorage

    from lakehouse.contracts.table import Table
    from lakehouse.snapshot import Snapshot


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """The store's part of feature_store.yaml; all but its type may be left out.

    Attributes:
        lake: the lake that entities given as SQL are asked of; by default the one that the settings name.
        as_corrected: also values that were written down after an entity row's instant count (by the source's created
            timestamp). By default a row is given what was known then.
        slice_rows: entity rows that are joined at once; memory follows it.
    """

    type: Literal["features.offline_store.DeltaOfflineStore"] = "features.offline_store.DeltaOfflineStore"
    lake: str | None = None
    as_corrected: bool = False
    slice_rows: int = SLICE_ROWS


class DeltaRetrievalJob(RetrievalJob):
    """A read that runs when its result is asked for, each time anew."""

    def __init__(
        self,
        read: Callable[[], pa.RecordBatchReader],
        *,
        full_feature_names: bool = False,
        on_demand_feature_views: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._read = read
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = on_demand_feature_views or []
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether features are called view__feature in the result."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views that Feast computes from the result."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def to_reader(self) -> pa.RecordBatchReader:
        """The result as a stream, of which only a slice is held; OfflineSourceError with on-demand views."""
        if self._on_demand_feature_views:
            raise OfflineSourceError.on_demand([view.name for view in self._on_demand_feature_views])
        return self._read()

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result as the next version of a plain Delta table, which the storage then names.

        Raises:
            SavedDatasetLocationAlreadyExists: Feast's error for a table that is there and may not be overwritten.
        """
        from deltalake import DeltaTable, write_deltalake
        from feast.errors import SavedDatasetLocationAlreadyExists

        if not isinstance(storage, SavedDatasetDeltaStorage):
            raise OfflineSourceError.not_delta("of the saved dataset", type(storage).__name__)
        if DeltaTable.is_deltatable(storage.uri) and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=storage.uri)
        if self._on_demand_feature_views:
            result = self.to_arrow().to_reader()
        else:
            stream = self._read()
            result = pa.RecordBatchReader.from_batches(stream.schema, read_ahead(stream))
        write_deltalake(storage.uri, result, mode="overwrite", schema_mode="overwrite")
        storage.version = DeltaTable(storage.uri).version()

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table = self._read().read_all()
        # In one chunk where it is materialized: Feast's writer takes a table's first chunk for the whole of it.
        return table.combine_chunks() if self._metadata is None and table.num_rows else table

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame


class DeltaOfflineStore(OfflineStore):
    """Point-in-time joins and latest rows over DeltaSource, at the version each source is pinned to.

    Entity rows keep their order and number; what was not known is null. Honours ttl, created timestamps, field
    mappings and join key maps. Writing and logging are not its business: tables are published by ``lakehouse``.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | Snapshot[Table] | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """Feast's entry point for training sets.

        Args:
            entity_df: the entities with their instants, which must have a time zone: a DataFrame, an Arrow table, a
                snapshot (read as a stream), or SQL, which is asked of the lake once, here. None stands for every
                entity with a row from ``start_date`` to ``end_date``, as known at the end.
            filter_by_created_timestamp: what was known then and not what was corrected later, whatever is configured.
        """
        store = config.offline_store
        assert isinstance(store, DeltaOfflineStoreConfig)
        as_corrected = store.as_corrected and not filter_by_created_timestamp
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        # What on-demand views are computed from is looked up as well.
        used = [projection for view in on_demand for projection in view.source_feature_view_projections.values()]
        inputs = [f"{projection.name}:{field.name}" for projection in used for field in projection.features]
        asked = list(dict.fromkeys([*feature_refs, *inputs]))
        lookups = [_lookup(view, asked, full_feature_names, as_corrected) for view in feature_views]
        if entity_df is None:
            entities = EntityFrame.between(feature_views, lookups, start_date, end_date)
        else:
            entities = EntityFrame.of(entity_df, store.lake)
        check_entities(entities.schema, entities.time, lookups)
        schema = joined_schema(entities.schema, lookups)
        doubled = [name for name in dict.fromkeys(schema.names) if schema.names.count(name) > 1]
        if doubled:
            raise EntityColumnsError.taken(doubled)

        def read() -> pa.RecordBatchReader:
            slices = join_slices(
                entities.schema, entities.batches(), entities.time, lookups, slice_rows=store.slice_rows
            )
            return pa.RecordBatchReader.from_batches(schema, (batch for part in slices for batch in part.to_batches()))

        first, last = entities.span()
        return DeltaRetrievalJob(
            read,
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.schema.names if name != entities.time],
                min_event_timestamp=first,
                max_event_timestamp=last,
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Feast's entry point for the newest row of each key from ``start_date`` to ``end_date``, both included."""
        source = _delta(data_source, data_source.name)

        def read() -> pa.RecordBatchReader:
            return latest_rows(
                source.snapshot(),
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_at=created_timestamp_column or None,
                start=start_date,
                end=end_date,
            ).to_reader()

        return DeltaRetrievalJob(read if join_key_columns else lambda: _of_no_entity(read()))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Feast's entry point for every row from ``start_date`` to ``end_date``, both included."""
        source = _delta(data_source, data_source.name)
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]

        def read() -> pa.RecordBatchReader:
            wanted = [column for column in columns if column]
            return rows_between(source.snapshot(), wanted, timestamp_field, start=start_date, end=end_date)

        return DeltaRetrievalJob(read if join_key_columns else lambda: _of_no_entity(read()))


def read_ahead(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, each made in a thread of its own while the one before is used.

    delta-rs writes a stream from within its runtime, in which no other table can be opened.
    """
    rest = iter(batches)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, rest, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, rest, None)
            yield batch


def _of_no_entity(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The rows with what Feast calls the entity of features that have none."""
    schema = rows.schema.append(pa.field(DUMMY_ENTITY_ID, pa.string()))
    named = (
        pa.RecordBatch.from_arrays([*batch.columns, pa.array([DUMMY_ENTITY_VAL] * batch.num_rows)], schema=schema)
        for batch in rows
    )
    return pa.RecordBatchReader.from_batches(schema, named)


def _lookup(view: FeatureView, feature_refs: list[str], full_feature_names: bool, as_corrected: bool) -> Lookup:
    """A view's part of the join; Feast's names on the left, the table's own columns on the right."""
    source = _delta(view.batch_source, view.name)
    column = {feature: name for name, feature in source.field_mapping.items()}
    called = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    # A reference is view:feature or view@version:feature.
    features = [ref.partition(":")[2] for ref in feature_refs if ref.partition(":")[0].partition("@")[0] == called]
    keys = [key.name for key in view.entity_columns if key.name != DUMMY_ENTITY_ID]
    return Lookup(
        snapshot=source.snapshot(),
        keys=tuple((view.projection.join_key_map.get(key, key), column.get(key, key)) for key in keys),
        features=tuple(
            (full_name(called, feature) if full_feature_names else feature, column.get(feature, feature))
            for feature in dict.fromkeys(features)
        ),
        known_at=column.get(source.timestamp_field, source.timestamp_field),
        created_at=column.get(source.created_timestamp_column, source.created_timestamp_column) or None,
        ttl=view.ttl or None,
        as_corrected=as_corrected,
    )


def _delta(source: DataSource | None, name: str) -> DeltaSource:
    if not isinstance(source, DeltaSource):
        raise OfflineSourceError.not_delta(name, type(source).__name__)
    return source
