"""How does Feast read the past? An offline store over pinned Delta versions, named in feature_store.yaml."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import (
    assert_expected_columns_in_entity_df,
    get_expected_join_keys,
    infer_event_timestamp_from_entity_df,
)
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from features.delta_source import DeltaSource
from features.errors import OfflineSourceError
from features.point_in_time import Lookup, join_as_of, latest_rows, rows_between
from features.views import full_name

if TYPE_CHECKING:
    import pandas as pd
    from feast.data_source import DataSource


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """The store's part of feature_store.yaml: its type alone, for each view's source names its own table."""

    type: Literal["features.offline_store.DeltaOfflineStore"] = "features.offline_store.DeltaOfflineStore"


class DeltaRetrievalJob(RetrievalJob):
    """A read that runs when its result is asked for."""

    def __init__(
        self,
        read: Callable[[], pa.Table],
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

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._read()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._read().to_pandas()
        return frame


class DeltaOfflineStore(OfflineStore):
    """Point-in-time joins and latest rows over DeltaSource, at the version each source is pinned to.

    Entity rows keep their order and number; what was not known is null. Honours ttl, created timestamps, field
    mappings and join key maps. Writing and logging are not its business: tables are published by ``lakehouse``.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **options: object,
    ) -> RetrievalJob:
        """Feast's entry point for training sets; the entity frame's timestamps must have a time zone."""
        import pandas as pd

        if not isinstance(entity_df, pd.DataFrame):
            raise OfflineSourceError.entity_frame("no frame at all" if entity_df is None else "SQL")
        types = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
        time = infer_event_timestamp_from_entity_df(types)
        assert_expected_columns_in_entity_df(types, get_expected_join_keys(project, feature_views, registry), time)
        entities = pa.Table.from_pandas(entity_df, preserve_index=False)
        lookups = [_lookup(view, feature_refs, full_feature_names) for view in feature_views]
        return DeltaRetrievalJob(
            lambda: join_as_of(entities, time, lookups),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entities.column_names if name != time],
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
        return DeltaRetrievalJob(
            lambda: latest_rows(
                source.snapshot(),
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_at=created_timestamp_column or None,
                start=start_date,
                end=end_date,
            )
        )

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
        return DeltaRetrievalJob(
            lambda: rows_between(
                source.snapshot(),
                [*join_key_columns, *feature_name_columns],
                timestamp_field,
                created_at=created_timestamp_column or None,
                start=start_date,
                end=end_date,
            )
        )


def _lookup(view: FeatureView, feature_refs: list[str], full_feature_names: bool) -> Lookup:
    """A view's part of the join; Feast's names on the left, the table's own columns on the right."""
    source = _delta(view.batch_source, view.name)
    column = {feature: name for name, feature in source.field_mapping.items()}
    called = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    # A reference is view:feature or view@version:feature.
    features = [ref.partition(":")[2] for ref in feature_refs if ref.partition(":")[0].partition("@")[0] == called]
    keys = [key.name for key in view.entity_columns]
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
    )


def _delta(source: DataSource | None, name: str) -> DeltaSource:
    if not isinstance(source, DeltaSource):
        raise OfflineSourceError.not_delta(name, type(source).__name__)
    return source
