"""The offline store through Feast's own calls: what it takes as entities, what it refuses, how it streams and saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import Entity, FeatureService, FeatureView, Field
from feast import FeatureStore as Feast
from feast.repo_config import RepoConfig
from feast.types import Float64, Int64
from feast.value_type import ValueType

from features.delta_source import DeltaSource, SavedDatasetDeltaStorage
from features.errors import EntityColumnsError, NaiveTimestampError, OfflineSourceError
from lakehouse import Lakehouse
from lakehouse.contracts.table import EventTime, Key, Table, declared_tables
from lakehouse.errors import ContractMismatchError, StorageError, UnknownVersionError
from lakehouse.snapshot import Snapshot

UTC_US = pa.timestamp("us", tz="UTC")
noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
hour = timedelta(hours=1)
FEATURES = ["shops:sales", "shops:staff"]


@pytest.fixture
def shops(lake: Lakehouse) -> str:
    """(shop, at, made, sales, staff): shop 1 at noon, corrected two hours later, and at 3; shop 2 at 1."""
    uri = lake.uri("shops")
    rows = [(1, 0, 0, 5.0, 2), (1, 0, 2, 6.0, 2), (2, 1, 1, 7.0, None), (1, 3, 3, 9.0, 3)]
    write_deltalake(
        uri,
        pa.table(
            {
                "shop": pa.array([row[0] for row in rows], pa.int64()),
                "at": pa.array([noon + row[1] * hour for row in rows], UTC_US),
                "made": pa.array([noon + row[2] * hour for row in rows], UTC_US),
                "sales": pa.array([row[3] for row in rows], pa.float64()),
                "staff": pa.array([row[4] for row in rows], pa.int64()),
            }
        ),
    )
    return uri


def feast_over(
    folder: Path, uri: str, *, offline: dict[str, Any] | None = None, version: int = 0, created: str = "made"
) -> Feast:
    config = RepoConfig(
        project="shops",
        provider="local",
        registry={"path": str(folder / "registry.db")},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "features.offline_store.DeltaOfflineStore", **(offline or {})},
        entity_key_serialization_version=3,
        coerce_tz_aware=False,
    )
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
    view = FeatureView(
        name="shops",
        entities=[shop],
        schema=[Field(name="shop", dtype=Int64), Field(name="sales", dtype=Float64), Field(name="staff", dtype=Int64)],
        source=DeltaSource(
            table="shops", uri=uri, version=version, timestamp_field="at", created_timestamp_column=created
        ),
        ttl=timedelta(days=2),
    )
    client = Feast(config=config)
    client.apply([shop, view])
    return client


@pytest.fixture
def client(tmp_path: Path, shops: str) -> Feast:
    return feast_over(tmp_path, shops)


def asked(rows: Sequence[tuple[int | None, datetime]]) -> pa.Table:
    shops, instants = zip(*rows, strict=True)
    return pa.table({"shop": pa.array(shops, pa.int64()), "event_timestamp": pa.array(instants, UTC_US)})


ROWS = asked([(2, noon + hour), (1, noon + hour), (1, noon + 2 * hour), (3, noon), (1, noon + 5 * hour), (None, noon)])
SALES = [7.0, 5.0, 6.0, None, 9.0, None]


def test_arrow_pandas_and_snapshots_of_entities_give_the_same_rows(
    client: Feast, lake: Lakehouse, tmp_path: Path
) -> None:
    write_deltalake(lake.uri("asked"), ROWS)
    frame = pd.DataFrame({name: ROWS[name].to_pandas() for name in ROWS.column_names})
    frame["shop"] = frame["shop"].astype("Int64")
    for entities in (ROWS, frame, Snapshot(lake.uri("asked"), 0)):
        answer = client.get_historical_features(entities, FEATURES).to_arrow()
        assert answer.column_names == ["shop", "event_timestamp", "sales", "staff"]
        assert answer["shop"].to_pylist() == ROWS["shop"].to_pylist()
        assert answer["sales"].to_pylist() == SALES
        assert answer["staff"].to_pylist() == [None, 2, 2, None, 3, None]


def test_entities_may_be_sql_on_the_lake_with_a_pinned_version(client: Feast, lake: Lakehouse) -> None:
    write_deltalake(lake.uri("asked"), ROWS)
    write_deltalake(lake.uri("asked"), ROWS.slice(0, 1), mode="overwrite")
    answer = client.get_historical_features(
        "SELECT shop, event_timestamp FROM asked@0 WHERE shop = 1 ORDER BY event_timestamp", FEATURES
    ).to_arrow()
    assert answer["sales"].to_pylist() == [5.0, 6.0, 9.0]


def test_without_entities_every_entity_between_the_dates_is_asked_about_at_the_end(client: Feast) -> None:
    answer = client.get_historical_features(
        features=FEATURES, start_date=noon + hour, end_date=noon + 3 * hour
    ).to_arrow()
    assert answer.to_pylist() == [
        {"shop": 1, "event_timestamp": noon + 3 * hour, "sales": 9.0, "staff": 3},
        {"shop": 2, "event_timestamp": noon + 3 * hour, "sales": 7.0, "staff": None},
    ]
    early = client.get_historical_features(features=FEATURES, start_date=noon, end_date=noon).to_arrow()
    assert early["shop"].to_pylist() == [1]


def test_corrections_count_only_where_they_are_asked_for(tmp_path: Path, shops: str) -> None:
    corrected = feast_over(tmp_path, shops, offline={"as_corrected": True})
    answer = corrected.get_historical_features(ROWS, FEATURES).to_arrow()
    assert answer["sales"].to_pylist() == [7.0, 6.0, 6.0, None, 9.0, None]
    as_known = corrected.get_historical_features(ROWS, FEATURES, filter_by_created_timestamp=True).to_arrow()
    assert as_known["sales"].to_pylist() == SALES


def test_a_small_slice_gives_the_same_rows_as_a_stream(tmp_path: Path, shops: str) -> None:
    job = feast_over(tmp_path, shops, offline={"slice_rows": 2}).get_historical_features(ROWS, FEATURES)
    batches = list(job.to_reader())
    assert [batch.num_rows for batch in batches] == [2, 2, 2]
    assert pa.Table.from_batches(batches)["sales"].to_pylist() == SALES
    assert job.to_arrow()["sales"].to_pylist() == SALES  # it may be asked again


def test_no_entity_rows_give_no_rows_and_the_same_columns(client: Feast) -> None:
    answer = client.get_historical_features(ROWS.slice(0, 0), FEATURES).to_arrow()
    assert answer.schema.equals(client.get_historical_features(ROWS, FEATURES).to_arrow().schema)
    assert answer.num_rows == 0


def test_a_result_is_saved_as_a_delta_table_and_found_again_at_its_version(client: Feast, tmp_path: Path) -> None:
    uri = str(tmp_path / "saved")
    job = client.get_historical_features(ROWS, FEATURES)
    with pytest.warns(RuntimeWarning, match="experimental"):
        saved = client.create_saved_dataset(job, "first", SavedDatasetDeltaStorage(uri))
    assert DeltaTable(uri).to_pyarrow_table().equals(job.to_arrow())
    write_deltalake(uri, job.to_arrow().slice(0, 1), mode="overwrite")
    again = client.get_saved_dataset("first")
    assert again.storage == saved.storage == SavedDatasetDeltaStorage(uri, 0)
    assert again.to_arrow()["sales"].to_pylist() == SALES


def test_a_saved_result_is_replaced_only_on_demand(client: Feast, tmp_path: Path) -> None:
    from feast.errors import SavedDatasetLocationAlreadyExists

    storage = SavedDatasetDeltaStorage(str(tmp_path / "saved"))
    client.get_historical_features(ROWS, FEATURES).persist(storage)
    fewer = client.get_historical_features(ROWS.slice(0, 1), FEATURES[:1])
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        fewer.persist(storage)
    fewer.persist(storage, allow_overwrite=True)
    assert (storage.version, DeltaTable(storage.uri).to_pyarrow_table().num_rows) == (1, 1)


def test_an_on_demand_view_is_computed_from_the_result_and_not_from_a_stream(client: Feast) -> None:
    from feast import OnDemandFeatureView

    source = (
        "def per_head(frame):\n"
        "    import pandas as pd\n"
        "    return pd.DataFrame({'sales_per_head': frame['sales'] / frame['staff']})\n"
    )
    per_head = OnDemandFeatureView(
        name="per_head",
        sources=[client.get_feature_view("shops")],
        schema=[Field(name="sales_per_head", dtype=Float64)],
        udf=lambda frame: pd.DataFrame({"sales_per_head": frame["sales"] / frame["staff"]}),
        udf_string=source,
        mode="pandas",
    )
    client.apply([per_head])
    job = client.get_historical_features(ROWS.slice(1, 2), ["shops:sales", "per_head:sales_per_head"])
    assert job.to_arrow()["sales_per_head"].to_pylist() == [2.5, 3.0]
    with pytest.raises(OfflineSourceError, match="per_head"):
        job.to_reader()


def test_features_of_no_entity_are_known_to_all(tmp_path: Path, shops: str) -> None:
    client = feast_over(tmp_path, shops)
    everywhere = FeatureView(
        name="everywhere",
        entities=[],
        schema=[Field(name="sales", dtype=Float64)],
        source=DeltaSource(table="shops", uri=shops, version=0, timestamp_field="at"),
    )
    client.apply([everywhere])
    answer = client.get_historical_features(asked([(9, noon - hour), (9, noon + hour)]), ["everywhere:sales"])
    assert answer.to_arrow()["sales"].to_pylist() == [None, 7.0]
    client.materialize(noon - hour, noon + 4 * hour, ["everywhere"])
    assert client.get_online_features(["everywhere:sales"], [{"shop": 4}]).to_dict()["sales"] == [9.0]


def test_keys_of_two_columns_match_as_a_pair(tmp_path: Path) -> None:
    from features.point_in_time import Lookup, join_as_of

    uri = str(tmp_path / "pairs")
    write_deltalake(
        uri, pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"], "at": pa.array([noon] * 3, UTC_US), "v": [10, 20, 30]})
    )
    entities = pa.table(
        {
            "a": pa.array([2, 1, 1, 2, None], pa.int32()),  # a narrower integer is the same key
            "b": pa.array(["x", "y", "z", "y", "x"]).dictionary_encode(),
            "at": pa.array([noon] * 5, UTC_US),
        }
    )
    pairs = Lookup(Snapshot(uri, 0), (("a", "a"), ("b", "b")), (("v", "v"),), known_at="at")
    assert join_as_of(entities, "at", [pairs])["v"].to_pylist() == [30, 20, None, None, None]


def test_dates_and_times_without_a_zone_in_a_source_are_utc(tmp_path: Path) -> None:
    from features.point_in_time import Lookup, join_as_of, rows_between

    for kind in (pa.date32(), pa.timestamp("us")):
        uri = str(tmp_path / str(kind)[:4])
        days = pa.array([datetime(2024, 1, 1), datetime(2024, 1, 3)], pa.timestamp("us")).cast(kind)
        write_deltalake(uri, pa.table({"shop": [1, 1], "at": days, "v": [10, 30]}))
        lookup = Lookup(Snapshot(uri, 0), (("shop", "shop"),), (("v", "v"),), known_at="at")
        midnight = datetime(2024, 1, 3, tzinfo=UTC)
        rows = asked([(1, midnight - timedelta(microseconds=1)), (1, midnight)])
        assert join_as_of(rows, "event_timestamp", [lookup])["v"].to_pylist() == [10, 30]
        read = rows_between(Snapshot(uri, 0), ["v"], "at", start=midnight, end=midnight).read_all()
        assert read.to_pylist() == [{"v": 30, "at": midnight}]


def test_instants_from_one_end_of_the_calendar_to_the_other_are_joined_exactly(tmp_path: Path) -> None:
    from features.point_in_time import Lookup, join_as_of

    uri = str(tmp_path / "wide")
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    count = 100
    write_deltalake(
        uri,
        pa.table({"shop": list(range(count)), "at": pa.array([noon] * count, UTC_US), "v": list(range(count))}),
    )
    rows = asked([(shop, instant) for shop in range(count) for instant in (last, noon, noon - hour, first)])
    lookup = Lookup(Snapshot(uri, 0), (("shop", "shop"),), (("v", "v"),), known_at="at")
    found = join_as_of(rows, "event_timestamp", [lookup])["v"].to_pylist()
    assert found == [value for shop in range(count) for value in (shop, shop, None, None)]


def test_entities_that_can_not_be_joined_are_refused_by_type(client: Feast) -> None:
    def ask(entities: object, features: Sequence[str] = FEATURES) -> None:
        client.get_historical_features(entities, list(features)).to_arrow()

    stamps = pd.to_datetime([noon, noon])
    with pytest.raises(EntityColumnsError, match="says at which instant"):
        ask(ROWS.select(["shop"]))
    with pytest.raises(NaiveTimestampError, match="event_timestamp"):
        ask(pd.DataFrame({"shop": [1], "event_timestamp": [pd.Timestamp("2024-01-01")]}))
    with pytest.raises(EntityColumnsError, match="Did you mean 'shopp'"):
        ask(ROWS.rename_columns(["shopp", "event_timestamp"]))
    with pytest.raises(EntityColumnsError, match="mixes int and str"):
        ask(pd.DataFrame({"shop": [1, "2"], "event_timestamp": stamps}))
    with pytest.raises(EntityColumnsError, match="'shop' must be int64 but is string"):
        ask(pd.DataFrame({"shop": ["1", "2"], "event_timestamp": stamps}))
    with pytest.raises(EntityColumnsError, match="'event_timestamp' is null in 1 row"):
        ask(ROWS.slice(0, 2).set_column(1, "event_timestamp", pa.array([noon, None], UTC_US)))
    with pytest.raises(EntityColumnsError, match="called as a feature that was asked for: sales"):
        ask(ROWS.append_column("sales", pa.nulls(ROWS.num_rows)))
    with pytest.raises(OfflineSourceError, match="as list"):
        ask([1])


def test_a_version_that_vacuum_removed_is_named(tmp_path: Path, shops: str) -> None:
    client = feast_over(tmp_path, shops)
    rows = DeltaTable(shops).to_pyarrow_table()
    write_deltalake(shops, rows.slice(0, 1), mode="overwrite")
    DeltaTable(shops).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(StorageError, match=r"shops@0 .*parquet"):
        client.get_historical_features(ROWS, FEATURES).to_arrow()
    table = DeltaTable(shops)
    table.create_checkpoint()
    (Path(shops) / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(UnknownVersionError, match="Version 0 of table 'shops'"):
        client.get_historical_features(ROWS, FEATURES).to_arrow()


def test_a_view_whose_tables_contract_changed_is_refused_with_the_column(
    tmp_path: Path, shops: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = feast_over(tmp_path, shops)

    class Shop(Table, name="shops_as_declared_later"):
        """A shop, whose sales are now whole numbers."""

        shop: Annotated[int, Key()]
        at: Annotated[datetime, Key(), EventTime()]
        made: datetime
        sales: int
        staff: int | None

    monkeypatch.setattr("features.delta_source.declared_tables", lambda: {**declared_tables(), "shops": Shop})
    with pytest.raises(ContractMismatchError, match="column sales is declared int64 but stored as double"):
        client.get_historical_features(ROWS, FEATURES).to_arrow()
    monkeypatch.undo()
    gone = DeltaTable(shops).to_pyarrow_table().drop_columns(["sales"])
    write_deltalake(shops, gone, mode="overwrite", schema_mode="overwrite")
    again = feast_over(tmp_path, shops, version=1)
    with pytest.raises(OfflineSourceError, match=r"shops@1 lacks the column\(s\) sales"):
        again.get_historical_features(ROWS, FEATURES)


def test_only_asked_columns_and_times_are_read(client: Feast, monkeypatch: pytest.MonkeyPatch, shops: str) -> None:
    scans: list[tuple[object, object]] = []
    scan: Callable[..., pa.RecordBatchReader] = Snapshot.scan

    def spy(self: Snapshot[Table], columns: Sequence[str], where: Sequence[object]) -> pa.RecordBatchReader:
        scans.append((list(columns), list(where)))
        return scan(self, columns, where)

    monkeypatch.setattr(Snapshot, "scan", spy)
    client.get_historical_features(asked([(1, noon), (1, noon + hour)]), ["shops:sales"]).to_arrow()
    bounds = [("at", ">=", noon - timedelta(days=2)), ("at", "<=", noon + hour)]
    assert scans == [(["shop", "sales", "at", "made"], bounds)]


def test_a_service_with_renamed_keys_asks_a_view_twice(client: Feast) -> None:
    view = client.get_feature_view("shops")
    service = FeatureService(
        name="pairs",
        features=[
            view[["sales"]].with_name("here").with_join_key_map({"shop": "here_id"}),
            view[["sales"]].with_name("there").with_join_key_map({"shop": "there_id"}),
        ],
    )
    client.apply([service])
    rows = pa.table({"here_id": [1, 2], "there_id": [2, 1], "event_timestamp": pa.array([noon + hour] * 2, UTC_US)})
    answer = client.get_historical_features(rows, service, full_feature_names=True).to_arrow()
    assert (answer["here__sales"].to_pylist(), answer["there__sales"].to_pylist()) == ([5.0, 7.0], [7.0, 5.0])


def test_features_are_called_as_feast_calls_them_and_a_name_of_two_views_needs_the_view(client: Feast) -> None:
    from feast.errors import FeatureNameCollisionError

    view = client.get_feature_view("shops")
    # Feast gives back the keys as given, then the features in the order asked for.
    short = client.get_historical_features(ROWS, ["shops:staff", "shops:sales"]).to_arrow()
    assert short.column_names == ["shop", "event_timestamp", "staff", "sales"]
    full = client.get_historical_features(ROWS, ["shops:staff", "shops:sales"], full_feature_names=True).to_arrow()
    assert full.column_names == ["shop", "event_timestamp", "shops__staff", "shops__sales"]
    assert full["shops__sales"].to_pylist() == short["sales"].to_pylist() == SALES
    other = FeatureView(
        name="others", entities=[client.get_entity("shop")], schema=view.schema, source=view.batch_source
    )
    client.apply([other])
    both = ["shops:sales", "others:sales"]
    with pytest.raises(FeatureNameCollisionError):
        client.get_historical_features(ROWS, both)
    answer = client.get_historical_features(ROWS, both, full_feature_names=True).to_arrow()
    assert answer["shops__sales"].to_pylist() == answer["others__sales"].to_pylist() == SALES


def test_a_service_asks_for_its_features_by_name(client: Feast) -> None:
    client.apply([FeatureService(name="daily", features=[client.get_feature_view("shops")[["sales"]]])])
    answer = client.get_historical_features(ROWS, client.get_feature_service("daily")).to_arrow()
    assert answer.column_names == ["shop", "event_timestamp", "sales"] and answer["sales"].to_pylist() == SALES


def test_other_columns_of_the_entities_are_kept_and_rows_asked_twice_are_answered_twice(client: Feast) -> None:
    rows = pa.concat_tables([ROWS, ROWS]).append_column("label", pa.array(range(2 * ROWS.num_rows)))
    answer = client.get_historical_features(rows, FEATURES).to_arrow()
    assert answer.select(rows.column_names).equals(rows) and answer["sales"].to_pylist() == 2 * SALES
