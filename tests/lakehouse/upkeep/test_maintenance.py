from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.table import TableOptimizer

from lakehouse import EventTime, Key, Lakehouse, Table
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import TableBusyError, UnknownTableError, UnknownVersionError
from lakehouse.ledger import Maintenance, Metric, Publication
from lakehouse.query.files import table_files
from lakehouse.snapshot import open_delta
from lakehouse.tables import Rating
from lakehouse.upkeep.acts import settle
from lakehouse.upkeep.maintenance import maintain
from lakehouse.upkeep.optimize import optimize
from lakehouse.upkeep.restore import withdrawn

Put = Callable[..., int]
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)


class Visit(Table, name="visits", partition_by=("day",), cluster_by=("place",)):
    """A table with partitions and an order."""

    visit_id: Annotated[int, Key()]
    day: date
    place: int
    at: Annotated[datetime, EventTime()]


def rating(user: int, item: int = 1) -> Rating:
    return Rating(user_id=user, item_id=item, rating=4.0, rated_at=NOON)


def visits(numbers: range) -> list[Visit]:
    return [Visit(visit_id=n, day=date(1998, 3, 1 + n % 2), place=n * 7 % 100, at=NOON) for n in numbers]


def rows(lake: Lakehouse, reference: str) -> list[str]:
    return sorted(map(str, lake.resolve(reference).arrow().to_pylist()))


@pytest.fixture
def lake(seed_folder: Path, tmp_path: Path, own_state: None) -> Lakehouse:
    shutil.copytree(seed_folder, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


@pytest.fixture
def small_files(lake: Lakehouse, put: Put) -> int:
    """The version of ratings in which each of eight batches left a file of its own."""
    return [put(lake, [rating(user)]) for user in range(1, 9)][-1]


# Optimize


def test_small_files_become_one_and_the_rows_stay_the_same(lake: Lakehouse, small_files: int) -> None:
    before = rows(lake, "ratings")
    report = optimize(lake, "ratings")
    assert (report.done, report.files_before, report.files_after) == ("compact", 8, 1)
    assert 0 < report.bytes_after < report.bytes_before
    assert lake.resolve("ratings").version == report.version == small_files + 1
    assert rows(lake, "ratings") == before == rows(lake, f"ratings@{small_files}")
    last = max(lake.publications("ratings"), key=lambda p: p.version)
    assert (last.kind, last.published, last.rows_total, last.rows_in) == ("optimize", True, 8, 0)
    assert not withdrawn(lake.publications())


def test_what_does_not_pay_is_left_alone(lake: Lakehouse, small_files: int) -> None:
    optimize(lake, "ratings")
    again = optimize(lake, "ratings")
    assert (again.done, again.files_before, again.files_after) == ("its files are large or few", 1, 1)
    assert again.version == small_files + 1
    assert optimize(lake, "users").done == "its files are large or few"


def test_a_table_is_clustered_in_its_partitions_and_again_only_when_much_is_new(lake: Lakehouse, put: Put) -> None:
    for start in range(0, 400, 100):
        put(lake, visits(range(start, start + 100)))
    before = rows(lake, "visits")
    report = optimize(lake, "visits")
    assert (report.done, report.files_after) == ("cluster", 2)
    assert rows(lake, "visits") == before
    for day in (1, 2):
        part = lake.resolve("visits").arrow(["place"], [("day", "=", date(1998, 3, day))])["place"].to_pylist()
        assert part == sorted(part)
    assert optimize(lake, "visits").done == "it is clustered already"
    put(lake, visits(range(1000, 1002)))
    assert optimize(lake, "visits").done == "cluster", "two small files are a good part of a table this small"


def test_a_table_whose_newest_version_is_not_published_is_left_alone(
    lake: Lakehouse, small_files: int, put: Put
) -> None:
    put(lake, [rating(9)], published=False)
    report = optimize(lake, "ratings")
    assert report.done == "the newest version is not published"
    assert DeltaTable(lake.uri("ratings")).version() == small_files + 1
    assert lake.resolve("ratings").version == small_files


def test_a_batch_that_lands_meanwhile_is_neither_lost_nor_published_by_it(
    lake: Lakehouse, small_files: int, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TableOptimizer.compact

    def late(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(TableOptimizer, "compact", real)
        put(lake, [rating(99)], published=False)
        return real(*args, **options)

    monkeypatch.setattr(TableOptimizer, "compact", late)
    report = optimize(lake, "ratings")
    table = open_delta(lake.uri("ratings"))
    assert (table.version(), table.count()) == (report.version, 9) == (small_files + 2, 9)
    settle(lake, "ratings")
    assert lake.resolve("ratings").version == small_files, "nobody has judged the row that landed"


def test_compaction_beside_writers_loses_nothing(lake: Lakehouse, put: Put) -> None:
    """Each of four threads adds rows, as a writer would that tries again after a conflict; a fifth compacts."""
    put(lake, [rating(1000)])
    done = threading.Event()
    failures: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for number in range(5):
                write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating(worker * 10 + number)]), mode="append")
        except BaseException as error:
            failures.append(error)

    def publish_newest() -> None:
        version = DeltaTable(lake.uri("ratings")).version()
        like = max(lake.publications("ratings"), key=lambda p: p.version)
        if version > like.version:
            change = {"version": version, "batch_id": f"b{version}", "publication_id": f"ratings/b{version}@{version}"}
            lake.ledger.append([like.model_copy(update=change)])

    def compact() -> None:
        while not done.is_set():
            try:
                publish_newest()
                optimize(lake, "ratings")
            except TableBusyError:
                continue
            except BaseException as error:
                failures.append(error)
                return

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    compactor = threading.Thread(target=compact)
    for thread in (*writers, compactor):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    compactor.join()
    assert not failures
    found = open_delta(lake.uri("ratings")).to_pyarrow_table()["user_id"].to_pylist()
    assert sorted(found) == sorted([1000, *(worker * 10 + number for worker in range(4) for number in range(5))])


def test_a_compaction_that_was_killed_before_its_publication_is_settled(
    lake: Lakehouse, small_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lakehouse.upkeep.optimize.publish_act", killed)
    with pytest.raises(KeyboardInterrupt):
        optimize(lake, "ratings")
    assert lake.resolve("ratings").version == small_files
    settle(lake, "ratings")
    assert lake.resolve("ratings").version == small_files + 1


def test_an_unknown_table_is_named(lake: Lakehouse) -> None:
    with pytest.raises(UnknownTableError):
        optimize(lake, "ratingz")


# The whole lake


def test_the_ledger_stays_readable_and_small(lake: Lakehouse, small_files: int) -> None:
    before = rows(lake, "publications")
    report = maintain(lake, now=datetime.now(UTC) + timedelta(days=30))
    files = table_files(lake.uri("publications"))
    assert len([span for span in files.spans if span.last is None]) <= 2, "one, and the row of the act on ratings"
    assert set(before) <= set(rows(lake, "publications"))
    assert not report.busy
    folder = Path(lake.uri("publications"), "_delta_log")
    assert len(list(folder.glob("*.json"))) <= 3, "the commits before the checkpoint are gone"
    lake.ledger.append([report.tables[0].model_copy(update={"maintenance_id": "x"})])
    assert lake.publications("ratings")


def test_upkeep_compacts_then_removes_and_says_what_it_saved(lake: Lakehouse, small_files: int) -> None:
    before = rows(lake, "ratings")
    later = datetime.now(UTC) + timedelta(days=30)
    report = maintain(lake, now=later)
    assert {row.table_name for row in report.tables} >= {"ratings", "users", "movies", "publications"}
    (one,) = [row for row in report.tables if row.table_name == "ratings"]
    assert (one.compacted, one.files_before, one.files_after) == ("compact", 8, 1)
    assert (one.removed_files, one.removed_versions) == (8, list(range(2, small_files + 1)))
    assert one.removed_bytes == one.bytes_before
    assert json.loads(one.kept) == {str(small_files + 1): ["newest", "latest published"]}
    assert rows(lake, "ratings") == before
    with pytest.raises(UnknownVersionError):
        lake.resolve(f"ratings@{small_files}")
    kept = {row.maintenance_id for row in lake.ledger.read(Maintenance)}
    assert kept == {row.maintenance_id for row in report.tables}
    (again,) = [row for row in maintain(lake, now=later).tables if row.table_name == "ratings"]
    assert (again.removed_files, again.files_before, again.files_after) == (0, 1, 1)


def test_a_thousand_publications_are_read_from_few_files(lake: Lakehouse) -> None:
    uri = lake.ledger.uri(Metric)
    measured = [
        Metric(metric_id=str(n), table_name="t", version=n, metric="Size", column="*", value=n, measured_at=NOON)
        for n in range(1000)
    ]
    lake.ledger.append(measured[:1])
    for one in measured[1:40]:
        write_deltalake(uri, to_arrow(Metric, [one]), mode="append")
    lake.ledger.append(measured[40:])
    maintain(lake, now=datetime.now(UTC) + timedelta(days=30))
    assert len(DeltaTable(uri).file_uris()) == 1
    assert sorted(row.version for row in lake.ledger.read(Metric)) == list(range(1000))


def test_a_table_that_is_being_written_is_left_for_the_next_time(
    lake: Lakehouse, small_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(lake: Lakehouse, name: str) -> Any:
        if name == "ratings":
            raise TableBusyError.changed(name, "x")
        return optimize(lake, name)

    monkeypatch.setattr("lakehouse.upkeep.maintenance.optimize", busy)
    report = maintain(lake)
    assert report.busy == ["ratings"]
    assert {row.table_name for row in report.tables} >= {"users", "movies"}
    assert isinstance(lake.publications()[0], Publication)
