"""The same views on Feast's Spark store give the same values, from the same pinned versions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

from features.delta_source import DeltaSource
from features.errors import OfflineSourceError
from features.spark_views import on_spark

UTC_US = pa.timestamp("us", tz="UTC")
noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
hour = timedelta(hours=1)
FEATURES = ["shops:sales", "shops:staff", "places:town"]


@pytest.fixture
def views(tmp_path: Path) -> list[FeatureView]:
    """Two views, each pinned to version 0 of a table that has moved on; one with a ttl, created times and a mapping."""
    random = np.random.default_rng(7)

    def instants(low: int, high: int, count: int) -> list[datetime]:
        return [noon + int(minutes) * timedelta(minutes=1) for minutes in random.integers(low, high, count)]

    known = instants(0, 3000, 300)
    shops = pa.table(
        {
            "shop": random.integers(0, 12, 300),
            "known": pa.array(known, UTC_US),
            "made": pa.array([at + int(n) * timedelta(seconds=1) for n, at in enumerate(known)], UTC_US),
            "raw_sales": random.normal(size=300),
            "staff": pa.array(random.integers(0, 9, 300), mask=random.random(300) < 0.2),
        }
    )
    places = pa.table(
        {
            "shop": list(range(9)),
            "since": pa.array(instants(0, 2000, 9), UTC_US),
            "town": ["a", "b", None, "c", "d", "e", "f", "g", "h"],
        }
    )
    for name, table in (("shops", shops), ("places", places)):
        write_deltalake(tmp_path / name, table)
        write_deltalake(tmp_path / name, table.slice(0, 1), mode="overwrite")
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
    return [
        FeatureView(
            name="shops",
            entities=[shop],
            schema=[
                Field(name="shop", dtype=Int64),
                Field(name="sales", dtype=Float64),
                Field(name="staff", dtype=Int64),
            ],
            source=DeltaSource(
                table="shops",
                uri=str(tmp_path / "shops"),
                version=0,
                timestamp_field="known",
                created_timestamp_column="made",
                field_mapping={"raw_sales": "sales"},
            ),
            ttl=timedelta(hours=6),
        ),
        FeatureView(
            name="places",
            entities=[shop],
            schema=[Field(name="shop", dtype=Int64), Field(name="town", dtype=String)],
            source=DeltaSource(table="places", uri=str(tmp_path / "places"), version=0, timestamp_field="since"),
        ),
    ]


def store(folder: Path, offline: dict[str, Any], views: list[FeatureView]) -> FeatureStore:
    config = RepoConfig(
        project="shops",
        provider="local",
        registry={"path": str(folder / f"{offline['type']}.db")},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store=offline,
        entity_key_serialization_version=3,
    )
    made = FeatureStore(config=config)
    made.apply([Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64), *views])
    return made


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Feast calls its Spark store experimental at every use
@pytest.mark.parametrize("as_known", [True, False])
def test_both_stores_give_equal_values(tmp_path: Path, views: list[FeatureView], as_known: bool) -> None:
    from lakehouse.spark import spark_session

    spark_session()  # Feast's store uses the session that runs
    random = np.random.default_rng(8)
    minutes = random.choice(np.arange(-60, 4000), 200, replace=False)
    frame = pd.DataFrame(
        {
            "shop": random.integers(0, 14, 200),
            "event_timestamp": pd.to_datetime([noon + int(n) * timedelta(minutes=1) for n in minutes]),
        }
    )
    delta = store(
        tmp_path, {"type": "features.offline_store.DeltaOfflineStore", "as_corrected": not as_known}, views
    ).get_historical_features(frame, FEATURES, filter_by_created_timestamp=as_known)
    spark = store(tmp_path, {"type": "spark"}, [on_spark(view) for view in views]).get_historical_features(
        frame, FEATURES, filter_by_created_timestamp=as_known
    )
    found = [
        job.to_df().sort_values("event_timestamp", ignore_index=True)[["shop", "sales", "staff", "town"]]
        for job in (delta, spark)
    ]
    assert found[0].notna().sum().min() > 20 and found[0].isna().sum()[["sales", "staff", "town"]].min() > 20
    pd.testing.assert_frame_equal(found[0], found[1], check_dtype=False)


def test_a_view_moved_to_spark_reads_the_pinned_version_and_no_other_kind_is_moved(views: list[FeatureView]) -> None:
    source = on_spark(views[0]).batch_source
    assert source.table_format.properties == {"versionAsOf": "0"}
    assert (source.path, source.timestamp_field) == (views[0].batch_source.uri, "known")
    assert isinstance(views[0].batch_source, DeltaSource)  # the view itself stays as it was
    other = FeatureView(name="other", source=FileSource(path="x.parquet", timestamp_field="at"), schema=[])
    with pytest.raises(OfflineSourceError, match="FileSource"):
        on_spark(other)
