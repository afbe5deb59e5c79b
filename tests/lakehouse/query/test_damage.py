from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import MillraceError, StorageError, UnknownVersionError
from lakehouse.query.checks import check
from lakehouse.query.sql import query
from lakehouse.tables import Rating


def commit(number: int) -> str:
    return f"_delta_log/{number:020d}.json"


@pytest.fixture
def folder(lake: Lakehouse) -> Path:
    """Ratings at versions 0 to 5, a file each."""
    for user in range(6):
        rating = Rating(user_id=user, item_id=7, rating=4.0, rated_at=datetime(1998, 3, 1, 12, tzinfo=UTC))
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating]), mode="append")
    return Path(lake.uri("ratings"))


def data_file(folder: Path) -> Path:
    return sorted(folder.glob("*.parquet"))[0]


def remove(path: Path) -> None:
    path.unlink()


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def scramble(path: Path) -> None:
    """Same length, other bytes."""
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)


@pytest.mark.parametrize("small", [0, 10**9])
@pytest.mark.parametrize("harm", [remove, make_folder, cut, scramble])
def test_a_damaged_data_file_is_named_with_table_and_version(
    lake: Lakehouse, folder: Path, harm: Callable[[Path], None], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", small)
    path = data_file(folder)
    harm(path)
    snapshot = lake.resolve("ratings@5")
    reads: list[Callable[[], object]] = [
        snapshot.arrow,
        lambda: snapshot.scan().read_all(),
        lambda: query(lake, "SELECT sum(user_id), sum(rating) FROM ratings@5"),
    ]
    for read in reads:
        with pytest.raises(StorageError) as caught:
            read()
        assert "ratings@5" in caught.value.message and path.name in caught.value.message
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("harm", [remove, make_folder, cut, scramble])
def test_a_damaged_commit_is_named_and_older_versions_are_still_read(
    lake: Lakehouse, folder: Path, harm: Callable[[Path], None]
) -> None:
    harm(folder / commit(3))
    for reference in ("ratings@5", "ratings@3"):
        with pytest.raises(StorageError) as caught:
            lake.resolve(reference).arrow()
        assert commit(3) in caught.value.message
        assert "'ratings'" in caught.value.message and f"version {reference[-1]}" in caught.value.message
        assert "\n" not in str(caught.value)
    assert lake.resolve("ratings@2").count() == 3


@pytest.mark.parametrize("harm", [remove, cut, scramble])
def test_a_damaged_checkpoint_is_named(lake: Lakehouse, folder: Path, harm: Callable[[Path], None]) -> None:
    DeltaTable(folder).create_checkpoint()
    for number in range(5):
        (folder / commit(number)).unlink()  # as a clean-up of the log leaves it
    assert lake.resolve("ratings@5").count() == 6
    path = next((folder / "_delta_log").glob("*.checkpoint.parquet"))
    harm(path)
    with pytest.raises(StorageError) as caught:
        lake.resolve("ratings@5").arrow()
    assert "'ratings'" in caught.value.message and "version 5" in caught.value.message
    assert path.name in caught.value.message or "_last_checkpoint" in caught.value.message
    assert "\n" not in str(caught.value)


def test_a_commit_that_a_clean_up_took_away_is_a_version_that_is_gone(lake: Lakehouse, folder: Path) -> None:
    DeltaTable(folder).create_checkpoint()
    for number in range(5):
        (folder / commit(number)).unlink()
    with pytest.raises(UnknownVersionError, match=r"Version 2 of table 'ratings' can no longer be read"):
        lake.resolve("ratings@2")


def test_an_emptied_commit_which_engines_pass_over_is_found_by_a_check(lake: Lakehouse, folder: Path) -> None:
    (log,) = (found for found in check(lake, "ratings@5") if found.name == "log")
    assert log.passed
    (folder / commit(3)).write_bytes(b"")
    (log,) = (found for found in check(lake, "ratings@5") if found.name == "log")
    assert not log.passed and commit(3) in log.detail


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything: its tests read as another user for a while, who may walk the folders above."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("place", [".", "_delta_log", "file"])
def test_what_may_not_be_read_is_a_storage_error(lake: Lakehouse, folder: Path, place: str) -> None:
    lake.resolve("ratings@5").arrow()  # what is imported now need not be read by the other user
    with tempfile.TemporaryDirectory() as open_place:
        moved = Path(open_place, "lake")
        shutil.copytree(lake.root, moved)
        for path in (Path(open_place), *moved.rglob("*"), moved):
            path.chmod(0o755 if path.is_dir() else 0o644)
        copy = moved / folder.name
        (data_file(copy) if place == "file" else copy / place).chmod(0)
        with as_nobody(), pytest.raises(MillraceError, match="ratings") as caught:
            Lakehouse.open(moved).resolve("ratings@5").arrow()
        assert isinstance(caught.value, StorageError)
        for path in (copy, copy / "_delta_log"):
            path.chmod(0o755)


def test_a_file_in_place_of_the_table_is_a_storage_error(lake: Lakehouse, folder: Path) -> None:
    for path in sorted((folder / "_delta_log").iterdir()):
        path.unlink()
    (folder / "_delta_log").rmdir()
    (folder / "_delta_log").write_text("a file")
    with pytest.raises(StorageError, match="'ratings' can't be opened"):
        lake.resolve("ratings@5")
