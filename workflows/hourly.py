"""The hourly job: the online store as the published tables have it, between two nights.

    pyflyte -c flyte.yaml run workflows/hourly.py hourly --day 1998-04-20

What is served already is not written again, so an hour in which nothing was published costs a few seconds.
"""

from __future__ import annotations

from datetime import datetime

from tasks.compiled import workflow
from tasks.features import ViewState, materialize
from tasks.lake import open_lake
from tasks.standing import published


@workflow
def hourly(day: datetime = datetime(1998, 4, 20)) -> list[ViewState]:
    """Bring the online store to the latest published versions, and compare every value with the offline path.

    Args:
        day: the day (UTC); rows known at its end are served.

    Returns:
        For each feature view how many entities were written, and how many values differ.
    """
    tables = published(lake=open_lake())
    return materialize(
        users=tables.users,
        movies=tables.movies,
        user_stats=tables.user_stats,
        item_stats=tables.item_stats,
        cards=tables.cards,
        day=day,
    )
