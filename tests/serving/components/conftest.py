"""A lake with a small catalogue, made without Spark, for the service in front of the language model."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from deltalake import write_deltalake

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.ledger import Publication
from lakehouse.tables import Movie

ADDED = datetime(1998, 1, 1, tzinfo=UTC)
FILMS = [(1, "Toy Story", 1995, ["Animation"]), (7, "Heat", 1995, ["Action", "Crime"]), (50, "Star Wars", 1977, [])]


def lake_with_movies(folder: Path) -> Lakehouse:
    lake = Lakehouse.open(folder, create=True)
    movies = [
        Movie(item_id=i, title=title, year=year, genres=genres, added_at=ADDED) for i, title, year, genres in FILMS
    ]
    write_deltalake(lake.uri("movies"), to_arrow(Movie, movies))
    lake.ledger.append(
        [
            Publication(
                publication_id="movies/first@0",
                table_name="movies",
                batch_id="first",
                day=date(1998, 1, 1),
                version=0,
                published=True,
                rows_in=len(FILMS),
                rows_published=len(FILMS),
                rows_quarantined=0,
                rows_duplicate=0,
                rows_total=len(FILMS),
                failed_checks=[],
                broken_rules="{}",
                fingerprint=Movie.contract.fingerprint,
                published_at=ADDED,
            )
        ]
    )
    return lake


@pytest.fixture(scope="module")
def movies_lake(tmp_path_factory: pytest.TempPathFactory) -> Lakehouse:
    return lake_with_movies(tmp_path_factory.mktemp("served") / "lake")
