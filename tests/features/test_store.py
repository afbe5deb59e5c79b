"""Training sets come from the pinned versions; the online store follows day and pin, and only them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import EntityColumnsError, NaiveTimestampError, NotMaterializedError, UnknownViewError
from features.store import FeatureStore, end_of
from features.tables import ItemStats, UserStats
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.table import Table
from lakehouse.errors import UnknownVersionError
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Movie, Rating

Write = Callable[..., Snapshot[Table]]
ALL = ["users", "movies", "movie_cards", "user_stats", "item_stats"]
UTC_US = pa.timestamp("us", tz="UTC")


def asked(*rows: tuple[int, int, datetime]) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.int64()),
            "item_id": pa.array([row[1] for row in rows], pa.int64()),
            "event_timestamp": pa.array([row[2] for row in rows], UTC_US),
        }
    )


def ids(name: str, *values: int) -> pa.Table:
    return pa.table({name: pa.array(values, pa.int64())})


def day(number: int, hour: int = 0) -> datetime:
    return datetime(1998, 3, number, hour, tzinfo=UTC)


def test_a_training_set_keeps_rows_order_and_columns_and_has_the_declared_types(
    store: FeatureStore, pins: list[Snapshot[Table]]
) -> None:
    store.apply(pins)
    entities = asked((2, 20, day(6)), (1, 10, day(3)), (9, 99, day(3)), (1, 10, day(1)))
    entities = entities.append_column("tags", pa.array([["x"], None, [], ["y"]]))
    table = store.training_set(entities, ALL)
    assert table.select(entities.column_names).equals(entities)
    assert table["user_stats__ratings_count"].to_pylist() == [1, 2, None, None]
    assert table["item_stats__mean_rating"].to_pylist() == [3.5, 3.5, None, None]
    assert table["movies__year"].to_pylist() == [None, 1996, None, 1996]
    assert table["movies__genres"].to_pylist() == [[], ["Crime", "Drama"], None, ["Crime", "Drama"]]
    assert table["movie_cards__mood"].to_pylist() == [None, "serious", None, "serious"]
    assert str(table.schema.field("movies__year").type) == "int64"
    assert str(table.schema.field("movies__genres").type) == "list<element: string>"
    assert store.training_set(entities.slice(0, 0), ALL).schema.equals(table.schema)


def test_a_training_set_is_bound_to_the_pinned_version(
    store: FeatureStore, pins: list[Snapshot[Table]], write: Write
) -> None:
    store.apply(pins)
    entities = asked((1, 10, day(6)))
    before = store.training_set(entities, ["user_stats"])
    changed = UserStats(
        user_id=1, computed_at=day(2), ratings_count=90, mean_rating=1.0, active_days=9, last_rated_us=0
    )
    newer = write(UserStats, [changed])
    assert store.training_set(entities, ["user_stats"]).equals(before)
    store.apply([newer])
    assert store.pins()["user_stats"].version == newer.version == 1
    assert store.training_set(entities, ["user_stats"])["user_stats__ratings_count"].to_pylist() == [90]
    store.apply([pins[3]])
    assert store.training_set(entities, ["user_stats"]).equals(before)


def test_a_pin_moved_by_another_store_is_seen(store: FeatureStore, pins: list[Snapshot[Table]], write: Write) -> None:
    store.apply(pins)
    entities = asked((1, 10, day(6)))
    store.training_set(entities, ["user_stats"])
    changed = UserStats(
        user_id=1, computed_at=day(2), ratings_count=90, mean_rating=1.0, active_days=9, last_rated_us=0
    )
    FeatureStore(store.folder).apply([write(UserStats, [changed])])
    assert store.pins()["user_stats"].version == 1
    assert store.training_set(entities, ["user_stats"])["user_stats__ratings_count"].to_pylist() == [90]


start = datetime(1998, 1, 1, tzinfo=UTC)
some_ratings = st.lists(
    st.builds(
        Rating,
        user_id=st.integers(1, 2),
        item_id=st.integers(1, 2),
        rating=st.sampled_from([1.0, 2.5, 5.0]),
        rated_at=st.integers(0, 24 * 8).map(lambda hours: start + timedelta(hours=hours)),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(early=some_ratings, late=some_ratings, cut=st.integers(0, 24 * 8))
def test_rows_that_become_known_after_an_instant_change_no_training_row_at_it(
    store: FeatureStore, write: Write, early: list[Rating], late: list[Rating], cut: int
) -> None:
    instant = start + timedelta(hours=cut)
    known = [rating for rating in early if rating.rated_at < instant]
    later = [rating for rating in late if rating.rated_at >= instant]
    entities = asked(*((user, item, instant) for user in (1, 2) for item in (1, 2)))

    def training_set(rows: list[Rating]) -> pa.Table:
        ratings = to_arrow(Rating, rows)
        store.apply([write(UserStats, UserStats.compute(ratings)), write(ItemStats, ItemStats.compute(ratings))])
        return store.training_set(entities, ["user_stats", "item_stats"])

    assert training_set(known + later).equals(training_set(known))


def test_entities_that_cannot_be_joined_are_refused_with_the_reason(
    store: FeatureStore, pins: list[Snapshot[Table]]
) -> None:
    store.apply(pins)
    good = asked((1, 10, day(6)))
    with pytest.raises(EntityColumnsError, match=r"lacks the column\(s\) item_id"):
        store.training_set(good.drop_columns(["item_id"]), ["movies"])
    with pytest.raises(EntityColumnsError, match="'user_id' must be int64 but is string"):
        store.training_set(good.set_column(0, "user_id", pa.array(["1"])), ["users"])
    with pytest.raises(EntityColumnsError, match="'user_id' is null in 1 row"):
        store.training_set(good.set_column(0, "user_id", pa.array([None], pa.int64())), ["users"])
    with pytest.raises(NaiveTimestampError, match="event_timestamp"):
        naive = pa.array([datetime(1998, 3, 6)], pa.timestamp("us"))
        store.training_set(good.set_column(2, "event_timestamp", naive), ["users"])
    with pytest.raises(UnknownViewError, match="Did you mean 'user_stats'"):
        store.training_set(good, ["user_stat"])


def test_the_online_store_holds_the_end_of_the_day(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    done = {state.view: state for state in store.materialize(date(1998, 3, 1))}
    assert done["user_stats"].at == end_of(date(1998, 3, 1)) == store.materialized_at("user_stats") == day(2)
    assert (done["user_stats"].written, done["users"].written, done["movies"].written) == (1, 3, 3)
    online = store.online(ids("user_id", 2, 1, 9, 1), ["user_stats", "users"])
    assert online["user_stats__ratings_count"].to_pylist() == [None, 2, None, 2]
    assert online["users__gender"].to_pylist() == ["M", "F", None, "F"]

    done = {state.view: state for state in store.materialize(date(1998, 3, 4))}
    assert (done["user_stats"].written, done["users"].written) == (2, 0)  # the cost follows the change
    assert store.online(ids("user_id", 1, 2), ["user_stats"])["user_stats__ratings_count"].to_pylist() == [3, 1]

    # Back to an earlier day: what was not known then is gone again.
    done = {state.view: state for state in store.materialize(date(1998, 3, 1))}
    assert (done["user_stats"].written, done["user_stats"].removed) == (1, 1)
    assert store.online(ids("user_id", 1, 2), ["user_stats"])["user_stats__ratings_count"].to_pylist() == [2, None]


def test_online_values_keep_type_null_and_empty_list(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    items = ids("item_id", 10, 20, 99)
    online = store.online(items, ["movies", "item_stats"])
    assert online["movies__year"].to_pylist() == [1996, None, None]
    assert online["movies__genres"].to_pylist() == [["Crime", "Drama"], [], None]
    offline = store.training_set(items.append_column("event_timestamp", pa.array([day(5)] * 3, UTC_US)), ["movies"])
    assert online.schema.field("movies__genres") == offline.schema.field("movies__genres")
    assert online.schema.field("movies__year") == offline.schema.field("movies__year")


def test_materializing_the_same_day_again_writes_nothing(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    before = (store.folder / "online.db").read_bytes()
    again = FeatureStore(store.folder).materialize(date(1998, 3, 4))
    assert [state.written + state.removed for state in again] == [0] * 5
    assert (store.folder / "online.db").read_bytes() == before


def test_a_new_pin_reaches_the_online_store(store: FeatureStore, pins: list[Snapshot[Table]], write: Write) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    # Version 1: user 1 corrected, user 2 gone, user 3 new.
    rows = [
        UserStats(user_id=1, computed_at=day(2), ratings_count=7, mean_rating=2.0, active_days=1, last_rated_us=0),
        UserStats(user_id=3, computed_at=day(2), ratings_count=8, mean_rating=2.0, active_days=1, last_rated_us=0),
    ]
    store.apply([write(UserStats, rows)])
    done = {state.view: state for state in store.materialize(date(1998, 3, 4))}
    assert (done["user_stats"].written, done["user_stats"].removed, done["movies"].written) == (2, 1, 0)
    online = store.online(ids("user_id", 1, 2, 3), ["user_stats"])
    assert online["user_stats__ratings_count"].to_pylist() == [7, None, 8]


def test_a_materialization_that_was_cut_off_is_made_good(
    store: FeatureStore, pins: list[Snapshot[Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.apply(pins[3:4])
    store.materialize(date(1998, 3, 1))
    with monkeypatch.context() as broken:
        broken.setattr("features.online_sqlite._cells", lambda _: sys.exit("killed in the middle of the write"))
        with pytest.raises(SystemExit):
            store.materialize(date(1998, 3, 4))
    # Record and rows are one transaction: the store is as it was before.
    assert store.materialized_at("user_stats") == day(2)
    online = store.online(ids("user_id", 1, 2), ["user_stats"])
    assert online["user_stats__ratings_count"].to_pylist() == [2, None]
    done = store.materialize(date(1998, 3, 4))
    assert (done[0].written, done[0].replaced) == (2, False)
    assert store.online(ids("user_id", 1, 2), ["user_stats"])["user_stats__ratings_count"].to_pylist() == [3, 1]


def test_a_lost_online_store_is_written_anew(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    (store.folder / "online.db").unlink()
    fresh = FeatureStore(store.folder)
    with pytest.raises(NotMaterializedError, match="'users'"):
        fresh.online(ids("user_id", 1), ["users"])
    fresh.materialize(date(1998, 3, 4))
    assert fresh.online(ids("user_id", 1), ["users"])["users__age"].to_pylist() == [30]


def test_a_pin_to_a_version_that_is_not_there_is_refused(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    with pytest.raises(UnknownVersionError, match="no version 5"):
        store.apply([Snapshot(pins[1].uri, 5, Movie)])


def test_values_that_look_like_sql_are_only_values(
    store: FeatureStore, write: Write, pins: list[Snapshot[Table]]
) -> None:
    title = "Robert'); DROP TABLE movies; --"
    store.apply([write(Movie, [Movie(item_id=10, title=title, year=1996, genres=['"'], added_at=day(1))])])
    store.materialize(date(1998, 3, 4))
    assert store.online(ids("item_id", 10), ["movies"])["movies__title"].to_pylist() == [title]
    assert DeltaTable(pins[1].uri).version() == 1


def test_a_plain_feast_client_reads_the_same_online_values(store: FeatureStore, pins: list[Snapshot[Table]]) -> None:
    import feast

    store.apply(pins)
    store.materialize(date(1998, 3, 4))
    client = feast.FeatureStore(config=store._config())
    answer = client.get_online_features(["user_stats:mean_rating"], [{"user_id": 1}, {"user_id": 2}]).to_dict()
    assert answer["mean_rating"] == [3.0, 5.0]
    assert client.get_feature_view("user_stats").materialization_intervals[-1][1] == day(5)
    with sqlite3.connect(store.folder / "online.db") as connection:
        assert connection.execute("SELECT count(*) FROM millrace_materialized").fetchone() == (5,)


def test_importing_the_package_loads_no_feast_and_no_pandas() -> None:
    code = (
        "import sys, features, features.compute, features.drift, features.parity, features.store, features.tables, "
        "features.views\n"
        "print([name for name in ('feast', 'pandas', 'torch', 'pyspark', 'polars') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert result.stdout.strip() == "[]"
