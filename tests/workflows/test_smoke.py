"""The first thing that runs where a release was registered: it sees the lake and the engines, and changes nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime

from deltalake import write_deltalake

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.delta_schema import create_table
from lakehouse.ledger import Cost, Publication
from lakehouse.snapshot import open_delta
from lakehouse.tables import Movie
from tasks.cache import environment_digest, project_digest
from workflows.smoke import smoke


def test_the_smoke_test_reads_every_published_table(lake: Lakehouse) -> None:
    create_table(lake, Movie.contract)
    assert smoke().tables == [], "what is not published is not looked at"
    rows = [Movie(item_id=1, title="A movie", year=1996, genres=["Drama"], added_at=datetime(1998, 1, 1, tzinfo=UTC))]
    write_deltalake(lake.uri("movies"), to_arrow(Movie, rows), mode="append")
    counts = dict.fromkeys(("rows_in", "rows_published", "rows_quarantined", "rows_duplicate", "rows_total"), 0)
    version = open_delta(lake.uri("movies")).version()
    publication = Publication(
        publication_id="movies/first",
        table_name="movies",
        batch_id="first",
        day=date(1998, 1, 1),
        version=version,
        published=True,
        failed_checks=[],
        broken_rules="{}",
        fingerprint=Movie.contract.fingerprint,
        published_at=datetime(1998, 1, 2, tzinfo=UTC),
        **counts,
    )
    lake.ledger.append([publication])
    seen = smoke()
    assert seen.tables == [f"movies@{version}"]
    assert (seen.code, seen.lock) == (project_digest(), environment_digest())
    assert seen.engines["deltalake"]
    assert {cost.task for cost in lake.ledger.read(Cost)} == {"tasks.look.look"}
