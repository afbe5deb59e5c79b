"""Each signal on a handful of rows whose order can be seen by eye."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models.interactions import Float32s, Histories, Interactions, microseconds
from models.signals import Signals, SignalSettings

AT = datetime(2024, 3, 1, tzinfo=UTC)
SETTINGS = SignalSettings(
    ridge=0.1, rating_half_life_days=1000.0, history_half_life_items=1.0, popularity_half_lives_days=(2.0, 30.0)
)


def signal(name: str, rows: list[tuple[int, int, int]], users: list[int], items: list[int]) -> Float32s:
    """One signal, float32 [users, items], of rows (user, item, days before AT)."""
    table = pa.table(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [item for _, item, _ in rows],
            "rated_at": pa.array([AT - timedelta(days=age) for _, _, age in rows], pa.timestamp("us", "UTC")),
        }
    )
    log, at = Interactions.of(table), microseconds(AT)
    found = Signals.learn(log, at, SETTINGS).of(
        Histories.before(log, np.array(users), at), np.array(items), at, SETTINGS
    )
    return found[:, :, SETTINGS.names().index(name)]


def test_item_to_item_follows_the_newest_of_the_history_most() -> None:
    pairs = [
        (user, item, 9)
        for user, items in ((1, (10, 11)), (2, (12, 13)), (3, (10, 11)), (4, (12, 13)))
        for item in items
    ]
    score = signal("item_to_item", [*pairs, (8, 10, 3), (8, 12, 2), (9, 12, 3), (9, 10, 2)], [8, 9], [11, 13])
    assert score[0, 1] > score[0, 0]
    assert score[1, 0] > score[1, 1]


def test_recent_popularity_halves_with_age() -> None:
    score = signal("popularity_2d", [(1, 10, 40), (2, 10, 40), (3, 11, 2)], [1], [10, 11, 99])[0]
    assert score[0] == pytest.approx(0.0, abs=1e-4)
    # A day's ratings count as of the middle of that day: two days ago, so 1.5 days.
    assert score[1] == pytest.approx(np.log1p(0.5 ** (1.5 / 2)), rel=1e-5)
    assert score[2] == 0.0


def test_all_time_popularity_counts_what_is_older_than_the_days_kept() -> None:
    score = signal("popularity", [(1, 10, 400), (2, 10, 300), (3, 11, 2)], [1], [10, 11])[0]
    assert score.tolist() == pytest.approx([np.log1p(2), np.log1p(1)])


def test_since_last_visit_is_what_the_user_cannot_have_met() -> None:
    rows = [(1, 10, 20), (2, 10, 20), (3, 11, 2), (4, 11, 2), (1, 12, 10)]
    score = signal("since_last_visit", rows, [1, 77], [10, 11])
    assert score[0, 0] == 0.0
    assert score[0, 1] > 0.5
    assert score[1, 0] > 0.0  # to a new user all of it is new


def test_an_item_nobody_has_met_has_no_signal_and_an_old_one_shows_its_age() -> None:
    score = signal("age_days", [(1, 10, 9), (2, 10, 1), (2, 11, 1)], [1], [10, 11, 99])[0]
    assert score.tolist() == pytest.approx([np.log1p(9), np.log1p(1), 0.0])
