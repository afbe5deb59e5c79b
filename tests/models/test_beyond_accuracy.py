"""What lists are like, in values worked by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from models.beyond_accuracy import list_quality
from models.evaluation import NewestInteractions

CUTOFF = datetime(2024, 1, 5, tzinfo=UTC)
ITEMS = np.array([10, 11, 12, 13])
GENRES = [["Drama"], ["Drama", "War"], ["Comedy"], []]


@pytest.fixture
def test_window() -> NewestInteractions:
    """User 1 had met 10, user 2 is new; both meet something after the cutoff."""
    rows = [(1, 10, -2), (3, 10, -2), (3, 11, -1), (1, 12, 1), (2, 10, 1)]
    users, items, days = zip(*rows, strict=True)
    table = pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "rated_at": pa.array([CUTOFF + timedelta(days=day) for day in days], pa.timestamp("us", "UTC")),
        }
    )
    return NewestInteractions.split(table, CUTOFF, CUTOFF + timedelta(days=5))


def test_lists_have_the_values_worked_by_hand(test_window: NewestInteractions) -> None:
    # Lists of two: user 1 (who has met 10) gets 11, 12; user 2 gets 10, 11.
    scores = np.array([[9, 3, 2, 1], [4, 3, 2, 1]], dtype=np.float32)
    found = list_quality(scores, test_window, ITEMS, GENRES, k=2)
    assert found.coverage == pytest.approx(3 / 4)
    # Two users had met something: 10 both, 11 one, 12 none.
    bits = {10: -np.log2(3 / 3), 11: -np.log2(2 / 3), 12: -np.log2(1 / 3)}
    assert found.novelty_bits == pytest.approx((bits[11] + bits[12] + bits[10] + bits[11]) / 4)
    # 11 and 12 share nothing; 10 and 11 share one of two genres.
    assert found.diversity == pytest.approx((1.0 + 0.5) / 2)
    # User 1's history is Drama alone; the list is 1/4 Drama, 1/4 War, 1/2 Comedy. User 2 has no history.
    assert found.miscalibration == pytest.approx(np.log(1 / (0.99 * 0.25 + 0.01)))
    assert found.users == 2


def test_a_list_like_the_history_is_calibrated(test_window: NewestInteractions) -> None:
    genres = [["Drama"], ["Drama"], ["Comedy"], []]
    scores = np.array([[9, 3, 1, 2], [4, 3, 2, 1]], dtype=np.float32)
    assert list_quality(scores, test_window, ITEMS, genres, k=1).miscalibration == pytest.approx(0.0)


def test_lists_of_one_and_items_without_genres_give_numbers(test_window: NewestInteractions) -> None:
    found = list_quality(np.zeros((2, 4), dtype=np.float32), test_window, ITEMS, [[], [], [], []], k=1)
    assert (found.diversity, found.miscalibration) == (0.0, 0.0)
