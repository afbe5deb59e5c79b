"""How does a lake stay fast and small? Compaction, clustering, vacuum and shorter ledger logs, table by table."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import TableBusyError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Maintenance
from lakehouse.query.files import table_files
from lakehouse.settings import Settings
from lakehouse.storage import storage_of
from lakehouse.upkeep.optimize import OptimizeReport, optimize
from lakehouse.upkeep.vacuum import VacuumReport, vacuum

_NUMBERED = re.compile(r"_delta_log/(\d{20})\.(?P<kind>json|checkpoint\b.*)")


class MaintenanceReport(BaseModel):
    """What the upkeep of a lake did and saved.

    Attributes:
        tables: one row a table, as the ledger keeps it.
        busy: tables that another process was writing; the next upkeep finds them.
    """

    model_config = ConfigDict(frozen=True)

    tables: list[Maintenance]
    busy: list[str]


def maintain(lake: Lakehouse, *, now: datetime | None = None) -> MaintenanceReport:
    """Optimize and vacuum every table, where that pays, and write one row each into the ledger.

    A kill at any point leaves whole tables; the next upkeep does the rest.

    Args:
        lake: the lake.
        now: the moment to judge ages by (UTC), for tests.

    Raises:
        StorageError: a table's log is damaged; the tables before it are done.
    """
    now = now or datetime.now(UTC)
    rows: list[Maintenance] = []
    busy: list[str] = []
    for name in lake.names():
        started, clock = datetime.now(UTC), time.monotonic()
        try:
            optimized = optimize(lake, name)
        except TableBusyError:
            busy.append(name)
            continue
        swept = vacuum(lake, name, dry_run=False, now=now)
        if lake.is_system(name):
            shorten_log(lake.uri(name), now - timedelta(days=Settings().retention_days))
        rows.append(_row(optimized, swept, started, time.monotonic() - clock))
    lake.ledger.append(rows)
    return MaintenanceReport(tables=rows, busy=busy)


def shorten_log(uri: str, before: datetime) -> None:
    """Remove the commits of a system table that lie before a checkpoint and before that moment.

    For system tables only: nobody pins their versions, and each publication is a commit. Their old versions can't be
    read afterwards; the rows are all in the newest.
    """
    files = table_files(uri)
    storage = storage_of(uri)
    numbered = [(int(match[1]), key, match["kind"]) for key in storage.keys("_delta_log")
                if (match := _NUMBERED.fullmatch(key))]  # fmt: skip
    old = {version for version, moment in files.replaced_at.items() if moment < before}
    bases = [version for version, _, kind in numbered if kind != "json" and version - 1 in old]
    if not bases:
        return
    for version, key, _ in sorted(numbered):  # oldest first: a kill leaves no hole
        if version < max(bases):
            storage.delete(key)


def _row(optimized: OptimizeReport, swept: VacuumReport, started: datetime, seconds: float) -> Maintenance:
    return Maintenance(
        maintenance_id=f"{optimized.table}/{started.isoformat()}",
        table_name=optimized.table,
        compacted=optimized.done,
        files_before=optimized.files_before,
        files_after=optimized.files_after,
        bytes_before=optimized.bytes_before,
        bytes_after=optimized.bytes_after,
        removed_files=swept.files,
        removed_bytes=swept.bytes,
        removed_versions=swept.removed,
        kept=json.dumps({str(version): why for version, why in swept.kept.items()}),
        seconds=seconds,
        started_at=started,
    )
