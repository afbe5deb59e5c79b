"""Refused rows are corrected and sent through the gate again, or discarded; on real Spark."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import Lakehouse
from lakehouse.errors import AuditError, QuarantineError
from lakehouse.gate.publish import publish
from lakehouse.gate.quarantine import RefusedRow, discard, refused_rows, requeue
from lakehouse.gate.staging import stage
from lakehouse.ledger import Fate
from lakehouse.tables import Movie, Rating
from lakehouse.upkeep.restore import restore

DAY = datetime(1998, 3, 1, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)


def rating(user: object, item: object, stars: object, at: object = NOON) -> dict[str, str | None]:
    return {
        "user_id": None if user is None else str(user),
        "item_id": None if item is None else str(item),
        "rating": None if stars is None else str(stars),
        "rated_at": None if at is None else str(at),
    }


#: 0 is good; 1 to 4 are not.
FIRST = [
    rating(1, 1, 4.0),
    rating(2, 1, 9.5),
    rating(3, 99, "good"),
    rating(4, 1, None),
    rating("five", 1, 3.0),
]


@pytest.fixture(scope="module")
def first(seed_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "lake"
    shutil.copytree(seed_folder, folder)
    bring(Lakehouse.open(folder), "first", FIRST)
    return folder


@pytest.fixture
def lake(first: Path, tmp_path: Path) -> Iterator[Lakehouse]:
    """A copy of a lake with one published rating and four refused ones; the law holds for it at the end as well."""
    shutil.copytree(first, tmp_path / "lake")
    lake = Lakehouse.open(tmp_path / "lake")
    yield lake
    assert_conserved(lake)


def bring(lake: Lakehouse, batch_id: str, rows: list[dict[str, str | None]], days: int = 0) -> None:
    day = (DAY + timedelta(days=days)).date()
    publish(lake, Rating, stage(lake, Rating, pa.Table.from_pylist(rows), batch_id=batch_id, day=day))


def assert_conserved(lake: Lakehouse) -> None:
    """Quarantined = open + requeued + discarded, and each batch's rows are all there."""
    for name in ("ratings", "movies"):
        rows = refused_rows(lake, name)
        of_batch = Counter(row.quarantined.batch_id for row in rows if row.fate != "rejudged")
        last = {p.batch_id: p for p in lake.publications(name)}
        for batch_id, count in of_batch.items():
            assert last[batch_id].rows_quarantined == count
        for p in last.values():
            assert p.rows_in == p.rows_published + p.rows_quarantined + p.rows_duplicate
        quarantined = sum(p.rows_quarantined for p in last.values() if p.published or p.kind == "batch")
        kinds = Counter(row.fate for row in rows)
        assert quarantined == kinds["open"] + kinds["requeued"] + kinds["discarded"]


def fates(lake: Lakehouse, name: str = "ratings") -> dict[str, str]:
    return {row.quarantined.quarantine_id: row.fate for row in refused_rows(lake, name)}


def one(lake: Lakehouse, quarantine_id: str) -> RefusedRow:
    (row,) = [row for row in refused_rows(lake, "ratings") if row.quarantined.quarantine_id == quarantine_id]
    return row


def stored(lake: Lakehouse) -> dict[tuple[int, int], float]:
    rows = lake.latest(Rating).arrow().to_pylist()
    found = {(row["user_id"], row["item_id"]): row["rating"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_refused_row_shows_its_values_and_which_of_them_broke_which_rule(lake: Lakehouse) -> None:
    row = one(lake, "first/2")
    assert row.values == rating(3, 99, "good")
    assert row.offending == {"item_id references movies.item_id": "99", "rating type float": "good"}
    assert one(lake, "first/3").offending == {"rating required": None}
    assert fates(lake) == dict.fromkeys(["first/1", "first/2", "first/3", "first/4"], "open")


def test_corrected_rows_go_through_the_gate_as_one_batch_and_are_closed(lake: Lakehouse) -> None:
    snapshot = requeue(lake, Rating, {"first/1": {"rating": 4.5}, "first/4": {"user_id": 5, "rating": Decimal("2")}})
    assert snapshot == lake.latest(Rating)
    assert stored(lake) == {(1, 1): 4.0, (2, 1): 4.5, (5, 1): 2.0}
    assert fates(lake) == {"first/1": "requeued", "first/2": "open", "first/3": "open", "first/4": "requeued"}
    batch = lake.publications("ratings")[-1]
    assert (batch.kind, batch.rows_in, batch.rows_published, batch.day) == ("requeue", 2, 2, DAY.date())
    assert one(lake, "first/1").requeued_in == batch.batch_id


def test_the_same_correction_again_changes_nothing_and_another_one_is_refused(lake: Lakehouse) -> None:
    correction: dict[str, dict[str, object]] = {"first/1": {"rating": 4.5}, "first/4": {"user_id": 5}}
    snapshot = requeue(lake, Rating, correction)
    ledger = list(lake.ledger.read(Fate))
    assert requeue(lake, Rating, dict(reversed(list(correction.items())))) == snapshot
    assert list(lake.ledger.read(Fate)) == ledger
    assert len(lake.publications("ratings")) == 2
    with pytest.raises(QuarantineError, match=r"'first/1' .* is not open: it was requeued"):
        requeue(lake, Rating, {"first/1": {"rating": 1}})
    with pytest.raises(QuarantineError, match=r"'first/4' .* is not open: it was requeued"):
        discard(lake, "ratings", ["first/2", "first/4"], "junk")
    assert fates(lake)["first/2"] == "open"


def test_a_correction_that_breaks_a_rule_again_stays_open_with_its_new_rules(lake: Lakehouse) -> None:
    requeue(lake, Rating, {"first/2": {"item_id": 2, "rating": 7}, "first/1": {"rating": 5}})
    assert stored(lake) == {(1, 1): 4.0, (2, 1): 5.0}
    assert fates(lake)["first/2"] == "requeued"
    (again,) = [row for row in refused_rows(lake, "ratings") if row.quarantined.batch_id.startswith("requeue-")]
    assert (again.fate, again.offending) == ("open", {"rating le 5": "7"})
    assert again.quarantined.batch_id == one(lake, "first/2").requeued_in
    assert_conserved(lake)
    requeue(lake, Rating, {again.quarantined.quarantine_id: {"rating": "1.5"}})
    assert stored(lake) == {(1, 1): 4.0, (2, 1): 5.0, (3, 2): 1.5}
    assert Counter(fates(lake).values()) == {"requeued": 3, "open": 2}


def test_discarding_closes_rows_for_good_and_keeps_the_reason(lake: Lakehouse) -> None:
    for nothing in ("", " \n"):
        with pytest.raises(QuarantineError, match="not discarded without a reason"):
            discard(lake, "ratings", ["first/1"], nothing)
    discard(lake, "ratings", ["first/1", "first/3"], "typed by a cat")
    assert fates(lake) == {"first/1": "discarded", "first/2": "open", "first/3": "discarded", "first/4": "open"}
    assert one(lake, "first/3").reason == "typed by a cat"
    with pytest.raises(QuarantineError, match="it was discarded"):
        requeue(lake, Rating, {"first/1": {"rating": 4.5}})
    with pytest.raises(QuarantineError, match="has no row 'first/0'"):
        discard(lake, "ratings", ["first/0"], "not there")
    with pytest.raises(QuarantineError, match="No row"):
        discard(lake, "ratings", [], "none")
    with pytest.raises(QuarantineError, match="no column 'stars'"):
        requeue(lake, Rating, {"first/2": {"stars": 4.5}})


@pytest.mark.parametrize("step", ["publish", "merge", "audit"])
def test_after_a_kill_the_same_correction_goes_on_and_another_one_finishes_it_first(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"lakehouse.gate.publish.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            requeue(lake, Rating, {"first/1": {"rating": 4.5}})
    assert fates(lake)["first/1"] == "requeued"  # claimed: nobody else may send it
    assert stored(lake) == {(1, 1): 4.0}
    if step == "merge":
        with pytest.raises(QuarantineError, match="it was requeued"):
            requeue(lake, Rating, {"first/1": {"rating": 1}, "first/4": {"user_id": 5}})
        assert fates(lake)["first/4"] == "open"
    else:
        requeue(lake, Rating, {"first/1": {"rating": 4.5}})
    assert stored(lake) == {(1, 1): 4.0, (2, 1): 4.5}
    assert len(list(lake.ledger.read(Fate))) == 1


def test_corrections_that_are_not_published_leave_their_rows_open(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.gate.auditing import Verdict

    correction: dict[str, dict[str, object]] = {"first/1": {"rating": 4.5}, "first/2": {"item_id": 2, "rating": 8}}
    with monkeypatch.context() as patch:
        patch.setattr("lakehouse.gate.publish.audit", lambda *_: Verdict(("Mean(rating) le 4.5: it is 9",), (), 2))
        with pytest.raises(AuditError):
            requeue(lake, Rating, correction)
    assert stored(lake) == {(1, 1): 4.0}
    assert [fate for row, fate in fates(lake).items() if row.startswith("first/")] == ["open"] * 4
    assert [fate for row, fate in fates(lake).items() if row.startswith("requeue-")] == ["rejudged"]
    assert_conserved(lake)
    bring(lake, "second", [rating(5, 5, 3.0)], days=1)
    requeue(lake, Rating, correction)  # a later version was published: the same batch is judged again
    assert stored(lake) == {(1, 1): 4.0, (5, 5): 3.0, (2, 1): 4.5}
    assert Counter(fates(lake).values()) == {"requeued": 2, "open": 3}


def test_rows_whose_correction_a_restore_withdraws_are_open_again(lake: Lakehouse) -> None:
    before = lake.latest(Rating)
    bring(lake, "second", [rating(5, 5, 3.0)], days=3)
    requeue(lake, Rating, {"first/1": {"rating": 4.5}})
    assert lake.publications("ratings")[-1].day == (DAY + timedelta(days=3)).date()
    assert len(lake.resolve("ratings@1998-03-01").arrow()) == 1  # the past has got nothing of it
    restore(lake, before.reference)
    assert stored(lake) == {(1, 1): 4.0}
    assert fates(lake)["first/1"] == "open"
    requeue(lake, Rating, {"first/1": {"rating": 4.5}})
    assert stored(lake) == {(1, 1): 4.0, (2, 1): 4.5}
    assert fates(lake)["first/1"] == "requeued"


def test_of_two_processes_that_decide_about_a_row_the_first_one_counts(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.gate import quarantine

    real = quarantine._decide

    def late(*args: object, **options: object) -> None:
        monkeypatch.setattr("lakehouse.gate.quarantine._decide", real)
        discard(lake, "ratings", ["first/1"], "by another process")
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("lakehouse.gate.quarantine._decide", late)
    with pytest.raises(QuarantineError, match="it was discarded"):
        requeue(lake, Rating, {"first/1": {"rating": 4.5}, "first/4": {"user_id": 5}})
    assert stored(lake) == {(1, 1): 4.0}
    assert (fates(lake)["first/1"], fates(lake)["first/4"]) == ("discarded", "open")
    requeue(lake, Rating, {"first/4": {"user_id": 5}})
    assert stored(lake) == {(1, 1): 4.0, (5, 1): 3.0}


def test_a_batch_that_is_judged_again_keeps_what_was_decided_about_its_rows(lake: Lakehouse) -> None:
    bring(lake, "second", [rating(5, 5, 3.0), rating(5, 6, 3.0), rating(5, 77, 3.0), rating(5, 2, 0.1)], days=1)
    discard(lake, "ratings", ["second/2", "second/3"], "unknown")
    restore(lake, f"ratings@{lake.publications('ratings')[0].version}")
    films = pa.table(
        {
            "item_id": [6, 77],
            "title": ["Six", "Seven"],
            "genres": [["Drama"], ["Drama"]],
            "added_at": pa.array([NOON] * 2, pa.timestamp("us", "UTC")),
        }
    )
    publish(lake, Movie, stage(lake, Movie, films, batch_id="films", day=DAY.date()))
    bring(lake, "second", [rating(5, 5, 3.0), rating(5, 6, 3.0), rating(5, 77, 3.0), rating(5, 2, 0.1)], days=1)
    assert stored(lake) == {(1, 1): 4.0, (5, 5): 3.0, (5, 6): 3.0, (5, 77): 3.0}
    assert {row: fate for row, fate in fates(lake).items() if row.startswith("second/")} == {
        "second/1": "rejudged",
        "second/2": "rejudged",
        "second/3": "discarded",
    }


def test_lists_are_corrected_as_lists(lake: Lakehouse) -> None:
    films = pa.table(
        {
            "item_id": [10, 11],
            "title": ["", "Eleven"],
            "genres": [["Drama"], ["Drama", None]],
            "added_at": pa.array([NOON] * 2, pa.timestamp("us", "UTC")),
        }
    )
    publish(lake, Movie, stage(lake, Movie, films, batch_id="films", day=DAY.date()))
    with pytest.raises(QuarantineError, match="different kinds in column 'genres'"):
        requeue(lake, Movie, {"films/0": {"title": "Ten"}, "films/1": {"genres": "Drama"}})
    assert set(fates(lake, "movies").values()) == {"open"}
    requeue(lake, Movie, {"films/0": {"title": "Ten", "year": 1998}, "films/1": {"genres": ["Drama", "War"]}})
    found = lake.latest(Movie).arrow(where=[("item_id", ">=", 10)]).to_pylist()
    assert {(row["item_id"], row["title"], row["year"], *row["genres"]) for row in found} == {
        (10, "Ten", 1998, "Drama"),
        (11, "Eleven", None, "Drama", "War"),
    }
