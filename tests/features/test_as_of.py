"""The newest known row is exact where keys and instants do not fit one number, and however the stream is cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features.as_of as as_of
from features.as_of import EntityIndex, Times, newest_known
from features.key_order import KeyOrder

#: Microseconds: a few beside each other, here and at both ends of the calendar and of the number, so that the first
#: bits of an instant leave open which is earlier.
_PLACES = (0, -62_135_596_800_000_000, 253_402_300_799_000_000, -(2**63) + 100, 2**63 - 100)
instants = st.tuples(st.sampled_from(_PLACES), st.integers(-40, 40)).map(sum)
near = st.integers(-40, 40)
keys = st.integers(-1, 12).map(lambda key: None if key < 0 else key // 10)


def columns(kind: pa.DataType, rows: Sequence[tuple[object, ...]], place: int) -> pa.Array:
    return pa.array([None if row[place] is None else kinded(kind, row[place]) for row in rows], kind)


def kinded(kind: pa.DataType, value: object) -> object:
    return value if pa.types.is_integer(kind) else str(value)


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=str)
@pytest.mark.parametrize("clock", [instants, near], ids=["far", "near"])
@pytest.mark.parametrize("corrected", [None, False, True], ids=["uncreated", "as known", "as corrected"])
def test_the_newest_known_row_is_the_one_found_by_hand(
    kind: pa.DataType, clock: st.SearchStrategy[int], corrected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_of, "_BLOCK_ROWS", 1)
    created = st.integers(-40, 40)

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])
    @given(
        st.lists(st.tuples(keys, keys, clock), max_size=8),
        st.lists(st.tuples(keys, keys, clock, created), max_size=60),
        st.none() | st.integers(0, 30),
        st.integers(1, 9),
    )
    def agrees(
        asked: list[tuple[int | None, int | None, int]],
        rows: list[tuple[int | None, int | None, int, int]],
        ttl: int | None,
        size: int,
    ) -> None:
        table = pa.table(
            {
                "a": columns(kind, rows, 0),
                "b": columns(pa.int64(), rows, 1),
                "known": pa.array([row[2] for row in rows], pa.int64()),
                "created": pa.array([row[3] for row in rows], pa.int64()),
                "value": pa.array(range(len(rows)), pa.int64()),
            }
        )

        def times(part: pa.Table) -> Times:
            known, made = part["known"].to_numpy(), part["created"].to_numpy()
            if corrected is None:
                return Times(known, None, known)
            return Times(known, made, known if corrected else np.maximum(known, made))

        index = EntityIndex(
            [columns(kind, asked, 0), columns(pa.int64(), asked, 1)], np.array([row[2] for row in asked], np.int64)
        )
        schema = pa.schema([("value", pa.int64())])
        if not asked:
            return
        found = newest_known(index, table.to_batches(max_chunksize=size), ["a", "b"], ["value"], schema, times, ttl)

        def by_hand(one: object, two: object, at: int) -> int | None:
            known = [
                (row[2], 0 if corrected is None else row[3], number)
                for number, row in enumerate(rows)
                if one is not None and two is not None and row[:2] == (one, two)
                if row[2] <= at and (corrected is not False or row[3] <= at)
            ]
            if not known or (ttl is not None and at - max(known)[0] > ttl):
                return None
            return max(known)[2]

        assert found["value"].to_pylist() == [by_hand(*row) for row in asked]

    agrees()


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**40), instants), max_size=40), st.integers(0, 23))
def test_rows_are_ordered_by_key_then_instant_then_place(rows: list[tuple[int, int]], more: int) -> None:
    """A key's number may be so high that hardly a bit of the instant fits."""
    codes, times = (np.array([row[side] for row in rows], np.int64) for side in (0, 1))
    ordered = KeyOrder(codes, times, 2 ** (40 + more // 2))
    assert ordered.rows.tolist() == sorted(range(len(rows)), key=lambda row: (*rows[row], row))
    if rows:
        ends = ordered.count_until(codes[ordered.rows], times[ordered.rows])
        assert ends.tolist() == [sum(other <= row for other in rows) for row in sorted(rows)]
