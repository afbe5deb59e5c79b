"""Which versions have a name? Tags: rows of the ledger's ``tags`` table, of which the newest counts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lakehouse.contracts.table import Table
from lakehouse.errors import TagError
from lakehouse.ledger import TagRecord
from lakehouse.snapshot import Snapshot

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

_TAG = re.compile(r"(?!latest$)[a-z][a-z0-9_]{0,59}")


def tags(lake: Lakehouse, table: str | None = None) -> list[TagRecord]:
    """The tags that stand, by table and tag; vacuum keeps their versions.

    Args:
        lake: the lake.
        table: only this table's.
    """
    newest = {(row.table_name, row.tag): row for row in _records(lake)}
    return [newest[key] for key in sorted(newest) if not newest[key].deleted and table in (None, key[0])]


def tag(lake: Lakehouse, reference: str, name: str) -> Snapshot[Table]:
    """Let a tag stand for the version that the reference names now; one that is set already moves.

    Raises:
        TagError: the word can't be a tag, or the table belongs to the ledger.
        UnknownVersionError: the version is not there.
    """
    if not _TAG.fullmatch(name):
        raise TagError.malformed(name)
    snapshot = lake.resolve(reference)
    if lake.is_system(snapshot.name):
        raise TagError.system(snapshot.name)
    snapshot.open()
    _record(lake, snapshot.name, name, snapshot.version, deleted=False)
    return snapshot


def untag(lake: Lakehouse, table: str, name: str) -> int:
    """Remove a tag and return the version it stood for; TagError if it is not set."""
    version = tagged_version(lake, table, name)
    _record(lake, table, name, version, deleted=True)
    return version


def tagged_version(lake: Lakehouse, table: str, name: str) -> int:
    """The version that a tag stands for; TagError if it is not set."""
    standing = {row.tag: row.version for row in tags(lake, table)}
    if name not in standing:
        raise TagError.unknown(table, name, list(standing))
    return standing[name]


def _records(lake: Lakehouse) -> list[TagRecord]:
    """Oldest first, whatever the clocks of those who wrote them."""
    return sorted(lake.ledger.read(TagRecord), key=lambda row: (row.number, row.tagged_at))


def _record(lake: Lakehouse, table: str, name: str, version: int, *, deleted: bool) -> None:
    number = 1 + max((row.number for row in _records(lake) if (row.table_name, row.tag) == (table, name)), default=-1)
    row = TagRecord(
        tag_id=f"{table}@{name}/{number}",
        table_name=table,
        tag=name,
        version=version,
        deleted=deleted,
        number=number,
        tagged_at=datetime.now(UTC),
    )
    lake.ledger.append([row])
