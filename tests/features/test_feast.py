"""Feast's own command line and clients work on the views, and the plug-in honours what Feast's views can say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from features.errors import NaiveTimestampError, OfflineSourceError
from features.store import FeatureStore
from lakehouse.contracts.table import Table
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.snapshot import Snapshot

PROJECT = Path(__file__).parents[2]
noon = datetime(1998, 3, 1, 12, tzinfo=UTC)


def test_feast_apply_registers_the_published_versions(
    tmp_path: Path, pins: list[Snapshot[Table]], write: Callable[..., Snapshot[Table]]
) -> None:
    import feast

    lake = Lakehouse.open(tmp_path / "lake", create=True)
    published = pins[:4]  # item_stats is there but not published
    lake.ledger.append([publication(pin) for pin in published])
    write(pins[3].row, [])  # a newer version, not published
    repo = tmp_path / "features"
    repo.mkdir()
    (tmp_path / "flyte.yaml").touch()  # marks the project's root, as in the repository
    for name in ("feature_store.yaml", "definitions.py", ".feastignore"):
        shutil.copy(PROJECT / "features" / name, repo)
    environment = {**os.environ, "LAKEHOUSE_ROOT": lake.root, "PYTHONPATH": str(PROJECT)}
    feast_command = [str(Path(sys.executable).parent / "feast"), "-c", "features", "apply"]
    result = subprocess.run(feast_command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr

    client = feast.FeatureStore(repo_path=str(repo))
    views = {view.name: view.batch_source.snapshot() for view in client.list_feature_views()}
    assert views == {pin.name: pin for pin in published}
    assert [view.name for view in client.list_on_demand_feature_views()] == ["user_stats_at_request"]

    # Feast's own way of materializing reads through the plug-in, too.
    client.materialize(noon - timedelta(days=60), datetime(1998, 3, 5, tzinfo=UTC), ["users", "user_stats", "movies"])
    answer = client.get_online_features(["user_stats:mean_rating", "users:age"], [{"user_id": 1}]).to_dict()
    assert (answer["mean_rating"], answer["age"]) == ([3.0], [30])
    asked = {"user_id": 1, "event_timestamp": datetime(1970, 1, 3, 12, tzinfo=UTC)}  # rated at the epoch, says the row
    assert client.get_online_features(["user_stats_at_request:days_since_rating"], [asked]).to_dict() == {
        "user_id": [1],
        "days_since_rating": [2.5],
    }


def test_the_checked_in_configuration_works_from_the_repository_root() -> None:
    listed = {path.name for path in (PROJECT / "features").glob("*.py")} - {"__init__.py"}
    ignored = {
        line for line in (PROJECT / "features" / ".feastignore").read_text().split("\n") if line and line[0] != "#"
    }
    assert ignored == listed - {"definitions.py"}


def publication(pin: Snapshot[Table]) -> Publication:
    return Publication(
        publication_id=f"{pin.name}/first",
        table_name=pin.name,
        batch_id="first",
        day=date(1998, 3, 4),
        version=pin.version,
        published=True,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint=pin.row.contract.fingerprint,
        published_at=noon,
    )


def test_naive_timestamps_in_feasts_own_call_are_refused(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    frame = pd.DataFrame({"user_id": [1], "event_timestamp": [pd.Timestamp("1998-03-04")]})
    with pytest.raises(NaiveTimestampError, match="event_timestamp"):
        store._feast.get_historical_features(frame, ["users:age"]).to_df()
    with pytest.raises(OfflineSourceError, match="as list"):
        store._feast.get_historical_features([1], ["users:age"])


def test_ttl_created_timestamps_field_mappings_and_renamed_keys_are_honoured(
    store: FeatureStore, tmp_path: Path
) -> None:
    from feast import Entity, FeatureView, Field
    from feast.types import Int64
    from feast.value_type import ValueType

    from features.delta_source import DeltaSource

    utc = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "shop": pa.array([1, 1, 2], pa.int64()),
            "at": pa.array([noon, noon, noon], utc),
            "made": pa.array([noon, noon + timedelta(hours=1), noon], utc),
            "raw sales": pa.array([5, 6, 7], pa.int64()),
        }
    )
    write_deltalake(tmp_path / "shops", table)
    source = DeltaSource(
        table="shops",
        uri=str(tmp_path / "shops"),
        version=0,
        timestamp_field="at",
        created_timestamp_column="made",
        field_mapping={"raw sales": "sales"},
    )
    entity = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
    view = FeatureView(
        name="shops",
        entities=[entity],
        schema=[Field(name="shop", dtype=Int64), Field(name="sales", dtype=Int64)],
        source=source,
        ttl=timedelta(days=1),
    )
    store._feast.apply([entity, view])
    frame = pd.DataFrame(
        {
            "shop": [2, 1, 1, 3],
            "event_timestamp": [noon + timedelta(days=1), noon + timedelta(days=1, microseconds=1), noon, noon],
        }
    )
    answer = store._feast.get_historical_features(frame, ["shops:sales"]).to_arrow()
    assert answer["shop"].to_pylist() == [2, 1, 1, 3]
    assert answer["sales"].to_pylist() == [7, None, 5, None]  # 6 was written down an hour after noon


def test_renamed_views_and_keys_join_several_times(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    from feast import FeatureService

    store.apply(pins)
    users = store._feast.get_feature_view("users")
    service = FeatureService(
        name="pairs",
        features=[
            users[["age"]].with_name("first").with_join_key_map({"user_id": "first_id"}),
            users[["age"]].with_name("second").with_join_key_map({"user_id": "second_id"}),
        ],
    )
    frame = pd.DataFrame({"first_id": [1, 2], "second_id": [3, 1], "event_timestamp": [noon + timedelta(days=9)] * 2})
    store._feast.apply([service])
    answer = store._feast.get_historical_features(frame, service, full_feature_names=True).to_arrow()
    assert answer["first__age"].to_pylist() == [30, 41]
    assert answer["second__age"].to_pylist() == [19, 30]
