"""Which files does nobody need any more? Those of versions that are neither pinned nor published last nor recent.

Delta's own vacuum keeps files by age alone, and each of its runs adds two versions to the table. This one keeps
versions by the reasons that ``pins`` and the ledger give, and commits nothing: what it removed stands in
``_versions.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import UnknownTableError
from lakehouse.gate.staging import let_go
from lakehouse.lake import Lakehouse
from lakehouse.query.files import TableFiles, stored_files, table_files
from lakehouse.settings import Settings
from lakehouse.storage import StoredFile, storage_of
from lakehouse.upkeep.fates import fates, twin_uri, write_fates
from lakehouse.upkeep.pins import pins
from lakehouse.upkeep.restore import withdrawn

#: A file that no commit tells of may belong to a commit that is still to come, for so long at least.
UNFINISHED = timedelta(days=1)


class VacuumReport(BaseModel):
    """What vacuum removed from one table, or would remove.

    Attributes:
        table: the table.
        dry_run: whether the files are still there.
        kept: kept versions, each with every reason; those kept for being recent are counted in ``recent``.
        recent: versions kept only because they were the newest less than the retention ago.
        removed: versions that can no longer be read.
        files: files removed: of versions, unfinished writes, twins, and staged batches.
        bytes: their size.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    dry_run: bool
    kept: dict[int, list[str]]
    recent: int
    removed: list[int]
    files: int
    bytes: int


def vacuum(
    lake: Lakehouse,
    name: str,
    *,
    dry_run: bool,
    retention: timedelta | None = None,
    now: datetime | None = None,
) -> VacuumReport:
    """Remove the files that no kept version of a table needs, from the table and its quarantine.

    Kept are the latest published version, the newest one, every pinned one, and each that was the newest within the
    retention: a reader that opened one of these keeps its files. A file that no commit tells of goes when it is older
    than the retention and than a day, so that an unfinished publication keeps its own.

    Args:
        lake: the lake.
        name: the table.
        dry_run: only say what would go.
        retention: default from the settings, a week.
        now: the moment to judge by (UTC), for tests.

    Raises:
        UnknownTableError: there is no such table.
        StorageError: its log is damaged; nothing was removed.
    """
    retention = timedelta(days=Settings().retention_days) if retention is None else retention
    now = now or datetime.now(UTC)
    if name not in lake.names():
        raise UnknownTableError.named(name, lake.names())
    uri = lake.uri(name)
    reasons = kept_versions(lake, name, table_files(uri))
    swept = _sweep(uri, reasons, retention, now, dry_run=dry_run)
    gone = list(swept.garbage)
    if not lake.is_system(name):
        if name in lake.storage.tables("_quarantine"):
            gone += _sweep(lake.quarantine_uri(name), {}, retention, now, dry_run=dry_run).garbage
        gone += _staged(lake, name, now - retention, dry_run=dry_run)
    return VacuumReport(
        table=name,
        dry_run=dry_run,
        kept=reasons,
        recent=len(swept.recent - reasons.keys()),
        removed=sorted(swept.lost),
        files=len(gone),
        bytes=sum(file.size for file in gone),
    )


def kept_versions(lake: Lakehouse, name: str, files: TableFiles) -> dict[int, list[str]]:
    """The versions that must stay whatever their age, with every reason; the newest is always among them."""
    reasons: dict[int, list[str]] = {files.newest: ["newest"]}
    published = max((p.version for p in lake.publications(name) if p.published), default=None)
    if published is not None:
        reasons.setdefault(published, []).append("latest published")
    for pin in pins(lake, name):
        reasons.setdefault(pin.version, []).append(f"{pin.holder}: {pin.reason}")
    return {version: why for version, why in sorted(reasons.items()) if version <= files.newest}


@dataclass(frozen=True)
class _Swept:
    """What went, or would go, from one Delta table's folder."""

    recent: frozenset[int]
    lost: frozenset[int]
    garbage: tuple[StoredFile, ...]


def _sweep(uri: str, reasons: Mapping[int, list[str]], retention: timedelta, now: datetime, *, dry_run: bool) -> _Swept:
    files, stored, known = table_files(uri), stored_files(uri), fates(uri)
    recent = {
        version
        for version in range(files.first, files.newest)
        if version not in files.replaced_at or files.replaced_at[version] > now - retention
    }
    keep = {files.newest, *recent, *reasons}
    needed, tracked, unfinished = files.needed(keep), files.tracked(), now - max(retention, UNFINISHED)
    garbage = {
        path for path, file in stored.items() if path not in needed and (path in tracked or file.modified < unfinished)
    }
    lost = {
        version
        for version in files.versions_with(garbage)
        if version not in keep and not known.is_removed(version) and version not in known.twins
    }
    twins = {version: twin for version, twin in known.twins.items() if version not in keep}
    if not dry_run:
        if lost or twins:
            # Readers are told first: who opens such a version from now on gets one clear error.
            write_fates(uri, known.without({*lost, *twins}))
        # What a restore has brought back since the log was read stays.
        now_files = table_files(uri)
        garbage -= now_files.needed(range(files.newest, now_files.newest + 1))
        remove_files(uri, garbage)
    gone = [stored[path] for path in sorted(garbage)]
    for twin in twins.values():
        folder = storage_of(twin_uri(uri, twin))
        gone += folder.listing("")
        if not dry_run:
            remove_twin(uri, twin)
    return _Swept(frozenset(recent), frozenset(lost | twins.keys()), tuple(gone))


def remove_files(uri: str, paths: Iterable[str]) -> None:
    """Delete files of a table's folder, each with the checksum that Spark leaves beside it."""
    storage = storage_of(uri)
    for path in sorted(paths):
        storage.delete(path)
        folder, slash, name = path.rpartition("/")
        storage.delete(f"{folder}{slash}.{name}.crc")


def remove_twin(uri: str, twin: str) -> None:
    """Delete a redacted twin of the table in that folder; its log goes last, so that a kill leaves a table."""
    storage = storage_of(twin_uri(uri, twin))
    for key in sorted(storage.keys(""), reverse=True):
        storage.delete(key)


def _staged(lake: Lakehouse, name: str, before: datetime, *, dry_run: bool) -> list[StoredFile]:
    """Staged files of batches that are published, and were for the retention: their rows are in the table."""
    publications = lake.publications(name)
    gone_again = withdrawn(publications)
    done = {p.batch_id for p in publications if p.published and p.publication_id not in gone_again}
    found = []
    for file in list(lake.storage.listing(f"_staging/{name}")):
        batch_id, _, kind = file.key.rpartition("/")[2].rpartition(".")
        if kind == "parquet" and batch_id in done and file.modified < before:
            found.append(file)
            if not dry_run:
                let_go(lake, name, batch_id)
    return found
