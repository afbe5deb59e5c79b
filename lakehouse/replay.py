"""What is missing to bring the lake to the end of a day? Batches from the source, one a table and day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise

from lakehouse.errors import DayOrderError
from lakehouse.gate.staging import Batch, stage
from lakehouse.lake import Lakehouse
from lakehouse.movielens import movielens
from lakehouse.tables import Rating


def batches_until(lake: Lakehouse, day: date) -> Iterator[Batch]:
    """Stage what the lake lacks to know the world as at the end of ``day``, in the order to publish it.

    An empty lake gets all history as one batch a table; later each day is a batch of its own. A day that is already
    published yields its batches again without reading them into anything: publishing them changes nothing.

    Raises:
        NoDataForDayError: the source does not reach that day.
        DayOrderError: the lake is past that day and never stood at its end.
    """
    archive = movielens()
    archive.require(day)
    # A batch with inputs was made in the lake (ratings given online): it says nothing of how far the source was read.
    published = sorted({p.day for p in lake.publications(Rating.contract.table) if p.published and not p.inputs})
    if not published or day in published:
        # The first batch, or one of the past under its own id, which changes nothing.
        earlier = [past for past in published if past < day]
        steps = [(earlier[-1] if earlier else None, day)]
    elif day < published[-1]:
        raise DayOrderError.before(day.isoformat(), published[-1].isoformat())
    else:
        days = [published[-1] + timedelta(days=n) for n in range((day - published[-1]).days + 1)]
        steps = list(pairwise(days))
    for after, until in steps:
        for row_model, rows in archive.batches(until, after):
            yield stage(lake, row_model, rows, batch_id=until.isoformat(), day=until)
