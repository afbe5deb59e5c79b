from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse import Lakehouse
from lakehouse.errors import BatchConflictError, StorageError, UnknownTableError, UnknownVersionError
from lakehouse.gate.staging import stage, staged
from lakehouse.ledger import Publication
from lakehouse.query.files import stored_files, table_files
from lakehouse.tables import Rating
from lakehouse.upkeep.fates import write_fates
from lakehouse.upkeep.pins import pin
from lakehouse.upkeep.restore import restore
from lakehouse.upkeep.vacuum import vacuum

Put = Callable[..., int]
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)
WEEKS = timedelta(days=30)


def rating(user: int, stars: float = 4.0) -> Rating:
    return Rating(user_id=user, item_id=1, rating=stars, rated_at=NOON)


def rows(lake: Lakehouse, version: int) -> dict[int, float]:
    found = lake.resolve(f"ratings@{version}").arrow(["user_id", "rating"]).to_pylist()
    return {row["user_id"]: row["rating"] for row in found}


def later() -> datetime:
    return datetime.now(UTC) + WEEKS


@pytest.fixture
def lake(seed_folder: Path, tmp_path: Path, own_state: None) -> Lakehouse:
    shutil.copytree(seed_folder, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


@pytest.fixture
def versions(lake: Lakehouse, put: Put) -> list[int]:
    """Five versions of one rating, each of which replaces the one file of the version before."""
    return [put(lake, [rating(1, float(stars))]) for stars in range(1, 6)]


def test_pinned_and_published_versions_stay_and_the_others_go(lake: Lakehouse, versions: list[int]) -> None:
    pin(lake, f"ratings@{versions[1]}", holder="paper", reason="figure 2")
    before = set(stored_files(lake.uri("ratings")))
    planned = vacuum(lake, "ratings", dry_run=True, now=later())
    assert set(stored_files(lake.uri("ratings"))) == before, "a dry run removes nothing"
    report = vacuum(lake, "ratings", dry_run=False, now=later())
    assert report == planned.model_copy(update={"dry_run": False})
    assert report.kept == {versions[1]: ["paper: figure 2"], versions[4]: ["newest", "latest published"]}
    assert report.removed == [versions[0], versions[2], versions[3]]
    gone = before - set(stored_files(lake.uri("ratings")))
    assert (report.files, len(gone)) == (3, 3)
    assert report.bytes > 1000
    for place in (1, 4):
        assert rows(lake, versions[place]) == {1: float(place + 1)}
    for version in report.removed:
        with pytest.raises(UnknownVersionError, match="can no longer be read"):
            lake.resolve(f"ratings@{version}")
    again = vacuum(lake, "ratings", dry_run=False, now=later())
    assert (again.files, again.removed) == (0, [])


def test_versions_that_were_the_newest_within_the_retention_stay(lake: Lakehouse, versions: list[int]) -> None:
    report = vacuum(lake, "ratings", dry_run=False)
    assert (report.files, report.removed) == (0, [])
    assert report.recent == versions[4]
    week = datetime.now(UTC) + timedelta(days=7)
    assert not vacuum(lake, "ratings", dry_run=True, now=week - timedelta(minutes=5)).removed
    assert vacuum(lake, "ratings", dry_run=True, now=week + timedelta(minutes=5)).removed == versions[:4]
    assert vacuum(lake, "ratings", dry_run=True, retention=timedelta(0)).removed == versions[:4]


def test_a_published_version_stays_though_a_refused_one_is_newer(
    lake: Lakehouse, versions: list[int], put: Put
) -> None:
    refused = put(lake, [rating(1, 0.5)], published=False)
    report = vacuum(lake, "ratings", dry_run=False, now=later())
    assert set(report.kept) == {versions[4], refused}
    assert rows(lake, versions[4]) == {1: 5.0}


def test_the_files_of_a_commit_that_is_still_to_come_stay(lake: Lakehouse, versions: list[int]) -> None:
    folder = Path(lake.uri("ratings"))
    young, old = folder / "part-young.parquet", folder / "part-old.parquet"
    for path in (young, old):
        path.write_bytes(b"PAR1")
    days = 20
    os.utime(old, (time.time() - days * 86400,) * 2)
    assert vacuum(lake, "ratings", dry_run=False, retention=timedelta(0)).files == 5
    assert (young.exists(), old.exists()) == (True, False)


def test_vacuum_adds_no_version(lake: Lakehouse, versions: list[int]) -> None:
    vacuum(lake, "ratings", dry_run=False, now=later())
    assert DeltaTable(lake.uri("ratings")).version() == versions[4]


def test_a_restored_version_keeps_its_files(lake: Lakehouse, versions: list[int]) -> None:
    restored = restore(lake, f"ratings@{versions[0]}").version
    report = vacuum(lake, "ratings", dry_run=False, now=later())
    assert rows(lake, restored) == {1: 1.0}
    assert versions[0] not in report.removed, "it needs the same file"
    assert report.removed == versions[1:]


def test_a_removed_version_can_not_be_restored(lake: Lakehouse, versions: list[int]) -> None:
    vacuum(lake, "ratings", dry_run=False, now=later())
    with pytest.raises(UnknownVersionError):
        restore(lake, f"ratings@{versions[0]}")


def test_a_restore_while_vacuum_runs_keeps_its_files(
    lake: Lakehouse, versions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def restored_before(*given: object) -> None:
        table = DeltaTable(lake.uri("ratings"))
        table.restore(versions[0])
        write_fates(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("lakehouse.upkeep.vacuum.write_fates", restored_before)
    vacuum(lake, "ratings", dry_run=False, now=later())
    table = DeltaTable(lake.uri("ratings"))
    assert table.version() == versions[4] + 1
    assert rows(lake, table.version()) == {1: 1.0}


def test_a_hole_in_the_log_stops_vacuum_before_it_removes_anything(lake: Lakehouse, versions: list[int]) -> None:
    (Path(lake.uri("ratings")) / "_delta_log" / f"{versions[2]:020d}.json").unlink()
    before = set(stored_files(lake.uri("ratings")))
    with pytest.raises(StorageError, match=f"commit {versions[2]} is missing"):
        vacuum(lake, "ratings", dry_run=False, now=later())
    assert set(stored_files(lake.uri("ratings"))) == before


def test_an_unknown_table_is_named(lake: Lakehouse) -> None:
    with pytest.raises(UnknownTableError):
        vacuum(lake, "ratingz", dry_run=True)


# Which files a version needs


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["append", "merge", "compact", "restore", "delete", "checkpoint"]), max_size=10))
def test_the_log_is_read_as_delta_reads_it(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    uri = str(tmp_path_factory.mktemp("walk") / "t")
    data = {"key": list(range(6)), "part": ["a b/ü%:", "x", "a b/ü%:", "x", "y=1", "y=1"]}
    write_deltalake(uri, pa.table(data), partition_by=["part"])
    for step in steps:
        table = DeltaTable(uri)
        if step == "append":
            write_deltalake(uri, pa.table(data), mode="append")
        elif step == "merge":
            merge = table.merge(pa.table({"key": [1]}), "t.key = s.key", source_alias="s", target_alias="t")
            merge.when_matched_delete().execute()
        elif step == "compact":
            table.optimize.compact()
        elif step == "restore" and table.version():
            table.restore(table.version() // 2)
        elif step == "delete":
            table.delete("part = 'x'")
        elif step == "checkpoint":
            table.create_checkpoint()
    files = table_files(uri)
    assert (files.first, files.newest) == (0, DeltaTable(uri).version())
    for version in range(files.newest + 1):
        table = DeltaTable(uri, version=version)
        expected = {Path(path).relative_to(uri).as_posix() for path in table.file_uris()}
        assert files.needed([version]) == expected
        assert all((Path(uri) / path).is_file() for path in expected)


def test_deletion_vectors_and_change_data_of_kept_versions_stay(lake: Lakehouse) -> None:
    from lakehouse.spark import spark_session

    spark = spark_session(lake.root)
    uri = lake.uri("events")
    properties = "'delta.enableDeletionVectors' = true, 'delta.enableChangeDataFeed' = true"
    spark.sql(f"create table delta.`{uri}` (id long) using delta tblproperties ({properties})")
    spark.range(0, 100, 1, 1).write.format("delta").mode("append").save(uri)
    for number in (3, 5):
        spark.sql(f"delete from delta.`{uri}` where id = {number}")
    spark.sql(f"update delta.`{uri}` set id = 700 where id = 7")
    pin(lake, "events@2", holder="paper", reason="")

    def kinds() -> tuple[int, int]:
        paths = stored_files(uri)
        return sum("deletion_vector" in path for path in paths), sum("_change_data" in path for path in paths)

    assert kinds() == (3, 1), "each left a deletion vector, the update its changes too"
    before = [row.id for row in spark.read.format("delta").option("versionAsOf", 2).load(uri).collect()]
    report = vacuum(lake, "events", dry_run=False, now=later())
    assert report.removed == [3]
    assert kinds() == (2, 1)
    spark.catalog.clearCache()
    assert spark.read.format("delta").load(uri).count() == 98
    after = [row.id for row in spark.read.format("delta").option("versionAsOf", 2).load(uri).collect()]
    assert (after, len(after)) == (before, 99)
    changes = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 4).load(uri)
    assert sorted(row.id for row in changes.collect()) == [7, 700]


# Staged batches


def batch_of(users: list[int]) -> pa.Table:
    return pa.table({"user_id": users, "item_id": users, "rating": [4.0] * len(users), "rated_at": [NOON] * len(users)})


def published(lake: Lakehouse, batch_id: str, version: int, restored_from: int | None = None) -> None:
    like = lake.publications("ratings")[0]
    change = {
        "publication_id": f"ratings/{batch_id}@{version}",
        "batch_id": batch_id,
        "version": version,
        "restored_from": restored_from,
        "published_at": datetime.now(UTC),
    }
    lake.ledger.append([Publication.model_validate(like.model_dump() | change)])


def test_a_staged_file_goes_when_its_batch_is_published_and_the_batch_stays_known(
    lake: Lakehouse, versions: list[int]
) -> None:
    day = date(1998, 3, 1)
    one = stage(lake, Rating, batch_of([1, 2]), batch_id="one", day=day)
    other = stage(lake, Rating, batch_of([3]), batch_id="other", day=day)
    published(lake, "one", versions[4])
    assert vacuum(lake, "ratings", dry_run=False).files == 0, "not before the retention is over"
    assert vacuum(lake, "ratings", dry_run=True, now=later()).files == 5
    assert lake.storage.exists(one.path)
    vacuum(lake, "ratings", dry_run=False, now=later())
    assert (lake.storage.exists(one.path), lake.storage.exists(other.path)) == (False, True)
    assert stage(lake, Rating, batch_of([1, 2]), batch_id="one", day=day) == one
    assert staged(lake, Rating, batch_id="one", day=day) == one
    assert not lake.storage.exists(one.path), "sending it again stores nothing"
    with pytest.raises(BatchConflictError, match="staged before with other rows"):
        stage(lake, Rating, batch_of([1, 4]), batch_id="one", day=day)


def test_a_withdrawn_batch_whose_staged_file_is_gone_is_staged_again(lake: Lakehouse, versions: list[int]) -> None:
    day = date(1998, 3, 1)
    one = stage(lake, Rating, batch_of([1, 2]), batch_id="one", day=day)
    published(lake, "one", versions[4])
    vacuum(lake, "ratings", dry_run=False, now=later())
    published(lake, "restore", versions[4] + 1, restored_from=versions[3])
    assert staged(lake, Rating, batch_id="one", day=day) is None
    assert stage(lake, Rating, batch_of([1, 2]), batch_id="one", day=day) == one
    assert lake.storage.exists(one.path)
