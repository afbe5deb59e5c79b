"""Metric values worked by hand, the split by time, and intervals."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import ndcg_score

from models.errors import EvaluationError
from models.evaluation import NewestInteractions, evaluate, interval, ndcg_and_recall, reciprocal_rank, top_k


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC)


def interactions(*rows: tuple[int, int, int]) -> pa.Table:
    users, items, days = zip(*rows, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "rated_at": pa.array([day(number) for number in days], pa.timestamp("us", "UTC")),
        }
    )


def test_ndcg_and_recall_equal_the_values_worked_by_hand() -> None:
    # Ranking without the seen item 0: items 2, 1, 4, 3. Targets 1 and 3, of which rank 2 is in the top 3.
    scores = np.array([[9.0, 3.0, 4.0, 1.0, 2.0]], dtype=np.float32)
    relevant = np.array([[False, True, False, True, False]])
    seen = np.array([[True, False, False, False, False]])
    ndcg, recall = ndcg_and_recall(scores, relevant, seen, k=3)
    assert ndcg[0] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
    assert recall[0] == pytest.approx(1 / 2)


def test_ndcg_agrees_with_scikit_learns_to_the_last_digits() -> None:
    """An independent implementation; it knows no seen items, so these get the lowest scores and are no targets."""
    rng = np.random.default_rng(4)
    scores = rng.permuted(np.tile(np.linspace(0, 1, 60), (200, 1)), axis=1).astype(np.float32)  # no ties
    seen = rng.random((200, 60)) < 0.3
    relevant = (rng.random((200, 60)) < 0.1) & ~seen
    relevant[:, 0], seen[:, 0] = True, False
    ours, _ = ndcg_and_recall(scores, relevant, seen, k=10)
    lowered = np.where(seen, scores - 10, scores).astype(float)
    theirs = [ndcg_score([relevant[row]], [lowered[row]], k=10) for row in range(200)]
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_the_ideal_ranking_scores_one_even_with_more_targets_than_places() -> None:
    scores = np.array([[4.0, 3.0, 2.0, 1.0]], dtype=np.float32)
    ndcg, recall = ndcg_and_recall(scores, np.array([[True, True, True, False]]), np.zeros((1, 4), bool), k=2)
    assert ndcg[0] == pytest.approx(1.0)
    assert recall[0] == pytest.approx(2 / 3)


def test_equal_scores_rank_in_item_order_and_seen_items_come_last() -> None:
    seen = np.array([[True, False, False]])
    assert top_k(np.zeros((1, 3), dtype=np.float32), seen, 3).tolist() == [[1, 2, 0]]


def test_k_may_exceed_the_catalogue() -> None:
    scores = np.array([[1.0, 2.0]], dtype=np.float32)
    ndcg, recall = ndcg_and_recall(scores, np.array([[True, False]]), np.zeros((1, 2), bool), k=10)
    assert (ndcg[0], recall[0]) == (pytest.approx(1 / np.log2(3)), 1.0)


def test_the_reciprocal_rank_is_that_of_the_first_unseen_target() -> None:
    scores = np.array([[5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]], dtype=np.float32)
    relevant = np.array([[True, False, False, True], [False, False, True, True], [False, False, False, True]])
    seen = np.array([[True, False, False, False], [False] * 4, [False] * 4])
    assert reciprocal_rank(scores, relevant, seen, k=3).tolist() == [1 / 3, 1 / 3, 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.array([[np.nan, 1.0]], dtype=np.float32)}, "not finite"),
        ({"relevant": np.zeros((1, 2), bool)}, "no target"),
        ({"seen": np.zeros((1, 3), bool)}, "shape"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {
        "scores": np.array([[2.0, 1.0]], dtype=np.float32),
        "relevant": np.array([[True, False]]),
        "seen": np.zeros((1, 2), bool),
    }
    with pytest.raises(EvaluationError, match=words):
        ndcg_and_recall(**(good | change))


def test_the_split_keeps_new_users_and_leaves_out_items_met_before() -> None:
    log = interactions((1, 10, 1), (1, 11, 2), (1, 10, 6), (1, 12, 6), (2, 11, 7), (3, 10, 3), (4, 12, 20))
    test = NewestInteractions.split(log, day(5), day(10))
    assert test.histories.user_ids.tolist() == [1, 2]  # 2 is new; 3 has no target; 4 comes after the window
    assert test.histories.sizes().tolist() == [2, 0]
    assert test.train.column("item_id").to_pylist() == [10, 11, 10]
    assert test.relevant(np.array([10, 11, 12])).tolist() == [[False, False, True], [False, True, False]]


def test_a_window_without_new_items_is_refused() -> None:
    with pytest.raises(EvaluationError, match="2024-01-05"):
        NewestInteractions.split(interactions((1, 10, 1), (1, 10, 6)), day(5), day(10))


def test_a_target_outside_the_catalogue_counts_as_missed() -> None:
    test = NewestInteractions.split(interactions((1, 10, 1), (1, 11, 6), (1, 12, 6)), day(5), day(10))
    ndcg, recall, rank = evaluate(np.array([[1.0, 2.0]], dtype=np.float32), test, np.array([10, 11]))
    assert rank.metric == "MRR@10" and rank.value == 1.0
    assert recall.value == pytest.approx(1 / 2)
    assert ndcg.value == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_the_interval_is_seeded_and_holds_the_mean() -> None:
    values = np.random.default_rng(0).random(200)
    first, second = (interval(values, metric="NDCG@10", seed=5) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high
    # 1.96 standard errors on both sides, to the bootstrap's own noise
    assert first.high - first.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.15)
    assert interval([0.5] * 9, metric="m").low == 0.5
