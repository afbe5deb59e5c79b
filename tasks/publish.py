"""How do staged batches become versions that readers get? Through the lakehouse's gate, one after the other."""

from __future__ import annotations

from typing import NamedTuple

from lakehouse import Snapshot
from lakehouse.gate.staging import Batch
from lakehouse.tables import Movie, Rating, User
from tasks.lake import Lake
from tasks.show import show
from tasks.typed import task


class Published(NamedTuple):
    """The versions that the day's batches ended in."""

    users: Snapshot[User]
    movies: Snapshot[Movie]
    ratings: Snapshot[Rating]


@task(cpu="2", memory="4Gi", deck=True)
def publish(lake: Lake, batches: list[Batch]) -> Published:
    """Judge each batch with Deequ, quarantine what breaks a rule, merge the rest, audit and publish the tables."""
    from lakehouse.contracts.table import declared_tables
    from lakehouse.gate.publish import publish as publish_batch

    lakehouse = lake.open()
    ended = {batch.table: publish_batch(lakehouse, declared_tables()[batch.table], batch) for batch in batches}
    users, movies, ratings = (ended[row.contract.table] for row in (User, Movie, Rating))
    shown = ("batch_id", "version", "published", "rows_in", "rows_published", "rows_quarantined", "rows_duplicate")
    batch_ids = {batch.batch_id for batch in batches}
    verdicts = [p for p in lakehouse.publications() if p.batch_id in batch_ids and p.table_name in ended]
    show("verdicts", [{"table": p.table_name, **p.model_dump(include=set(shown))} for p in verdicts])
    return Published(
        users=Snapshot(users.uri, users.version, User),
        movies=Snapshot(movies.uri, movies.version, Movie),
        ratings=Snapshot(ratings.uri, ratings.version, Rating),
    )
