"""The night's training set: its parts, and that another process may make it again from what the task gave."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Movie, MovieCard, Rating, User
from tasks.features import TrainingSet, build_training_set


def day(number: int) -> datetime:
    return datetime(1998, 3, number, tzinfo=UTC)


def test_the_nights_training_set_joins_ratings_just_before_and_everyone_at_the_cutoff(lake: Lakehouse) -> None:
    def save(row: type[Table], rows: pa.Table) -> Snapshot[Table]:
        uri = lake.uri(row.contract.table)
        write_deltalake(uri, rows.cast(arrow_schema(row.contract)))
        return Snapshot(uri, DeltaTable(uri).version(), row)

    rated = [(2, 10, 4.0, day(3)), (1, 10, 5.0, day(1)), (1, 20, 2.0, day(3)), (1, 30, 3.0, day(8))]
    ratings = to_arrow(Rating, [Rating(user_id=u, item_id=i, rating=s, rated_at=t) for u, i, s, t in rated])
    users = [
        User(user_id=i, age=20 + i, gender="F", occupation="artist", zip_code="02139", joined_at=day(1)) for i in (2, 1)
    ]
    movies = [Movie(item_id=i, title=str(i), year=1990, genres=["Drama"], added_at=day(1)) for i in (10, 20, 30)]
    cards = [MovieCard(item_id=10, mood="serious", audience="adults", answer_key="a" * 64, added_at=day(1))]
    made = build_training_set(
        ratings=save(Rating, ratings),
        users=save(User, to_arrow(User, users)),
        movies=save(Movie, to_arrow(Movie, movies)),
        user_stats=save(UserStats, UserStats.compute(ratings)),
        item_stats=save(ItemStats, ItemStats.compute(ratings)),
        cards=save(MovieCard, to_arrow(MovieCard, cards)),
        day=datetime(1998, 3, 9),
        holdout_days=5,
    )
    assert isinstance(made, TrainingSet)
    assert (made.cutoff, made.until, made.rows) == (day(5), day(10), 4)
    assert made.sources == [
        f"{name}@0" for name in ("ratings", "users", "movies", "user_stats", "item_stats", "movie_cards")
    ]
    interactions = made.read("interactions")
    order = [(row["user_id"], row["item_id"]) for row in interactions.to_pylist()]
    assert order == [(1, 10), (1, 20), (2, 10), (1, 30)]
    assert interactions["user_stats__ratings_count"].to_pylist() == [None, 1, None, 2]
    assert interactions["movie_cards__mood"].to_pylist() == ["serious", None, "serious", None]
    assert made.read("users").select(["user_id", "user_stats__ratings_count"]).to_pydict() == {
        "user_id": [1, 2],
        "user_stats__ratings_count": [2, 1],  # the rating of the eighth is the test's
    }
    assert made.read("items")["item_stats__ratings_count"].to_pylist() == [2, 1, None]
    assert made.cutoff - timedelta(days=1) > interactions["rated_at"][2].as_py()

    shutil.rmtree(made.folder)
    again = TrainingSet.model_validate_json(made.model_dump_json())
    assert again.read("interactions").equals(interactions)
