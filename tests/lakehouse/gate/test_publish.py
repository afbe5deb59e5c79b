from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lakehouse import Key, Lakehouse
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Table
from lakehouse.errors import AuditError, BatchConflictError, BatchSchemaError, NotPublishedError
from lakehouse.gate.commits import commits
from lakehouse.gate.publish import publish
from lakehouse.gate.quarantine import quarantined
from lakehouse.gate.staging import Batch, stage
from lakehouse.ledger import Metric, Publication
from lakehouse.snapshot import open_delta
from lakehouse.tables import Movie, Rating

DAY = datetime(1998, 3, 1, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
LATER = NOON + timedelta(hours=1)

#: Rows of the first batch, as text, with the rules that each breaks.
FIRST: dict[str, tuple[dict[str, str | None], set[str]]] = {
    "good": ({"user_id": "1", "item_id": "1", "rating": "4.0", "rated_at": f"{NOON}"}, set()),
    "a good one of another user": ({"user_id": "2", "item_id": "1", "rating": "4.0", "rated_at": f"{NOON}"}, set()),
    "older of a key": ({"user_id": "3", "item_id": "1", "rating": "1.0", "rated_at": f"{NOON}"}, set()),
    "newer of a key": ({"user_id": "3", "item_id": "1", "rating": "5.0", "rated_at": f"{LATER}"}, set()),
    "oldest of a key": ({"user_id": "3", "item_id": "1", "rating": "2.0", "rated_at": f"{DAY}"}, set()),
    "at the day's end": (
        {"user_id": "4", "item_id": "1", "rating": "0.5", "rated_at": f"{DAY + timedelta(days=1)}"},
        set(),
    ),
    "wrong type": (
        {"user_id": "1", "item_id": "two", "rating": "4.0", "rated_at": f"{NOON}"},
        {"item_id type int"},
    ),
    "three wrong types": (
        {"user_id": "1.5", "item_id": "2", "rating": "good", "rated_at": "yesterday"},
        {"user_id type int", "rating type float", "rated_at type datetime"},
    ),
    "too low": ({"user_id": "1", "item_id": "2", "rating": "0.4", "rated_at": f"{NOON}"}, {"rating ge 0.5"}),
    "too high": ({"user_id": "1", "item_id": "2", "rating": "5.1", "rated_at": f"{NOON}"}, {"rating le 5"}),
    "not a number": (
        {"user_id": "1", "item_id": "2", "rating": "NaN", "rated_at": f"{NOON}"},
        {"rating ge 0.5", "rating le 5"},
    ),
    "endless": ({"user_id": "1", "item_id": "2", "rating": "Infinity", "rated_at": f"{NOON}"}, {"rating le 5"}),
    "null": ({"user_id": "1", "item_id": "2", "rating": None, "rated_at": f"{NOON}"}, {"rating required"}),
    "nulls": (
        {"user_id": None, "item_id": None, "rating": None, "rated_at": None},
        {"user_id required", "item_id required", "rating required", "rated_at required"},
    ),
    "unknown movie": (
        {"user_id": "1", "item_id": "99", "rating": "4.0", "rated_at": f"{NOON}"},
        {"item_id references movies.item_id"},
    ),
    "unknown user": (
        {"user_id": "99", "item_id": "1", "rating": "4.0", "rated_at": f"{NOON}"},
        {"user_id references users.user_id"},
    ),
    "from the future": (
        {"user_id": "1", "item_id": "2", "rating": "4.0", "rated_at": "1998-03-02 00:00:01+00:00"},
        {"rated_at known_by"},
    ),
    "hostile": (
        {"user_id": "1", "item_id": "'; DROP TABLE ratings; --", "rating": '"}', "rated_at": "\\'\n`"},
        {"item_id type int", "rating type float", "rated_at type datetime"},
    ),
}
BAD = [name for name, (_, rules) in FIRST.items() if rules]


def batch(lake: Lakehouse, batch_id: str, rows: pa.Table, row_model: type[Table] = Rating, days: int = 0) -> Batch:
    return stage(lake, row_model, rows, batch_id=batch_id, day=(DAY + timedelta(days=days)).date())


def ratings(*rows: tuple[int, int, float, datetime]) -> pa.Table:
    records = [{"user_id": u, "item_id": i, "rating": r, "rated_at": at} for u, i, r, at in rows]
    return pa.Table.from_pylist(records, schema=arrow_schema(Rating.contract))


def stored(lake: Lakehouse, reference: str = "ratings") -> dict[tuple[int, int], tuple[float, datetime]]:
    """The rows that readers get, by key; each key must be there once."""
    rows = lake.resolve(reference).arrow().to_pylist()
    found = {(row["user_id"], row["item_id"]): (row["rating"], row["rated_at"]) for row in rows}
    assert len(found) == len(rows)
    return found


def last(lake: Lakehouse) -> Publication:
    return lake.publications("ratings")[-1]


def assert_conserved(lake: Lakehouse) -> None:
    """Rows in = published + quarantined + duplicates for each batch, and the quarantine holds as many rows."""
    for one in lake.publications():
        assert one.rows_in == one.rows_published + one.rows_quarantined + one.rows_duplicate, one
        refused = quarantined(lake, one.table_name)
        rows = refused.arrow(["row_number"], [("batch_id", "=", one.batch_id)])["row_number"] if refused else []
        assert len(rows) == len(set(rows)) == one.rows_quarantined, one


@pytest.fixture(scope="module")
def first(seed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake into which the first batch of ratings has come."""
    folder = tmp_path_factory.mktemp("first") / "lake"
    shutil.copytree(seed_folder, folder)
    lake = Lakehouse.open(folder)
    publish(lake, Rating, batch(lake, "first", pa.Table.from_pylist([row for row, _ in FIRST.values()])))
    return folder


@pytest.fixture
def lake(first: Path, tmp_path: Path) -> Lakehouse:
    """A copy of it."""
    shutil.copytree(first, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


@pytest.fixture
def no_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("Spark was started")

    monkeypatch.setattr("lakehouse.spark.spark_session", refuse)


# One batch with every defect


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_quarantined_as_it_came_with_every_rule_it_broke(lake: Lakehouse, name: str) -> None:
    row, rules = FIRST[name]
    refused = quarantined(lake, "ratings")
    assert refused is not None
    (found,) = refused.arrow(where=[("row_number", "=", list(FIRST).index(name))]).to_pylist()
    assert json.loads(found["row"]) == row
    assert set(found["rules"]) == rules
    assert (found["batch_id"], found["day"]) == ("first", DAY.date())
    assert found["quarantine_id"] == f"first/{found['row_number']}"


def test_the_newest_good_row_of_each_key_is_published_and_the_others_are_duplicates(lake: Lakehouse) -> None:
    assert stored(lake) == {
        (1, 1): (4.0, NOON),
        (2, 1): (4.0, NOON),
        (3, 1): (5.0, LATER),
        (4, 1): (0.5, DAY + timedelta(days=1)),
    }
    one = last(lake)
    assert (one.rows_in, one.rows_published, one.rows_quarantined, one.rows_duplicate) == (18, 4, 12, 2)
    assert (one.rows_total, one.published, one.failed_checks) == (4, True, [])
    assert json.loads(one.broken_rules) == {
        rule: sum(rule in rules for _, rules in FIRST.values())
        for rule in set().union(*(rules for _, rules in FIRST.values()))
    }
    assert_conserved(lake)


def test_the_audit_leaves_metrics_of_the_version(lake: Lakehouse) -> None:
    metrics = {(m.metric, m.column): m.value for m in lake.ledger.read(Metric) if m.version == last(lake).version}
    assert metrics[("Size", "*")] == 4
    assert metrics[("Completeness", "rating")] == 1
    assert metrics[("Mean", "rating")] == pytest.approx((4 + 4 + 5 + 0.5) / 4)
    assert metrics[("Uniqueness", "key")] == 1


# Again, and in conflict


@pytest.mark.usefixtures("no_spark")
def test_publishing_a_batch_again_changes_nothing_and_starts_no_spark(lake: Lakehouse) -> None:
    def files() -> set[Path]:
        return {path for path in Path(lake.root).rglob("*") if path.is_file()}

    before = files()
    again = publish(lake, Rating, batch(lake, "first", pa.Table.from_pylist([row for row, _ in FIRST.values()])))
    assert again == lake.latest(Rating)
    assert files() == before


@pytest.mark.usefixtures("no_spark")
def test_a_batch_id_stands_for_its_rows_for_good(lake: Lakehouse) -> None:
    with pytest.raises(BatchConflictError, match="staged before with other rows"):
        batch(lake, "first", ratings((1, 1, 1.0, NOON)))
    other = Lakehouse.open(Path(lake.root).parent / "other", create=True)
    with pytest.raises(BatchConflictError, match="another place"):
        publish(other, Rating, batch(lake, "x", ratings((1, 1, 1.0, NOON))))
    with pytest.raises(BatchConflictError, match="another place"):
        publish(lake, Movie, batch(lake, "x", ratings((1, 1, 1.0, NOON))))


# Batches that are refused as a whole


@pytest.mark.usefixtures("no_spark")
@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"rating": None}, r"lacks the required column\(s\) rating;"),
        ({"rating": None, "rated_at": None}, r"rating, rated_at;"),
        ({"rating": "stars"}, r"lacks .* rating and brings the unknown column\(s\) stars;"),
        ({"rating": "Rating"}, r"lacks .* rating and brings the unknown column\(s\) Rating;"),
        ({"rating": "user_id"}, r"lacks .* rating and brings the unknown column\(s\) user_id;"),
        ({"rating": "__row"}, r"lacks .* rating and brings the unknown column\(s\) __row;"),
        ({"rating": "a.b`c'"}, r"unknown column\(s\) a\.b`c';"),
    ],
)
def test_a_batch_with_other_columns_is_one_error_that_names_them(
    lake: Lakehouse, rename: dict[str, str | None], message: str
) -> None:
    rows = ratings((1, 2, 4.0, NOON), (2, 2, 4.0, NOON))
    rows = rows.drop([name for name, new in rename.items() if new is None])
    rows = rows.rename_columns([rename.get(name) or name for name in rows.column_names])
    before = lake.latest(Rating)
    with pytest.raises(BatchSchemaError, match=message) as caught:
        publish(lake, Rating, batch(lake, "odd", rows))
    assert "'odd' for table 'ratings' (2 rows)" in caught.value.message
    assert lake.latest(Rating) == before == lake.resolve(f"ratings@{open_delta(before.uri).version()}")
    assert len(lake.publications("ratings")) == 1


def test_a_batch_of_bad_rows_alone_publishes_the_version_before_it(lake: Lakehouse) -> None:
    rows = ratings((1, 2, 4.0, NOON), (2, 2, 4.0, NOON))
    # Neither lists nor numbers can be ratings or instants, whatever they hold.
    rows = rows.set_column(2, "rating", pa.array([[4.0], []]))
    rows = rows.set_column(3, "rated_at", pa.array([888_753_600, 0]))
    before = lake.latest(Rating)
    assert publish(lake, Rating, batch(lake, "bad", rows, days=1)) == before
    assert (last(lake).rows_in, last(lake).rows_published, last(lake).rows_quarantined) == (2, 0, 2)
    assert json.loads(last(lake).broken_rules) == {"rating type float": 2, "rated_at type datetime": 2}
    assert_conserved(lake)
    assert len(stored(lake)) == 4


def test_an_empty_batch_publishes_the_version_before_it(lake: Lakehouse) -> None:
    before = lake.latest(Rating)
    assert publish(lake, Rating, batch(lake, "empty", ratings(), days=1)) == before
    assert (last(lake).rows_in, last(lake).rows_total, last(lake).published) == (0, 4, True)


def test_a_first_batch_without_a_good_row_publishes_nothing_and_the_next_one_begins(
    seed_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(seed_folder, tmp_path / "lake")
    lake = Lakehouse.open(tmp_path / "lake")
    bad = batch(lake, "bad", ratings((1, 1, 9.0, NOON)))
    for _ in range(2):
        with pytest.raises(AuditError, match="no version is published"):
            publish(lake, Rating, bad)
    with pytest.raises(NotPublishedError):
        lake.latest(Rating)
    publish(lake, Rating, batch(lake, "good", ratings((1, 1, 4.0, NOON))))
    assert stored(lake) == {(1, 1): (4.0, NOON)}
    assert_conserved(lake)


# Batch after batch


def test_of_two_batches_the_later_event_wins_and_the_older_row_is_a_duplicate(lake: Lakehouse) -> None:
    rows = ratings((1, 1, 1.0, DAY), (2, 1, 2.0, LATER), (3, 1, 3.0, LATER), (5, 5, 5.0, DAY))
    first_version = lake.latest(Rating).version
    publish(lake, Rating, batch(lake, "second", rows, days=1))
    assert stored(lake) == {
        (1, 1): (4.0, NOON),  # the row that came is older
        (2, 1): (2.0, LATER),
        (3, 1): (3.0, LATER),  # as old as the stored one: what came last counts
        (4, 1): (0.5, DAY + timedelta(days=1)),
        (5, 5): (5.0, DAY),
    }
    assert (last(lake).rows_published, last(lake).rows_duplicate) == (3, 1)
    assert_conserved(lake)
    assert len(stored(lake, f"ratings@{first_version}")) == 4
    assert stored(lake, "ratings@1998-03-01") == stored(lake, f"ratings@{first_version}")


def test_a_version_that_fails_its_audit_is_not_published_and_nothing_is_built_on_it(lake: Lakehouse) -> None:
    good = lake.latest(Rating)
    write_deltalake(good.uri, ratings((1, 1, 2.0, LATER)), mode="append")  # behind the gate: a key twice
    refused = batch(lake, "second", ratings((5, 1, 4.0, NOON)), days=1)
    for _ in range(2):
        with pytest.raises(
            AuditError, match=rf"Uniqueness.*; version {good.version} stays the published one"
        ) as caught:
            publish(lake, Rating, refused)
    assert lake.latest(Rating) == good
    number = last(lake).version
    assert f"ratings@{number}" in caught.value.fix
    assert lake.resolve(f"ratings@{number}").count() == 6
    publish(lake, Rating, batch(lake, "third", ratings((5, 2, 3.0, NOON)), days=2))
    assert set(stored(lake)) == {(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)}
    assert_conserved(lake)


def test_a_merge_that_a_restore_undid_is_made_again_when_its_batch_is_retried(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    waiting = batch(lake, "waiting", ratings((5, 3, 3.0, NOON)), days=1)
    with monkeypatch.context() as patch:
        patch.setattr("lakehouse.gate.publish.audit", interrupted)  # merged, and then the process is gone
        with pytest.raises(KeyboardInterrupt):
            publish(lake, Rating, waiting)
    monkeypatch.setattr("lakehouse.gate.merging.UNDERWAY", timedelta(0))  # for long
    write_deltalake(lake.uri("ratings"), ratings((1, 1, 2.0, LATER)), mode="append")  # behind the gate: a key twice
    with pytest.raises(AuditError):
        publish(lake, Rating, batch(lake, "refused", ratings((5, 4, 3.0, NOON)), days=2))
    publish(lake, Rating, batch(lake, "good", ratings((5, 5, 3.0, NOON)), days=3))  # built on the published version
    assert set(stored(lake)) == {(1, 1), (2, 1), (3, 1), (4, 1), (5, 5)}
    publish(lake, Rating, waiting)
    assert set(stored(lake)) == {(1, 1), (2, 1), (3, 1), (4, 1), (5, 5), (5, 3)}
    assert_conserved(lake)


def test_a_merge_that_waits_for_its_verdict_stays_when_a_later_version_is_put_back(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    waiting = batch(lake, "waiting", ratings((5, 3, 3.0, NOON)), days=1)
    with monkeypatch.context() as patch:
        patch.setattr("lakehouse.gate.publish.audit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish(lake, Rating, waiting)
    write_deltalake(lake.uri("ratings"), ratings((1, 1, 2.0, LATER)), mode="append")  # behind the gate: a key twice
    with pytest.raises(AuditError):
        publish(lake, Rating, batch(lake, "refused", ratings((5, 4, 3.0, NOON)), days=2))
    publish(lake, Rating, batch(lake, "good", ratings((5, 5, 3.0, NOON)), days=3))
    assert set(stored(lake)) == {(1, 1), (2, 1), (3, 1), (4, 1), (5, 5), (5, 3)}
    publish(lake, Rating, waiting)
    assert [
        line.operation for line in commits(lake, "ratings", open_delta(lake.uri("ratings")).version()) if line.note
    ].count("MERGE") == 4
    assert lake.latest(Rating).version == max(p.version for p in lake.publications("ratings"))
    assert set(stored(lake)) == {(1, 1), (2, 1), (3, 1), (4, 1), (5, 5), (5, 3)}
    assert_conserved(lake)


def test_where_the_table_keeps_a_change_feed_a_diff_reads_no_row_that_stayed(
    tmp_path: Path, own_state: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Table, "_registry", dict(Table._registry))

    class Fed(Table, name="fed_events", change_feed=True):
        """Events whose changes are recorded."""

        event_id: Annotated[int, Key()]
        text: str

    def rows(ids: range, text: str) -> pa.Table:
        records = [{"event_id": n, "text": f"{text} {n}"} for n in ids]
        return pa.Table.from_pylist(records, schema=arrow_schema(Fed.contract))

    lake = Lakehouse.open(tmp_path / "fed", create=True)
    publish(lake, Fed, batch(lake, "all", rows(range(5_000), "some text"), Fed))
    publish(lake, Fed, batch(lake, "few", rows(range(4_998, 5_003), "other"), Fed, days=1))
    old, new = (lake.resolve(f"fed_events@{p.version}") for p in lake.publications("fed_events"))
    found = old.diff(new)
    assert (found.counts().added, found.counts().removed, found.counts().changed) == (3, 0, 2)
    by_files = sum(file.stat().st_size for file in (tmp_path / "fed" / "fed_events").glob("*.parquet"))
    recorded = list((tmp_path / "fed" / "fed_events" / "_change_data").glob("*.parquet"))
    assert found.files == len(recorded), "the feed's files, and no other"
    assert sum(file.stat().st_size for file in recorded) < by_files / 5


def test_the_table_refuses_another_writer_what_is_out_of_range(lake: Lakehouse) -> None:
    for bad in (0.4, 5.1):
        with pytest.raises(DeltaError, match="rating"):
            write_deltalake(lake.uri("ratings"), ratings((5, 5, bad, NOON)), mode="append")
    assert open_delta(lake.uri("ratings")).version() == lake.latest(Rating).version


def test_a_list_with_a_hole_is_refused_and_an_optional_column_may_be_left_out(lake: Lakehouse) -> None:
    rows = pa.table(
        {
            "item_id": [10, 11, 12],
            "title": ["Ten", "Eleven", ""],
            "genres": [["Drama"], ["Drama", None], []],
            "added_at": pa.array([NOON] * 3, pa.timestamp("us", "UTC")),
        }
    )
    publish(lake, Movie, batch(lake, "films", rows, Movie))
    (ten,) = lake.latest(Movie).arrow(where=[("item_id", ">=", 10)]).to_pylist()
    assert (ten["item_id"], ten["year"], ten["genres"]) == (10, None, ["Drama"])
    assert json.loads(lake.publications("movies")[-1].broken_rules) == {
        "genres type list[str]": 1,
        "title min_length 1": 1,
    }


# The conservation law

ROW = st.tuples(
    st.sampled_from([1, 2, 3, 4, 5, 99, None]),
    st.sampled_from([1, 2, 77]),
    # Good ones keep the mean of any table within what the contract expects.
    # Whatever of the first batch they replace, the mean stays where it is expected.
    st.sampled_from([3.5, 3.75, 4.0, 0.0, 6.0, float("nan"), None]),
    st.sampled_from([-1, 0, 1, 24, 25]).map(lambda hours: DAY + timedelta(hours=hours)),
)


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
@given(rows=st.lists(ROW, max_size=14))
def test_rows_in_are_rows_published_quarantined_or_duplicate_whatever_comes(
    property_lake: Lakehouse, rows: list[tuple[Any, ...]]
) -> None:
    """One batch after the other into one lake, against a model of the table in plain Python."""
    lake = property_lake
    number = len(lake.publications("ratings"))
    expected = stored(lake)
    published: set[tuple[int, int]] = set()
    bad = 0
    for user, item, stars, at in rows:
        if (
            user not in range(1, 6)
            or item == 77
            or stars is None
            or not 0.5 <= stars <= 5
            or at > DAY + timedelta(days=1)
        ):
            bad += 1
        elif (user, item) not in expected or at >= expected[user, item][1]:
            expected[user, item] = (stars, at)
            published.add((user, item))
    publish(lake, Rating, batch(lake, f"batch-{number}", ratings(*cast(Any, rows))))
    counts = last(lake)
    assert (counts.rows_in, counts.rows_quarantined, counts.rows_published) == (len(rows), bad, len(published))
    assert stored(lake) == expected
    assert counts.rows_total == len(expected)
    assert_conserved(lake)


@pytest.fixture(scope="module")
def property_lake(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Lakehouse:
    folder = tmp_path_factory.mktemp("property") / "lake"
    shutil.copytree(first, folder)
    return Lakehouse.open(folder)
