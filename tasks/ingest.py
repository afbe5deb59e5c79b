"""How do rows come in? From the source into staging, as they are, one batch a table and day."""

from __future__ import annotations

from datetime import datetime

from lakehouse.gate.staging import Batch
from tasks.lake import Lake
from tasks.typed import task


@task(memory="1Gi")
def ingest(lake: Lake, day: datetime) -> list[Batch]:
    """Stage what the lake lacks to know the world as at the end of the day (UTC)."""
    from lakehouse.replay import batches_until

    return list(batches_until(lake.open(), day.date()))
