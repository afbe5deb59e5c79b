"""A small seeded world of interactions and features, in which tastes, trends and features all say something."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models.features import FeatureSpec, NumericFeature
from models.recommender import RecommenderConfig

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 80


@dataclass(frozen=True)
class World:
    """`interactions` and `training_set` as fit() takes them; `users` and `items` as a query takes them."""

    interactions: pa.Table
    training_set: pa.Table
    users: pa.Table
    items: pa.Table
    config: RecommenderConfig

    def day(self, number: float) -> datetime:
        return START + timedelta(days=number)


@pytest.fixture(scope="session")
def world() -> World:
    """120 users in two groups, 60 items of two moods; each item comes out on a day and is rated most right after."""
    rng = np.random.default_rng(7)
    user_count, item_count = 120, 60
    group, mood = rng.integers(0, 2, user_count), rng.integers(0, 2, item_count)
    out_on, joined = rng.uniform(-30, DAYS - 10, item_count), rng.uniform(0, DAYS - 5, user_count)
    rows: list[tuple[int, int, float, datetime]] = []
    for user in range(user_count):
        met: set[int] = set()
        for visit in np.sort(rng.uniform(joined[user], DAYS, 4)):
            appeal = np.where(out_on < visit, np.exp(-(visit - out_on) / 20), 0.0) * np.where(mood == group[user], 5, 1)
            appeal[list(met)] = 0
            if (appeal > 0).sum() < 3:
                continue
            for place, item in enumerate(rng.choice(item_count, 3, replace=False, p=appeal / appeal.sum())):
                met.add(int(item))
                at = START + timedelta(days=float(visit), seconds=place)
                rows.append((user + 1, int(item) + 100, float(rng.integers(1, 6)), at))
    users, items, ratings, times = zip(*rows, strict=True)
    interactions = pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "rating": pa.array(ratings, pa.float64()),
            "rated_at": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )
    user_table = pa.table(
        {
            "user_id": np.arange(user_count) + 1,
            "users__age": [None if user % 9 == 0 else 20 + user % 40 for user in range(user_count)],
            "users__gender": ["F" if value else "M" for value in group],
        }
    )
    item_table = pa.table(
        {
            "item_id": np.arange(item_count) + 100,
            "movies__year": 1990.0 + np.arange(item_count) % 9,
            "movies__genres": [["Drama"] if value else ["Comedy", "Crime"] for value in mood],
            "movie_cards__mood": [
                None if item % 11 == 0 else "dark" if mood[item] else "light" for item in range(item_count)
            ],
        }
    )
    user_row, item_row = np.array(users) - 1, np.array(items) - 100
    training_set = interactions
    for name in user_table.column_names[1:]:
        training_set = training_set.append_column(name, user_table.column(name).take(pa.array(user_row)))
    for name in item_table.column_names[1:]:
        training_set = training_set.append_column(name, item_table.column(name).take(pa.array(item_row)))
    config = RecommenderConfig(
        user_features=FeatureSpec(numeric=(NumericFeature(column="users__age"),), categorical=("users__gender",)),
        item_features=FeatureSpec(
            numeric=(NumericFeature(column="movies__year"),),
            categorical=("movie_cards__mood",),
            lists=("movies__genres",),
        ),
        ridge=20.0,
        anchors=4,
        horizon_days=10.0,
        hidden=4,
        epochs=12,
        warm_epochs=3,
        seed=3,
    )
    return World(interactions, training_set, user_table, item_table, config)
