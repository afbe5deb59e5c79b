"""How do the same views run on Spark, for data beyond one machine? With Feast's Spark store and these sources.

    offline_store:
      type: spark

Spark reads the same Delta version, so both stores give equal values (a test holds them to it). Three things differ and
are Feast's own: rows come back in any order, entities are DataFrames or Spark SQL, and of values corrected later the
newest counts unless ``filter_by_created_timestamp`` is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.errors import OfflineSourceError

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    from features.delta_source import DeltaSource


def on_spark(view: FeatureView) -> FeatureView:
    """The view with the same pinned version as a source for Feast's Spark store; OfflineSourceError if it has none."""
    import copy

    from features.delta_source import DeltaSource

    if not isinstance(view.batch_source, DeltaSource):
        raise OfflineSourceError.not_delta(view.name, type(view.batch_source).__name__)
    moved = copy.copy(view)
    moved.batch_source = spark_source(view.batch_source)
    return moved


def spark_source(source: DeltaSource) -> SparkSource:
    """A Delta version as Spark reads it."""
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.table_format import DeltaFormat

    return SparkSource(
        name=source.name,
        path=source.uri,
        table_format=DeltaFormat(properties={"versionAsOf": str(source.version)}),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        field_mapping=source.field_mapping,
        description=source.description,
        tags=source.tags,
        owner=source.owner,
    )
