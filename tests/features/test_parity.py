"""The parity check agrees where the paths agree, and finds a value that was tampered with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from features.errors import NotMaterializedError, ServingLogError, UnknownViewError
from features.parity import check_parity, check_served
from features.serving_log import served
from features.store import FeatureStore
from features.tables import UserStats
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from lakehouse.upkeep.fates import Fates, write_fates

Write = Callable[..., Snapshot[Table]]


def users(*values: int) -> pa.Table:
    return pa.table({"user_id": pa.array(values, pa.int64())})


def test_both_paths_agree_after_materialization(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    report = check_parity(store, "user_stats", users(1, 2, 3, 99))
    assert (report.compared, report.different, report.examples) == (16, 0, ())
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
    assert (report.compared, report.different) == (8, 1)
    assert report.examples == ("user_id 1: mean_rating is 3.0000001 online but 3.0 offline",)


def test_a_pin_that_the_online_store_has_not_followed_shows(
    store: FeatureStore, pins: list[Snapshot[Table]], write: Write
) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    stamp = datetime(1998, 3, 2, tzinfo=UTC)
    rows = [
        UserStats(user_id=user, computed_at=stamp, ratings_count=7, mean_rating=1.5, active_days=7, last_rated_us=0)
        for user in (1, 2, 3)
    ]
    store.apply([write(UserStats, rows)])
    report = check_parity(store, "user_stats", users(1, 2, 3))
    assert report.different == 10 and len(report.examples) == 5


def test_a_view_that_was_never_materialized_is_refused(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    with pytest.raises(NotMaterializedError, match="'users'"):
        check_parity(store, "users", users(1))


def log_of(store: FeatureStore, *ids: int) -> pa.Table:
    """What the reader serves of two views of a user, as the serving log keeps it."""
    answer = store.reader(["users", "user_stats"]).read({"user_id": ids})
    keys = {"users": ["user_id"], "user_stats": ["user_id"]}
    return served(answer, {"user_id": ids}, keys, datetime(1998, 3, 5, 8, tzinfo=UTC))


def test_what_was_served_is_compared_with_the_version_and_instant_that_it_came_from(
    store: FeatureStore, pins: list[Snapshot[Table]], write: Write
) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 1))
    early = log_of(store, 1, 2, 99)
    stamp = datetime(1998, 3, 2, tzinfo=UTC)
    rows = [UserStats(user_id=1, computed_at=stamp, ratings_count=7, mean_rating=1.5, active_days=7, last_rated_us=0)]
    store.apply([write(UserStats, rows)])
    store.materialize(date(1998, 3, 4))
    log = pa.concat_tables([early, log_of(store, 1, 2, 99)])
    reports = check_served(store, log)
    assert [(one.view, one.reference, one.at.day, one.different, one.unknown) for one in reports] == [
        ("user_stats", "user_stats@0", 2, 0, 0),
        ("user_stats", "user_stats@1", 5, 0, 0),
        ("users", "users@0", 2, 0, 0),
        ("users", "users@0", 5, 0, 0),
    ]
    assert [one.compared for one in reports] == [12, 12, 12, 12]


def test_a_served_value_that_the_version_does_not_have_is_found(
    store: FeatureStore, pins: list[Snapshot[Table]]
) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    log = log_of(store, 1, 2)
    texts = [text.replace('"mean_rating": 3.0', '"mean_rating": 3.5') for text in log["values"].to_pylist()]
    wrong = log.set_column(log.schema.get_field_index("values"), "values", pa.array(texts))
    (report,) = [one for one in check_served(store, wrong) if one.different]
    assert (report.view, report.different) == ("user_stats", 1)
    assert report.examples == ("user_id 1: mean_rating is 3.5 as served but 3.0 offline",)
    # A sample is drawn by the seed, so a rerun compares the same rows.
    assert check_served(store, wrong, sample=2, seed=1) == check_served(store, wrong, sample=2, seed=1)
    assert sum(one.compared for one in check_served(store, wrong, sample=2)) == 8


def test_a_served_version_that_is_gone_is_counted_and_not_called_different(
    store: FeatureStore, pins: list[Snapshot[Table]]
) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    log = log_of(store, 1, 2)
    write_fates(pins[3].uri, Fates(removed=((0, 0),)))
    found = {one.view: (one.compared, one.different, one.unknown) for one in check_served(store, log)}
    assert found == {"user_stats": (0, 0, 2), "users": (8, 0, 0)}


def test_a_table_that_is_no_serving_log_is_refused(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    with pytest.raises(ServingLogError, match=r"lacks the column\(s\) served_at"):
        check_served(store, users(1))
    store.materialize(date(1998, 3, 4))
    log = log_of(store, 1)
    other = log.set_column(1, "view", pa.array(["userz"] * log.num_rows))
    with pytest.raises(UnknownViewError, match="Did you mean 'users'"):
        check_served(store, other)
    with pytest.raises(ServingLogError, match="'version' must be int64 but is int32"):
        check_served(store, log.set_column(3, "version", log["version"].cast(pa.int32())))
