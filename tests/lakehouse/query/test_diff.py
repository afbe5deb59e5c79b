from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse import Lakehouse, Snapshot, Table
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import DiffError
from lakehouse.query import feed
from lakehouse.query.diff import Diff, DiffCounts, RowChange
from lakehouse.tables import Rating

SCHEMA = pa.schema({"k": pa.int64(), "x": pa.float64(), "s": pa.string(), "l": pa.list_(pa.int64())})
VALUES = {
    "k": st.none() | st.integers(0, 3),
    "x": st.sampled_from([None, 0.0, 1.5, math.nan, math.inf]),
    "s": st.sampled_from([None, "", "a", "é'"]),
    "l": st.sampled_from([None, [], [1, None]]),
}
ROWS = st.lists(st.fixed_dictionaries(VALUES), max_size=5)
ACTS = st.lists(
    st.tuples(st.just("append"), ROWS)
    | st.tuples(st.just("overwrite"), ROWS)
    | st.tuples(st.just("delete"), st.integers(0, 3))
    | st.tuples(st.just("update"), st.integers(0, 3))
    | st.tuples(st.just("optimize"), st.none())
    | st.tuples(st.just("restore"), st.integers(0, 20)),
    min_size=1,
    max_size=5,
)


def act(uri: str, kind: str, value: Any) -> None:
    table = DeltaTable(uri)
    if kind == "append":
        write_deltalake(uri, pa.Table.from_pylist(value, SCHEMA), mode="append")
    elif kind == "overwrite":
        write_deltalake(uri, pa.Table.from_pylist(value, SCHEMA), mode="overwrite")
    elif kind == "delete":
        table.delete(f"k = {value}")
    elif kind == "update":
        table.update(predicate=f"k = {value}", updates={"s": "'changed'"})
    elif kind == "optimize":
        table.optimize.compact()
    elif table.version():
        table.restore(value % table.version())


def frozen(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A row that can be counted and in which NaN equals itself."""
    return tuple(repr(row[name]) for name in SCHEMA.names)


def full_read(uri: str, version: int) -> Counter[tuple[Any, ...]]:
    return Counter(frozen(row) for row in Snapshot(uri, version).arrow().to_pylist())


FED = {"delta.enableChangeDataFeed": "true"}


@contextmanager
def cheap_feed() -> Iterator[list[feed.Feed]]:
    """The feed is taken where there is one, however many bytes it has; those that were."""
    taken: list[feed.Feed] = []

    def between(before: Snapshot[Table], after: Snapshot[Table]) -> feed.Feed | None:
        found = ask(before, after)
        if found is not None:
            taken.append(found)
        return found and replace(found, bytes=-1)

    ask = feed.between
    with patch.object(feed, "between", between):
        yield taken


@settings(max_examples=40, deadline=None, derandomize=True)
@given(acts=ACTS, keyed=st.booleans(), fed=st.booleans(), data=st.data())
def test_a_diff_says_what_two_full_reads_say(
    acts: list[tuple[str, Any]],
    keyed: bool,
    fed: bool,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By files, and by the change data feed wherever the table has one."""
    uri = str(tmp_path_factory.mktemp("table") / "t")
    write_deltalake(uri, pa.Table.from_pylist([{"k": 1, "x": 0.5}, {"k": 2}], SCHEMA), configuration=FED if fed else {})
    for kind, value in acts:
        act(uri, kind, value)
    newest = DeltaTable(uri).version()
    one, two = data.draw(st.tuples(*[st.integers(0, newest)] * 2))
    before, after = full_read(uri, one), full_read(uri, two)
    with cheap_feed():
        changes = list(Diff(Snapshot(uri, one), Snapshot(uri, two), ["k"] if keyed else None).rows())
    lost = Counter(frozen(change.before) for change in changes if change.before is not None)
    gained = Counter(frozen(change.after) for change in changes if change.after is not None)
    assert (lost, gained) == (before - after, after - before)
    if keyed:  # as many as can be are changes: of each key, the smaller number of rows lost and gained
        lost_keys, gained_keys = (Counter(row[0] for row in side.elements()) for side in (lost, gained))
        assert sum(change.kind == "changed" for change in changes) == (lost_keys & gained_keys).total()
    for change in changes:
        if change.kind == "changed":
            assert change.before is not None and change.after is not None
            differing = [n for n in SCHEMA.names if repr(change.before[n]) != repr(change.after[n])]
            assert list(change.columns) == differing and keyed


@pytest.fixture
def merged(tmp_path: Path) -> str:
    """A table with a feed: 10,000 rows in one file, of which version 2 changes two, adds one and deletes one."""
    uri = str(tmp_path / "merged")
    rows = pa.table({"k": range(10_000), "s": [f"text {n}" for n in range(10_000)]})
    DeltaTable.create(uri, rows.schema, configuration=FED)
    write_deltalake(uri, rows, mode="append")
    fresh = pa.table({"k": [1, 2, 3, 10_000], "s": ["new", "new", "gone", "new"]})
    merge = DeltaTable(uri).merge(fresh, predicate="f.k = t.k", source_alias="f", target_alias="t")
    merge.when_matched_delete("f.s = 'gone'").when_matched_update_all().when_not_matched_insert_all().execute()
    return uri


def test_the_feed_is_read_where_it_is_less_than_the_rewritten_files(merged: str) -> None:
    for one, two, kinds in ((1, 2, "added changed changed removed"), (2, 1, "added changed changed removed")):
        diff = Diff(Snapshot(merged, one), Snapshot(merged, two), ["k"])
        assert diff._feed is not None
        assert 10 * diff._feed.bytes < sum(side.bytes for side in diff._sides), "the merge wrote the file anew"
        assert " ".join(sorted(change.kind for change in diff.rows())) == kinds
        assert diff.counts() == DiffCounts(added=1, removed=1, changed=2)
    assert Diff(Snapshot(merged, 0), Snapshot(merged, 2), ["k"])._feed is None, "the files alone are less"


def test_without_the_feeds_files_the_tables_own_are_compared(merged: str) -> None:
    for path in Path(merged, "_change_data").glob("*"):
        path.unlink()
    assert Diff(Snapshot(merged, 1), Snapshot(merged, 2), ["k"]).counts() == DiffCounts(1, 1, 2)


def rating(user: int, value: float) -> Rating:
    return Rating(user_id=user, item_id=7, rating=value, rated_at=datetime(1998, 3, 1, 12, tzinfo=UTC))


def test_a_declared_table_is_compared_by_its_key(lake: Lakehouse) -> None:
    uri = lake.uri("ratings")
    write_deltalake(uri, to_arrow(Rating, [rating(1, 4.0), rating(2, 4.0), rating(3, 4.0)]))
    write_deltalake(uri, to_arrow(Rating, [rating(2, 5.0), rating(3, 4.0), rating(4, 1.0)]), mode="overwrite")
    diff = lake.resolve("ratings@0").diff(lake.resolve("ratings@1"))
    shown = [(change.kind, (change.after or change.before or {})["user_id"], change.columns) for change in diff.rows()]
    assert shown == [("removed", 1, ()), ("changed", 2, ("rating",)), ("added", 4, ())]
    assert diff.counts() == DiffCounts(added=1, removed=1, changed=1)
    assert diff.columns == ()


def test_columns_that_came_went_or_changed_are_told_and_do_not_make_rows_differ(lake: Lakehouse) -> None:
    uri = lake.uri("things")
    write_deltalake(uri, pa.table({"k": [1, 2], "old": ["a", None], "n": pa.array([1, 2], pa.int32())}))
    after = pa.table({"k": [1, 2], "n": pa.array([1, 2], pa.int64()), "new": pa.array([None, 5], pa.int64())})
    write_deltalake(uri, after, mode="overwrite", schema_mode="overwrite")
    diff = Diff(Snapshot(uri, 0), Snapshot(uri, 1), ["k"])
    assert {c.column: (c.before, c.after) for c in diff.columns} == {
        "old": ("string", None),
        "n": ("int32", "int64"),
        "new": (None, "int64"),
    }
    assert {(c.after or {})["k"]: c.columns for c in diff.rows()} == {1: ("old",), 2: ("new",)}


def test_only_the_files_that_differ_are_read(lake: Lakehouse) -> None:
    uri = lake.uri("ratings")
    for user in range(30):
        write_deltalake(uri, to_arrow(Rating, [rating(user, 4.0)]), mode="append")
    table = DeltaTable(uri)
    kept = set(table.file_uris())
    table.delete("user_id = 17")
    gone = kept - set(DeltaTable(uri).file_uris())
    for path in kept - gone:
        Path(path).write_bytes(b"not to be read")
    diff = lake.resolve("ratings@29").diff(lake.resolve("ratings@30"))
    assert diff.files == len(gone) == 1
    assert [(change.kind, (change.before or {})["user_id"]) for change in diff.rows()] == [("removed", 17)]


def test_a_version_differs_in_nothing_from_itself_and_its_compacted_twin(lake: Lakehouse) -> None:
    uri = lake.uri("ratings")
    for user in range(3):
        write_deltalake(uri, to_arrow(Rating, [rating(user, 4.0)]), mode="append")
    DeltaTable(uri).optimize.compact()
    assert lake.resolve("ratings@2").diff(lake.resolve("ratings@2")).files == 0
    compacted = lake.resolve("ratings@2").diff(lake.resolve("ratings@3"))
    assert compacted.files == 4
    assert (list(compacted.rows()), compacted.counts()) == ([], DiffCounts(0, 0, 0))


def test_rows_that_deletion_vectors_take_out_and_bring_back_are_found(lake: Lakehouse) -> None:
    from lakehouse.spark import spark_session

    spark = spark_session()
    uri = lake.uri("marked")
    columns = "k BIGINT, day DATE"
    feature = "'delta.enableDeletionVectors' = 'true'"
    spark.sql(f"CREATE TABLE delta.`{uri}` ({columns}) USING delta PARTITIONED BY (day) TBLPROPERTIES ({feature})")
    rows = "SELECT /*+ COALESCE(1) */ id, DATE '1998-03-01' + CAST(id % 2 AS INT) FROM range(20)"
    spark.sql(f"INSERT INTO delta.`{uri}` {rows}")
    for key in (4, 11, 6):
        spark.sql(f"DELETE FROM delta.`{uri}` WHERE k = {key}")  # versions 2, 3, 4
    spark.sql(f"RESTORE TABLE delta.`{uri}` TO VERSION AS OF 2")  # version 5

    def changes(one: int, two: int) -> list[tuple[str, object]]:
        diff = Diff(Snapshot(uri, one), Snapshot(uri, two), ["k"])
        assert diff.files <= 4
        return [(change.kind, (change.before or change.after or {})["k"]) for change in diff.rows()]

    assert changes(1, 4) == [("removed", 4), ("removed", 6), ("removed", 11)]
    assert changes(2, 4) == [("removed", 6), ("removed", 11)]
    assert changes(4, 5) == [("added", 6), ("added", 11)]
    assert changes(2, 5) == []


def test_a_renamed_column_is_one_that_came_and_one_that_went(lake: Lakehouse) -> None:
    from lakehouse.spark import spark_session

    spark = spark_session()
    uri = lake.uri("mapped")
    mapping = "'delta.columnMapping.mode' = 'name'"
    spark.sql(f"CREATE TABLE delta.`{uri}` (k BIGINT, s STRING) USING delta TBLPROPERTIES ({mapping})")
    spark.sql(f"INSERT INTO delta.`{uri}` VALUES (1, 'a'), (2, 'b')")
    spark.sql(f"INSERT INTO delta.`{uri}` VALUES (3, 'c')")
    spark.sql(f"ALTER TABLE delta.`{uri}` RENAME COLUMN s TO word")
    added = list(Diff(Snapshot(uri, 1), Snapshot(uri, 2), ["k"]).rows())
    assert added == [RowChange("added", None, {"k": 3, "s": "c"}, ())]
    assert [change.column for change in Diff(Snapshot(uri, 2), Snapshot(uri, 3)).columns] == ["s", "word"]


def test_two_tables_and_a_key_that_is_not_there_are_refused(lake: Lakehouse) -> None:
    for name in ("ratings", "things"):
        write_deltalake(lake.uri(name), to_arrow(Rating, [rating(1, 4.0)]))
    one = lake.resolve("ratings@0")
    with pytest.raises(DiffError, match="versions of two tables"):
        one.diff(lake.resolve("things@0"))
    with pytest.raises(DiffError, match="lacks the key column"):
        Diff(one, one, ["nothing"])


def test_equal_rows_are_counted_and_not_only_found(lake: Lakehouse) -> None:
    uri = lake.uri("things")
    for rows in (["a", "a", "a", "b"], ["a", "c", "c"]):
        write_deltalake(uri, pa.table({"s": rows}), mode="overwrite")
    diff = Diff(Snapshot(uri, 0), Snapshot(uri, 1))
    assert diff.counts() == DiffCounts(added=2, removed=3, changed=0)
    assert Diff(Snapshot(uri, 0), Snapshot(uri, 1), ["s"]).counts() == DiffCounts(added=2, removed=3, changed=0)
