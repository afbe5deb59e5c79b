"""What happens in a simulation? MovieLens by its own clock, each rating with the features known just before it.

The features are made by the views' own function and joined by the feature store's own join, for all days at once: a row
of either holds only what was known before its instant, so that what a night sees of them is what it would have made.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.tables import ItemStats, UserStats
from lakehouse.contracts.table import Table
from lakehouse.movielens import Archive
from lakehouse.tables import Movie, User
from models.interactions import Bools, instants, microseconds

if TYPE_CHECKING:
    import pyarrow as pa

    from features.point_in_time import Lookup


class Late(NamedTuple):
    """Ratings that the lake had only later than they were given.

    Attributes:
        rows: which of the archive's ratings: bool [ratings].
        known_at: from then on they are known.
    """

    rows: Bools
    known_at: datetime


class World:
    """An archive played by its own clock.

    Args:
        archive: users, movies and ratings, each ordered by time.
        folder: where the views' rows are written.
        late: ratings that became known late.
    """

    def __init__(self, archive: Archive, folder: Path, late: Late | None = None) -> None:
        from features.point_in_time import join_as_of

        self.archive = archive
        self.titles: dict[int, str] = dict(
            zip(archive.movies["item_id"].to_pylist(), archive.movies["title"].to_pylist(), strict=True)
        )
        self._late = late
        ratings = archive.ratings
        self._of_users = [
            _lookup(folder, User, archive.users),
            _lookup(folder, UserStats, UserStats.compute(ratings)),
        ]
        self._of_items = [
            _lookup(folder, Movie, archive.movies),
            _lookup(folder, ItemStats, ItemStats.compute(ratings)),
        ]
        self._rows = join_as_of(ratings, "rated_at", [*self._of_users, *self._of_items])
        self._given = instants(self._rows, "ratings")

    def happened(self, until: datetime) -> pa.Table:
        """The ratings given before an instant, each with its features: a row a rating, the oldest first."""
        return self._rows.slice(0, int(np.searchsorted(self._given, microseconds(until))))

    def known(self, at: datetime) -> pa.Table:
        """Of the ratings given before an instant those that the lake has at it."""
        import pyarrow as pa

        rows = self.happened(at)
        if self._late is None or at >= self._late.known_at:
            return rows
        return rows.filter(pa.array(~self._late.rows[: rows.num_rows]))

    def users(self, as_of: datetime, listed_at: datetime) -> pa.Table:
        """The users of whom the lake knows at ``listed_at``, with their features as known at ``as_of``."""
        return self._entities("user_id", self.archive.users, User, as_of, listed_at)

    def items(self, as_of: datetime, listed_at: datetime) -> pa.Table:
        """The same of the items."""
        return self._entities("item_id", self.archive.movies, Movie, as_of, listed_at)

    def _entities(self, key: str, table: pa.Table, row: type[Table], as_of: datetime, listed_at: datetime) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        from features.point_in_time import join_as_of

        clock = table[row.contract.event_time]
        listed = table.filter(pc.less(clock, pa.scalar(listed_at, clock.type))).select([key]).sort_by(key)
        asked = pa.array([as_of] * listed.num_rows, pa.timestamp("us", tz="UTC"))
        lookups = self._of_users if row is User else self._of_items
        return join_as_of(listed.append_column("as_of", asked), "as_of", lookups).drop_columns(["as_of"])


def described(archive: Archive) -> pa.Table:
    """Each rating with what the drift statistic compares of its movie."""
    import polars as pl

    ratings = pl.DataFrame(pl.from_arrow(archive.ratings.select(["item_id", "rating", "rated_at"])))
    movies = pl.DataFrame(pl.from_arrow(archive.movies.select(["item_id", "year", "genres"])))
    return ratings.join(movies, on="item_id", how="left", maintain_order="left").to_arrow()


def start_of(day: date) -> datetime:
    """The instant at which a UTC day begins."""
    return datetime.combine(day, time(), tzinfo=UTC)


def _lookup(folder: Path, row: type[Table], rows: pa.Table) -> Lookup:
    """A view's rows, as the feature store would join them."""
    from deltalake import write_deltalake

    from features.point_in_time import Lookup
    from features.views import event_time, feature_columns, full_name, join_keys
    from lakehouse.snapshot import Snapshot

    contract = row.contract
    place = folder / contract.table
    write_deltalake(str(place), rows)
    return Lookup(
        Snapshot(str(place), 0, row),
        tuple((key, key) for key in join_keys(contract)),
        tuple((full_name(contract.table, name), name) for name in feature_columns(contract)),
        event_time(contract),
    )
