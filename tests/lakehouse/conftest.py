"""A small world for the gate's tests: five users and five movies, published without Spark, that ratings refer to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol

import pytest
from deltalake import write_deltalake

from lakehouse import Lakehouse
from lakehouse.arrow import to_arrow
from lakehouse.delta_schema import create_table
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta
from lakehouse.table import Table
from lakehouse.tables import Movie, User

DAY = date(1998, 3, 1)
LONG_AGO = datetime(1997, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def seed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with users 1 to 5 and movies 1 to 5; copy it."""
    lake = Lakehouse.open(tmp_path_factory.mktemp("seed") / "lake", create=True)
    users = [
        User(user_id=n, age=30, gender="F", occupation="artist", zip_code="02139", joined_at=LONG_AGO)
        for n in range(1, 6)
    ]
    movies = [Movie(item_id=n, title=f"Movie {n}", year=1996, genres=["Drama"], added_at=LONG_AGO) for n in range(1, 6)]
    for rows in (users, movies):
        _publish_without_spark(lake, rows)
    return Path(lake.root)


def _publish_without_spark(lake: Lakehouse, rows: Sequence[Table]) -> None:
    contract = type(rows[0]).contract
    create_table(lake, contract)
    write_deltalake(lake.uri(contract.table), to_arrow(type(rows[0]), rows), mode="append")
    publication = Publication(
        publication_id=f"{contract.table}/seed",
        table_name=contract.table,
        batch_id="seed",
        day=DAY,
        version=open_delta(lake.uri(contract.table)).version(),
        published=True,
        rows_in=len(rows),
        rows_published=len(rows),
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=len(rows),
        failed_checks=[],
        broken_rules="{}",
        fingerprint=contract.fingerprint,
        published_at=LONG_AGO,
    )
    lake.ledger.append([publication])


class Put(Protocol):
    """Publishes rows as one batch, by delta-rs alone: a row whose key is there takes its place."""

    def __call__(self, lake: Lakehouse, rows: Sequence[Table], *, published: bool = True) -> int: ...


@pytest.fixture
def put() -> Put:
    def put(lake: Lakehouse, rows: Sequence[Table], *, published: bool = True) -> int:
        """Merge the rows and return the version they ended in."""
        row_model = type(rows[0])
        contract = row_model.contract
        create_table(lake, contract)
        table = open_delta(lake.uri(contract.table))
        merge = table.merge(
            to_arrow(row_model, rows),
            predicate=" AND ".join(f"stored.{name} = fresh.{name}" for name in contract.key),
            source_alias="fresh",
            target_alias="stored",
        )
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
        batch_id = f"put-{table.version()}"
        publication = Publication(
            publication_id=f"{contract.table}/{batch_id}@{table.version()}",
            table_name=contract.table,
            batch_id=batch_id,
            day=DAY,
            version=table.version(),
            published=published,
            rows_in=len(rows),
            rows_published=len(rows),
            rows_quarantined=0,
            rows_duplicate=0,
            rows_total=open_delta(lake.uri(contract.table)).count(),
            failed_checks=[],
            broken_rules="{}",
            fingerprint=contract.fingerprint,
            published_at=datetime.now(UTC),
        )
        lake.ledger.append([publication])
        return table.version()

    return put
