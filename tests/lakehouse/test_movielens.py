from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest

from lakehouse import movielens as module
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.errors import NoDataForDayError, SourceError
from lakehouse.movielens import DIGESTS, movielens
from lakehouse.tables import Movie, Rating, User


@pytest.fixture
def forgetful() -> Iterator[None]:
    """The archive is read anew, and not kept."""
    movielens.cache_clear()
    yield
    movielens.cache_clear()


def test_the_archive_is_whole_in_the_row_models_schemas() -> None:
    archive = movielens()
    tables = ((User, archive.users, 943), (Movie, archive.movies, 1682), (Rating, archive.ratings, 100_000))
    for row_model, rows, count in tables:
        assert rows.num_rows == count
        assert rows.schema == arrow_schema(row_model.contract)
        assert pc.count_distinct(rows[row_model.contract.key[0]]).as_py() <= count
    assert (archive.first_day, archive.last_day) == (date(1997, 9, 20), date(1998, 4, 22))
    assert pc.min_max(archive.ratings["rating"]).as_py() == {"min": 1.0, "max": 5.0}


def test_every_row_keeps_its_row_models_rules() -> None:
    archive = movielens()
    for record in archive.users.to_pylist():
        User.model_validate(record)
    for record in archive.movies.to_pylist():
        Movie.model_validate(record)
    for record in archive.ratings.slice(0, 500).to_pylist():
        Rating.model_validate(record)


def test_the_first_known_row_is_read_as_the_archive_has_it() -> None:
    (row,) = [r for r in movielens().ratings.slice(0).to_pylist() if (r["user_id"], r["item_id"]) == (196, 242)]
    assert row["rating"] == 3.0
    assert row["rated_at"].isoformat() == "1997-12-04T15:55:49+00:00"
    (film,) = movielens().movies.filter(pc.field("item_id") == 1).to_pylist()
    assert (film["title"], film["year"], film["genres"]) == ("Toy Story", 1995, ["Animation", "Children's", "Comedy"])


def test_days_split_the_archive_without_loss_and_nobody_is_rated_before_being_known() -> None:
    archive = movielens()
    cut = date(1998, 1, 15)
    early, late = dict(archive.batches(cut, None)), dict(archive.batches(archive.last_day, cut))
    assert list(early) == [User, Movie, Rating]
    for row_model, whole in ((User, archive.users), (Movie, archive.movies), (Rating, archive.ratings)):
        assert early[row_model].num_rows + late[row_model].num_rows == whole.num_rows
        assert early[row_model].num_rows and late[row_model].num_rows
    clock = early[Rating]["rated_at"]
    assert pc.max(clock).as_py().date() == cut < pc.min(late[Rating]["rated_at"]).as_py().date()
    for row_model, key in ((User, "user_id"), (Movie, "item_id")):
        assert set(early[Rating][key].to_pylist()) == set(early[row_model][key].to_pylist())


@pytest.mark.parametrize("off", [-1, 1])
def test_a_day_outside_the_data_is_refused_with_the_days_there_are(off: int) -> None:
    archive = movielens()
    day = (archive.first_day if off < 0 else archive.last_day) + timedelta(days=off)
    with pytest.raises(NoDataForDayError, match=rf"no data for {day}\..*from 1997-09-20 to 1998-04-22"):
        archive.require(day)
    archive.require(day - timedelta(days=off))


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", list(DIGESTS))
@pytest.mark.parametrize("defect", ["another edition", "gone"])
def test_another_edition_of_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, defect: str
) -> None:
    folder = tmp_path / "ml-100k"
    shutil.copytree(module._folder(), folder)

    class File(str):
        def locate(self) -> Path:
            return folder / self

    monkeypatch.setattr("importlib.metadata.files", lambda package: [File(path.name) for path in folder.iterdir()])
    assert module._folder() == folder
    if defect == "gone":
        (folder / name).unlink()
    else:
        content = bytearray((folder / name).read_bytes())
        content[-2] ^= 1
        (folder / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{name} of MovieLens 100K"):
        movielens()


@pytest.mark.usefixtures("forgetful")
def test_a_package_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "no-such-package-anywhere")
    with pytest.raises(SourceError, match=r"not installed.*make setup"):
        movielens()
