"""How does the lake stay fast and small? Its weekly upkeep, as one task."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tasks.lake import Lake
from tasks.typed import task


class Upkeep(BaseModel):
    """What an upkeep did; the ledger's ``maintenance`` has a row a table.

    Attributes:
        tables: tables looked after.
        compacted: of these, the ones whose files were put together.
        files_removed: files that no kept version needs any more.
        bytes_removed: their size.
        busy: tables that another process was writing; the next upkeep finds them.
    """

    model_config = ConfigDict(frozen=True)

    tables: int
    compacted: int
    files_removed: int
    bytes_removed: int
    busy: list[str]


@task(cached=False, memory="2Gi")
def maintain(lake: Lake) -> Upkeep:
    """Compact small files and remove what no published, pinned or young version needs; every run does it anew."""
    from lakehouse.upkeep.maintenance import maintain as maintain_lake

    report = maintain_lake(lake.open())
    return Upkeep(
        tables=len(report.tables),
        compacted=sum(row.files_after < row.files_before for row in report.tables),
        files_removed=sum(row.removed_files for row in report.tables),
        bytes_removed=sum(row.removed_bytes for row in report.tables),
        busy=report.busy,
    )
