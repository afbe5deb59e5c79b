"""Histories end strictly before the instant, in time order, whatever order the rows came in."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from models.errors import FeatureColumnError, InteractionsError
from models.interactions import Histories, Interactions, microseconds, positions


def log(*rows: tuple[int, int, int]) -> pa.Table:
    users, items, days = zip(*rows, strict=True)
    times = [datetime(2024, 1, number, tzinfo=UTC) for number in days]
    return pa.table({"user_id": users, "item_id": items, "rated_at": pa.array(times, pa.timestamp("us", "UTC"))})


def test_a_history_ends_strictly_before_the_instant() -> None:
    table = log((2, 12, 3), (1, 11, 2), (2, 10, 1), (1, 10, 5))
    histories = Histories.of(table, np.array([2, 9, 1]), datetime(2024, 1, 3, tzinfo=UTC))
    assert histories.sizes().tolist() == [1, 0, 1]
    assert histories.item_ids.tolist() == [10, 11]
    assert histories.last_seen().tolist()[0] == microseconds(datetime(2024, 1, 1, tzinfo=UTC))


def test_histories_run_oldest_first_and_slices_agree_with_the_whole() -> None:
    table = log((1, 13, 9), (2, 12, 3), (1, 11, 2), (2, 10, 1), (1, 10, 5))
    histories = Histories.of(table, np.array([1, 2]), datetime(2024, 1, 30, tzinfo=UTC))
    assert histories.item_ids.tolist() == [11, 10, 13, 10, 12]
    assert histories.ranks().tolist() == [2, 1, 0, 1, 0]
    assert histories.slice(1, 2).item_ids.tolist() == [10, 12]
    assert histories.seen(np.array([10, 13])).tolist() == [[True, True], [True, False]]


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = log((2, 12, 3), (1, 11, 2), (2, 10, 2), (1, 10, 2))
    one, other = Interactions.of(table), Interactions.of(table.take([3, 1, 0, 2]))
    assert one.item_ids.tolist() == other.item_ids.tolist() == [10, 11, 10, 12]


def test_positions_finds_keys_in_any_order() -> None:
    assert positions(np.array([30, 10, 20]), np.array([10, 99, 30, 5])).tolist() == [1, -1, 0, -1]
    assert positions(np.array([], dtype=np.int64), np.array([1])).tolist() == [-1]


def test_nulls_missing_columns_and_wrong_types_are_named() -> None:
    table = log((1, 10, 1))
    with pytest.raises(InteractionsError, match=r"'item_id'.* 1 null"):
        Interactions.of(table.set_column(1, "item_id", pa.array([None], pa.int64())))
    with pytest.raises(FeatureColumnError, match="rated_at"):
        Interactions.of(table.drop_columns(["rated_at"]))
    with pytest.raises(FeatureColumnError, match=r"'user_id'.*string"):
        Interactions.of(table.set_column(0, "user_id", pa.array(["a"])))
