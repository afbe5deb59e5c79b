"""Small Delta tables and a feature store for the feature tests: written without Spark, in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from features.store import FeatureStore
from features.tables import ItemStats, UserStats
from lakehouse.arrow import arrow_schema, to_arrow
from lakehouse.snapshot import Snapshot
from lakehouse.table import Table
from lakehouse.tables import Movie, MovieCard, Rating, User

Write = Callable[[type[Table], Sequence[Table] | pa.Table], Snapshot[Table]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as the next version of their table and return that version."""

    def write(row: type[Table], rows: Sequence[Table] | pa.Table) -> Snapshot[Table]:
        table = rows if isinstance(rows, pa.Table) else to_arrow(row, rows)
        path = tmp_path / "lake" / row.contract.table
        write_deltalake(path, table.cast(arrow_schema(row.contract)), mode="overwrite")
        return Snapshot(str(path), DeltaTable(path).version(), row)

    return write


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


@pytest.fixture
def pins(write: Write) -> list[Snapshot[Table]]:
    """All five views: three users, three movies, statistics on two days."""
    joined, added = datetime(1998, 3, 1, 9, tzinfo=UTC), datetime(1998, 1, 1, tzinfo=UTC)
    first, second = datetime(1998, 3, 2, tzinfo=UTC), datetime(1998, 3, 5, tzinfo=UTC)
    people = [(1, 30, "F", "artist"), (2, 41, "M", "doctor"), (3, 19, "F", "student")]
    films = [(10, "Fargo", 1996, ["Crime", "Drama"]), (20, "Babe", None, []), (30, "Heat", 1995, ["Action"])]
    return [
        write(
            User,
            [
                User(user_id=i, age=age, gender=gender, occupation=work, zip_code="02139", joined_at=joined)  # type: ignore[arg-type]
                for i, age, gender, work in people
            ],
        ),
        write(Movie, [Movie(item_id=i, title=t, year=y, genres=g, added_at=added) for i, t, y, g in films]),
        write(
            MovieCard,
            [MovieCard(item_id=10, mood="serious", audience="adults", answer_key="a" * 64, added_at=added)],
        ),
        write(
            UserStats,
            [
                UserStats(user_id=1, computed_at=first, ratings_count=2, mean_rating=3.5, active_days=1),
                UserStats(user_id=1, computed_at=second, ratings_count=3, mean_rating=3.0, active_days=2),
                UserStats(user_id=2, computed_at=second, ratings_count=1, mean_rating=5.0, active_days=1),
            ],
        ),
        write(
            ItemStats,
            [
                ItemStats(item_id=10, computed_at=first, ratings_count=2, mean_rating=3.5, recent_count=2),
                ItemStats(item_id=20, computed_at=second, ratings_count=2, mean_rating=3.5, recent_count=2),
            ],
        ),
    ]


@pytest.fixture
def ratings() -> Callable[[Sequence[tuple[int, int, float, datetime]]], pa.Table]:
    """(user, item, stars, instant) as a table of ratings."""

    def table(rows: Sequence[tuple[int, int, float, datetime]]) -> pa.Table:
        return to_arrow(Rating, [Rating(user_id=u, item_id=i, rating=s, rated_at=t) for u, i, s, t in rows])

    return table
