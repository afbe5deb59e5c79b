"""The parity check agrees where the paths agree, and finds a value that was tampered with."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from features.errors import NotMaterializedError
from features.parity import check_parity
from features.store import FeatureStore
from lakehouse.snapshot import Snapshot
from lakehouse.table import Table


def users(*values: int) -> pa.Table:
    return pa.table({"user_id": pa.array(values, pa.int64())})


def test_both_paths_agree_after_materialization(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    report = check_parity(store, "user_stats", users(1, 2, 3, 99))
    assert (report.compared, report.different, report.examples) == (12, 0, ())
    assert (report.reference, report.at) == ("user_stats@0", datetime(1998, 3, 5, tzinfo=UTC))
    movies = pa.table({"item_id": pa.array([10, 20, 30], pa.int64())})
    assert check_parity(store, "movies", movies).different == 0


def test_a_planted_difference_is_found_and_named(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    view = store._feast.get_feature_view("user_stats")
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=1)])
    planted = {"mean_rating": Value(double_val=3.0000001)}
    store._provider.online_write_batch(
        store._feast.config, view, [(key, planted, datetime(1998, 3, 5, tzinfo=UTC), None)], None
    )
    report = check_parity(store, "user_stats", users(2, 1))
    assert (report.compared, report.different) == (6, 1)
    assert report.examples == ("user_id 1: mean_rating is 3.0000001 online but 3.0 offline",)


def test_a_pin_that_the_online_store_has_not_followed_shows(
    store: FeatureStore, pins: list[Snapshot[Table]], write: object
) -> None:
    from features.tables import UserStats

    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    stamp = datetime(1998, 3, 2, tzinfo=UTC)
    rows = [
        UserStats(user_id=user, computed_at=stamp, ratings_count=7, mean_rating=1.5, active_days=7)
        for user in (1, 2, 3)
    ]
    store.apply([write(UserStats, rows)])  # type: ignore[operator]
    report = check_parity(store, "user_stats", users(1, 2, 3))
    assert report.different == 9 and len(report.examples) == 5


def test_a_view_that_was_never_materialized_is_refused(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    with pytest.raises(NotMaterializedError, match="'users'"):
        check_parity(store, "users", users(1))
