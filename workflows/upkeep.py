"""The weekly job: keep the lake fast and small.

    pyflyte -c flyte.yaml run workflows/upkeep.py upkeep

Registered with `pyflyte register`, the launch plan `weekly_upkeep` runs it on Sundays at 04:00 UTC, when no night runs.
"""

from __future__ import annotations

from tasks.compiled import workflow
from tasks.lake import open_lake
from tasks.maintain import Upkeep, maintain
from workflows.plan import plan


@workflow
def upkeep() -> Upkeep:
    """Compact the tables' small files, and remove what no published, pinned or young version needs.

    Returns:
        How many tables were compacted and what was removed; the ledger's `maintenance` has a row a table.
    """
    return maintain(lake=open_lake())


weekly_upkeep = plan(upkeep, name="weekly_upkeep", cron="0 4 * * 0")
