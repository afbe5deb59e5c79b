from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
from deltalake import write_deltalake

import lakehouse
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import StorageError
from lakehouse.ledger import Publication
from lakehouse.query.tags import tag
from lakehouse.tables import Rating


def publication(version: int) -> Publication:
    return Publication(
        publication_id=f"ratings/{version}@{version}",
        table_name="ratings",
        batch_id=str(version),
        day=date(1998, 3, 1),
        version=version,
        published=True,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=version + 1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=datetime(2026, 1, 1, 0, version, tzinfo=UTC),
    )


@pytest.fixture
def ratings(lake: Lakehouse) -> Lakehouse:
    """Versions 0 to 2 with 1 to 3 rows; 1 is published, 0 has a tag."""
    for user in range(3):
        rating = Rating(user_id=user, item_id=7, rating=4.0, rated_at=datetime(1998, 3, 1, 12, tzinfo=UTC))
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating]), mode="append")
    lake.ledger.append([publication(1)])
    tag(lake, "ratings@0", "golden")
    return lake


@pytest.fixture
def connection(ratings: Lakehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    with lakehouse.connect(ratings.root) as connection:
        yield connection


def test_every_table_is_a_view_of_its_latest_published_version(connection: duckdb.DuckDBPyConnection) -> None:
    views = {name for (name,) in connection.sql("SELECT table_name FROM information_schema.tables").fetchall()}
    assert {"ratings", "ratings@golden", "publications", "runs", "tags"} <= views
    assert connection.sql("SELECT count(*) FROM ratings").fetchall() == [(2,)]
    assert connection.sql('SELECT count(*) FROM "ratings@golden"').fetchall() == [(1,)]
    assert connection.sql("SELECT count(*), count(version) FROM publications").fetchall() == [(1, 1)]
    assert connection.sql("SELECT count(*) FROM quarantine.ratings").fetchall() == [(0,)]


def test_the_versions_are_those_of_the_moment_it_was_made(
    connection: duckdb.DuckDBPyConnection, ratings: Lakehouse
) -> None:
    ratings.ledger.append([publication(2)])
    assert connection.sql("SELECT count(*) FROM ratings").fetchall() == [(2,)]
    with lakehouse.connect(ratings.root) as newer:
        assert newer.sql("SELECT count(*) FROM ratings").fetchall() == [(3,)]


@pytest.mark.parametrize(
    "statement",
    [
        "COPY ratings TO '{folder}/out.parquet'",
        "ATTACH '{folder}/other.db'",
        "SELECT * FROM read_text('{folder}/_lake.json')",
        "SELECT * FROM read_parquet('{folder}/ratings/*.parquet')",
        "SET enable_external_access = true",
        "SET temp_directory = '{folder}'",
        "INSTALL httpfs",
        "INSERT INTO ratings SELECT * FROM ratings",
        "DELETE FROM ratings",
        "EXPORT DATABASE '{folder}/all'",
    ],
)
def test_it_writes_nothing_and_reaches_no_file(
    connection: duckdb.DuckDBPyConnection, ratings: Lakehouse, statement: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(ratings.root).rglob("*")}
    with pytest.raises(duckdb.Error):
        connection.execute(statement.format(folder=ratings.root))
    assert {path: path.stat().st_mtime_ns for path in Path(ratings.root).rglob("*")} == before


def test_without_a_lake_there_is_no_connection(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no lake"):
        lakehouse.connect(tmp_path / "nowhere")
