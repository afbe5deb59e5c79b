"""Each protocol tests on what its name says, and trains on nothing of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EvaluationError
from models.protocols import leave_last_out, rolling_replay, time_split

START = datetime(2024, 1, 1, 12, tzinfo=UTC)


def log(*rows: tuple[int, int, int]) -> pa.Table:
    """Rows of (user, item, days after START)."""
    users, items, days = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array(items, pa.int64()),
            "rated_at": pa.array([START + timedelta(days=day) for day in days], pa.timestamp("us", "UTC")),
        }
    )


def test_replay_rolls_on_from_window_to_window_and_ends_with_the_data() -> None:
    rows = log(*((user, 10 * user + day, day) for user in (1, 2) for day in range(10)))
    tests = list(rolling_replay(rows, windows=3, days=2))
    assert [test.cutoff.day for test in tests] == [5, 7, 9]
    assert [test.train.num_rows for test in tests] == [8, 12, 16]
    assert [test.target_items.tolist() for test in tests][-1] == [18, 19, 28, 29]
    for test in tests:
        assert pc.max(test.train["rated_at"]).as_py() < test.cutoff


def test_replay_leaves_out_windows_before_the_data_and_without_new_items() -> None:
    rows = log((1, 10, 0), (1, 11, 1), (1, 10, 3), (1, 12, 5))
    assert [test.cutoff.day for test in rolling_replay(rows, windows=9, days=1)] == [2, 6]
    with pytest.raises(EvaluationError, match="no interaction"):
        list(rolling_replay(log(), windows=2, days=1))


def test_the_time_split_trains_on_the_first_share_and_tests_on_the_rest() -> None:
    rows = log(*((day % 3, day, day) for day in range(10)))
    test = time_split(rows, train_share=0.8)
    assert test.train["item_id"].to_pylist() == list(range(8))
    assert sorted(test.target_items.tolist()) == [8, 9]
    with pytest.raises(EvaluationError, match="one time"):
        time_split(log((1, 10, 3), (2, 11, 3), (3, 12, 3)))


def test_leave_last_out_asks_for_the_last_item_of_each_user_with_two() -> None:
    rows = log((1, 10, 1), (1, 12, 4), (1, 11, 2), (2, 10, 9), (3, 11, 1), (3, 10, 1), (4, 7, 1), (4, 8, 2), (4, 7, 3))
    test = leave_last_out(rows)
    asked = dict(zip(test.histories.user_ids[test.target_rows].tolist(), test.target_items.tolist(), strict=True))
    assert asked == {1: 12, 3: 11}, "2 has one row, 4 met the last before; of one time the larger id is last"
    assert test.histories.item_ids.tolist() == [10, 11, 10]
    assert test.train.num_rows == len(rows) - 3
    assert test.cutoff > START + timedelta(days=9)
    with pytest.raises(EvaluationError, match="No user"):
        leave_last_out(log((1, 10, 1), (2, 10, 2)))


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(0, 30)), min_size=2, max_size=40),
    st.sampled_from(["replay", "split", "last"]),
)
def test_no_target_is_in_the_history_or_in_the_training_rows(rows: list[tuple[int, int, int]], which: str) -> None:
    table = log(*rows)
    try:
        tests = {
            "replay": lambda: list(rolling_replay(table, windows=4, days=7)),
            "split": lambda: [time_split(table)],
            "last": lambda: [leave_last_out(table)],
        }[which]()
    except EvaluationError:
        return
    for test in tests:
        known = set(zip(test.train["user_id"].to_pylist(), test.train["item_id"].to_pylist(), strict=True))
        users = test.histories.user_ids
        for row, item in zip(test.target_rows.tolist(), test.target_items.tolist(), strict=True):
            assert (int(users[row]), item) not in known
        assert (test.target_counts() > 0).all()
        assert test.train.num_rows < table.num_rows
        met = set(zip(users[test.histories.rows].tolist(), test.histories.item_ids.tolist(), strict=True))
        assert met <= known
        assert len(np.unique(users)) == len(users)
