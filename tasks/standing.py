"""Which versions do readers get now? The latest published ones, as values that a workflow can pass on."""

from __future__ import annotations

from typing import NamedTuple

from features.tables import ItemStats, UserStats
from lakehouse import Snapshot
from lakehouse.tables import Movie, MovieCard, User
from tasks.lake import Lake
from tasks.typed import task


class Standing(NamedTuple):
    """The latest published version of each table that has a feature view."""

    users: Snapshot[User]
    movies: Snapshot[Movie]
    user_stats: Snapshot[UserStats]
    item_stats: Snapshot[ItemStats]
    cards: Snapshot[MovieCard]


@task(cached=False, memory="1Gi")
def published(lake: Lake) -> Standing:
    """The latest published versions; asked anew each time, as they move on without a new input."""
    lakehouse = lake.open()
    return Standing(
        users=lakehouse.latest(User),
        movies=lakehouse.latest(Movie),
        user_stats=lakehouse.latest(UserStats),
        item_stats=lakehouse.latest(ItemStats),
        cards=lakehouse.latest(MovieCard),
    )


@task(cached=False, memory="1Gi")
def published_movies(lake: Lake) -> Snapshot[Movie]:
    """The latest published version of the movies; asked anew each time."""
    return lake.open().latest(Movie)
