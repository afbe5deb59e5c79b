"""The join answers what was known at each row's own instant: checked against a plain Python search."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import NaiveTimestampError, OfflineSourceError
from features.point_in_time import Lookup, changed_rows, join_as_of, latest_rows
from lakehouse.snapshot import Snapshot

UTC_US = pa.timestamp("us", tz="UTC")
start = datetime(1998, 1, 1, tzinfo=UTC)
instants = st.integers(0, 8).map(lambda hours: start + timedelta(hours=hours))
entity_rows = st.lists(st.tuples(st.integers(0, 2), instants), max_size=12)
# key, known at, created at, value
feature_rows = st.lists(
    st.tuples(st.integers(0, 2), instants, instants, st.none() | st.integers(-9, 9)),
    max_size=20,
    unique_by=lambda row: row[:3],
)


def entities(rows: list[tuple[int, datetime]]) -> pa.Table:
    return pa.table({"who": pa.array([r[0] for r in rows], pa.int64()), "when": pa.array([r[1] for r in rows], UTC_US)})


def snapshot(folder: str | Path, rows: list[tuple[int, datetime, datetime, int | None]]) -> Snapshot:
    table = pa.table(
        {
            "user id": pa.array([r[0] for r in rows], pa.int64()),
            "at": pa.array([r[1] for r in rows], UTC_US),
            "made": pa.array([r[2] for r in rows], UTC_US),
            'val"ue': pa.array([r[3] for r in rows], pa.int64()),
        }
    )
    write_deltalake(folder, table, mode="overwrite")
    return Snapshot(str(folder), 0)


def lookup(pin: Snapshot, name: str = "value", ttl: timedelta | None = None, as_corrected: bool = False) -> Lookup:
    return Lookup(
        pin,
        (("who", "user id"),),
        ((name, 'val"ue'),),
        known_at="at",
        created_at="made",
        ttl=ttl,
        as_corrected=as_corrected,
    )


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    entity_rows, feature_rows, st.none() | st.integers(0, 4).map(lambda hours: timedelta(hours=hours)), st.booleans()
)
def test_the_join_agrees_with_a_search_by_hand(
    asked: list[tuple[int, datetime]],
    rows: list[tuple[int, datetime, datetime, int | None]],
    ttl: timedelta | None,
    as_corrected: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pin = snapshot(folder, rows)
        lookups = [
            lookup(pin, ttl=ttl, as_corrected=as_corrected),
            lookup(pin, name="again", as_corrected=as_corrected),
        ]
        joined = join_as_of(entities(asked), "when", lookups)
        assert join_as_of(entities(asked), "when", lookups, slice_rows=3).equals(joined)

    def by_hand(who: int, when: datetime, limit: timedelta | None) -> int | None:
        known = [r for r in rows if r[0] == who and r[1] <= when and (as_corrected or r[2] <= when)]
        if not known:
            return None
        newest = max(known, key=lambda r: (r[1], r[2]))
        return newest[3] if limit is None or when - newest[1] <= limit else None

    assert joined.select(["who", "when"]).equals(entities(asked))  # every row kept, in its order
    assert joined["value"].to_pylist() == [by_hand(who, when, ttl) for who, when in asked]
    assert joined["again"].to_pylist() == [by_hand(who, when, None) for who, when in asked]


def test_a_row_is_known_at_its_own_instant_and_not_a_microsecond_before(tmp_path: Path) -> None:
    noon = datetime(1998, 1, 1, 12, tzinfo=UTC)
    pin = snapshot(tmp_path, [(1, noon, noon, 5)])
    asked = entities([(1, noon - timedelta(microseconds=1)), (1, noon)])
    assert join_as_of(asked, "when", [lookup(pin)])["value"].to_pylist() == [None, 5]


def test_of_rows_with_one_event_time_the_one_written_down_last_counts_wherever_it_is_stored(tmp_path: Path) -> None:
    made = [start + timedelta(hours=hour) for hour in (1, 3, 2)]
    pin = snapshot(tmp_path, [(1, start, at, value) for value, at in enumerate(made)])
    asked = entities([(1, start + timedelta(hours=9))])
    for as_corrected in (False, True):
        found = join_as_of(asked, "when", [lookup(pin, as_corrected=as_corrected)])
        assert found["value"].to_pylist() == [1]


def test_a_row_counts_up_to_its_ttl_and_not_a_microsecond_longer(tmp_path: Path) -> None:
    noon, ttl = datetime(1998, 1, 1, 12, tzinfo=UTC), timedelta(hours=3)
    pin = snapshot(tmp_path, [(1, noon, noon, 5)])
    asked = entities([(1, noon + ttl), (1, noon + ttl + timedelta(microseconds=1))])
    assert join_as_of(asked, "when", [lookup(pin, ttl=ttl)])["value"].to_pylist() == [5, None]


def test_an_instant_is_the_same_in_every_time_zone(tmp_path: Path) -> None:
    noon = datetime(1998, 1, 1, 12, tzinfo=UTC)
    pin = snapshot(tmp_path, [(1, noon, noon, 5)])
    there = entities([(1, noon)]).set_column(1, "when", pa.array([noon], pa.timestamp("us", tz="Asia/Tokyo")))
    assert join_as_of(there, "when", [lookup(pin)])["value"].to_pylist() == [5]


def test_timestamps_without_a_time_zone_are_refused(tmp_path: Path) -> None:
    pin = snapshot(tmp_path, [])
    naive = entities([(1, start)]).set_column(1, "when", pa.array([datetime(1998, 1, 1)], pa.timestamp("us")))
    with pytest.raises(NaiveTimestampError, match=r"'when' is timestamp\[us\]"):
        join_as_of(naive, "when", [lookup(pin)])


def test_a_column_that_the_version_lacks_is_named(tmp_path: Path) -> None:
    pin = snapshot(tmp_path, [])
    with pytest.raises(OfflineSourceError, match=r"@0 lacks the column\(s\) gone"):
        join_as_of(entities([]), "when", [Lookup(pin, (("who", "user id"),), (("gone", "gone"),), known_at="at")])


def test_latest_rows_are_the_newest_of_each_key_up_to_the_end(tmp_path: Path) -> None:
    hours = [start + timedelta(hours=hour) for hour in range(4)]
    rows = [
        (1, hours[0], hours[0], 1),
        (1, hours[2], hours[2], 2),
        (1, hours[3], hours[3], 3),
        (2, hours[1], hours[1], 4),
    ]
    latest = latest_rows(snapshot(tmp_path, rows), ["user id"], ['val"ue'], "at", end=hours[2])
    assert sorted(latest.to_pylist(), key=lambda row: row["user id"]) == [
        {"user id": 1, 'val"ue': 2, "at": hours[2]},
        {"user id": 2, 'val"ue': 4, "at": hours[1]},
    ]


def test_changed_rows_are_the_new_the_different_and_the_gone() -> None:
    before = pa.table({"k": [1, 2, 3, 5], "v": [["a"], ["b"], None, ["e"]]})
    after = pa.table({"k": [1, 2, 3, 4], "v": [["a"], ["x"], None, ["d"]]})
    written, gone = changed_rows(before, after, ["k"])
    assert sorted(written.to_pylist(), key=lambda row: row["k"]) == [{"k": 2, "v": ["x"]}, {"k": 4, "v": ["d"]}]
    assert gone.to_pylist() == [{"k": 5}]
