"""Where do the rows come from? MovieLens 100K, replayed by its own clock.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015. The files lie in
the package ``recbole``; nothing of that package is imported.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Table
from lakehouse.errors import NoDataForDayError, SourceError
from lakehouse.tables import Movie, Rating, User

PACKAGE = "recbole"
#: SHA-256 of the three files; another edition of the data is refused.
DIGESTS = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}


@dataclass(frozen=True)
class Archive:
    """The whole of MovieLens 100K: users (943), movies (1,682) and ratings (100,000), each ordered by time."""

    users: pa.Table
    movies: pa.Table
    ratings: pa.Table

    @property
    def first_day(self) -> date:
        return _day(pc.min(self.ratings["rated_at"]).as_py())

    @property
    def last_day(self) -> date:
        return _day(pc.max(self.ratings["rated_at"]).as_py())

    def require(self, day: date) -> None:
        """NoDataForDayError for a day outside the data."""
        if not self.first_day <= day <= self.last_day:
            raise NoDataForDayError.outside(day.isoformat(), self.first_day.isoformat(), self.last_day.isoformat())

    def batches(self, day: date, after: date | None) -> Iterator[tuple[type[Table], pa.Table]]:
        """What became known in the days after ``after`` (default: from the beginning) up to the end of ``day``.

        Users and movies come before the ratings that refer to them.
        """
        for row_model, rows in ((User, self.users), (Movie, self.movies), (Rating, self.ratings)):
            clock = rows[row_model.contract.event_time]
            known = pc.less(clock, _end(day))
            if after is not None:
                known = pc.and_(known, pc.greater_equal(clock, _end(after)))
            yield row_model, rows.filter(known)


@lru_cache(maxsize=1)
def movielens() -> Archive:
    """Read and verify the archive (about 0.3 s); SourceError if it is missing or another edition."""
    folder = _folder()
    ratings = [
        {
            "user_id": int(line["user_id"]),
            "item_id": int(line["item_id"]),
            "rating": float(line["rating"]),
            "rated_at": datetime.fromtimestamp(int(float(line["timestamp"])), UTC),
        }
        for line in _lines(folder / "ml-100k.inter")
    ]
    # The archive tells neither when a user signed up nor when a movie was added: the first rating does.
    joined: dict[int, datetime] = {}
    added: dict[int, datetime] = {}
    for rating in ratings:
        user, item, at = rating["user_id"], rating["item_id"], rating["rated_at"]
        assert isinstance(user, int) and isinstance(item, int) and isinstance(at, datetime)
        joined[user] = min(at, joined.get(user, at))
        added[item] = min(at, added.get(item, at))
    users = [
        {
            "user_id": int(line["user_id"]),
            "age": int(line["age"]),
            "gender": line["gender"],
            "occupation": line["occupation"],
            "zip_code": line["zip_code"],
            "joined_at": joined[int(line["user_id"])],
        }
        for line in _lines(folder / "ml-100k.user")
    ]
    movies = [
        {
            "item_id": int(line["item_id"]),
            "title": line["movie_title"],
            # A few titles went straight to video and carry a letter in place of a year.
            "year": int(line["release_year"]) if line["release_year"].isdigit() else None,
            "genres": line["class"].split(),
            "added_at": added[int(line["item_id"])],
        }
        for line in _lines(folder / "ml-100k.item")
    ]
    return Archive(users=_table(User, users), movies=_table(Movie, movies), ratings=_table(Rating, ratings))


def _table(row_model: type[Table], rows: Sequence[Mapping[str, object]]) -> pa.Table:
    contract = row_model.contract
    order = [(contract.event_time, "ascending"), *((name, "ascending") for name in contract.key)]
    return pa.Table.from_pylist(rows, schema=arrow_schema(contract)).sort_by(order)


def _lines(path: Path) -> Iterator[dict[str, str]]:
    """A tab-separated file's rows; the header's names carry a type after a colon."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [name.partition(":")[0] for name in next(reader)]
        for values in reader:
            yield dict(zip(names, values, strict=True))


def _folder() -> Path:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(
            f"MovieLens 100K is not here: the package {PACKAGE!r} that carries it is not installed.",
            fix="Run `make setup`.",
        ) from None
    paths = {Path(str(file)).name: Path(str(file.locate())) for file in files}
    for name, digest in DIGESTS.items():
        path = paths.get(name)
        if path is None or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise SourceError(
                f"{name} of MovieLens 100K is missing or differs from the edition this project was made for.",
                fix=f"Run `make setup` to install {PACKAGE} again.",
            )
    return paths["ml-100k.inter"].parent


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _end(day: date) -> datetime:
    """The first instant after a day (UTC)."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
