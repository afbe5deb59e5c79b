"""Each baseline on a handful of rows whose ranking can be seen by eye."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models.baselines import Ease, ItemKnn, Popularity, SequentialRules
from models.errors import InteractionsError
from models.interactions import Histories, Query

AT = datetime(2024, 3, 1, tzinfo=UTC)


def interactions(*rows: tuple[int, int, int]) -> pa.Table:
    """Rows of (user, item, days before AT)."""
    users, items, ages = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "rated_at": pa.array([AT - timedelta(days=age) for age in ages], pa.timestamp("us", "UTC")),
        }
    )


def query(log: pa.Table, *users: int, items: tuple[int, ...]) -> Query:
    histories = Histories.of(log, np.array(users), AT)
    return Query(histories, pa.table({"user_id": list(users)}), pa.table({"item_id": list(items)}), AT)


def test_popularity_counts_ratings_and_gives_unknown_items_nothing() -> None:
    log = interactions((1, 10, 5), (2, 10, 4), (3, 11, 3))
    scores = Popularity.fit(log).scores(query(log, 1, 9, items=(11, 99, 10)))
    assert scores.tolist() == [[1, 0, 2], [1, 0, 2]]
    assert scores.dtype == np.float32


def test_recent_popularity_counts_the_last_days_alone() -> None:
    log = interactions((1, 10, 50), (2, 10, 40), (3, 11, 3), (4, 11, 2))
    assert Popularity.fit(log, last_days=7).scores(query(log, 1, items=(10, 11))).tolist() == [[0, 2]]


def test_item_knn_prefers_what_the_same_people_rated() -> None:
    log = interactions((1, 10, 9), (1, 11, 8), (2, 10, 7), (2, 11, 6), (3, 12, 5), (3, 13, 4), (9, 10, 2))
    scores = ItemKnn.fit(log, shrinkage=0.0).scores(query(log, 9, items=(11, 12, 13, 99)))[0]
    assert scores[0] > 0
    assert scores[1:].tolist() == [0, 0, 0]


def test_item_knn_weighs_the_newest_history_most() -> None:
    log = interactions((1, 10, 9), (1, 11, 9), (2, 12, 9), (2, 13, 9), (8, 10, 3), (8, 12, 2), (9, 12, 3), (9, 10, 2))
    scores = ItemKnn.fit(log, history_half_life_items=1.0).scores(query(log, 8, 9, items=(11, 13)))
    assert scores[0, 1] > scores[0, 0]
    assert scores[1, 0] > scores[1, 1]


def test_item_knn_gives_a_new_user_recent_popularity() -> None:
    log = interactions((1, 10, 50), (2, 10, 40), (3, 11, 3), (4, 11, 2))
    assert ItemKnn.fit(log, popular_days=7).scores(query(log, 77, items=(10, 11))).tolist() == [[0, 2]]


def test_no_interactions_is_a_typed_error() -> None:
    with pytest.raises(InteractionsError, match="no interaction"):
        Popularity.fit(interactions())


def test_ease_ranks_by_what_the_same_people_rated_and_falls_back_on_recent_popularity() -> None:
    together = [(user, item, 2) for user in range(1, 9) for item in (10, 11)]
    apart = [(user, item, 2) for user in range(11, 25) for item in (12, 13)]
    log = interactions(*together, *apart, (30, 10, 1), (31, 12, 1))
    fitted = Ease.fit(log, ridge=1.0)
    scores = fitted.scores(query(log, 30, 31, 99, items=(10, 11, 12, 13, 77)))
    assert scores[0, 1] > scores[0, [2, 3, 4]].max()
    assert scores[1, 3] > scores[1, [0, 1, 4]].max()
    assert scores[2].tolist() == [9, 8, 15, 14, 0], "a new user gets what most rated in the last week"
    assert np.diag(fitted.weights).tolist() == [0, 0, 0, 0]


def test_sequential_rules_rank_what_came_soon_after_and_not_what_came_before() -> None:
    log = interactions((1, 10, 9), (1, 11, 8), (1, 12, 7), (2, 10, 6), (2, 11, 5), (2, 12, 4), (9, 11, 3))
    fitted = SequentialRules.fit(log, rating_half_life_days=1e9)
    scores = fitted.scores(query(log, 9, 77, items=(10, 11, 12, 99)))
    assert scores[0].tolist() == pytest.approx([0, 0, 2, 0])
    assert fitted.weights[0].tolist() == pytest.approx([0, 2, 1]), "two events apart counts half"
    assert scores[1].tolist() == [2, 3, 2, 0], "a new user gets what most rated in the last week"
