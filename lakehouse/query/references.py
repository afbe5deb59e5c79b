"""How does text name a version? By number, day, instant, tag, or not at all: then the latest published one.

| text | version |
| --- | --- |
| ``ratings`` | the latest published one |
| ``ratings@12`` | Delta version 12, published or not |
| ``ratings@1998-03-01`` | what readers get of the data up to the end of that day, by the batches' own days |
| ``ratings@2026-01-31T12:00:00Z`` | what readers got at that instant, by the clock of the ledger |
| ``ratings@golden`` | the version that the tag stands for |

A day asks the data's own calendar: a day replayed years later is still that day. An instant asks when the decision was
written; what was restored away since then still counts, as it was what readers got.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from lakehouse.contracts.table import Table, declared_tables
from lakehouse.errors import MillraceError, NotPublishedError, ReferenceSyntaxError, UnknownTableError
from lakehouse.ledger import LEDGER_FOLDER, SYSTEM_TABLES
from lakehouse.query import pointer
from lakehouse.snapshot import Snapshot, open_delta

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse

_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_INSTANT = _DAY + r"[Tt][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
_TAG = r"[A-Za-z][A-Za-z0-9_]{0,59}"
#: What may follow the @ of a reference; the longest form first.
AT = rf"(?:{_INSTANT}|{_DAY}|[0-9]+|{_TAG})"
_REFERENCE = re.compile(rf"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:@(?P<at>{AT}))?")
#: A word that would read like what a reference without @ means.
_RESERVED = "latest"


def resolve(lake: Lakehouse, reference: str) -> Snapshot[Table]:
    """The snapshot that a reference names; one by number is opened, so that it is known to be there.

    Raises:
        ReferenceSyntaxError: the text is no reference.
        UnknownTableError, UnknownVersionError, TagError, NotPublishedError: what it names is not there.
    """
    name, at = _parse(reference)
    row = declared_tables().get(name, Table)
    if isinstance(at, int):
        return _numbered(lake, name, at, row)
    published = {} if name in SYSTEM_TABLES else pointer.latest(lake.storage)
    if at is None and name in published:
        return Snapshot(f"{lake.root}/{name}", published[name], row)
    if name not in published:
        _refuse_unknown(lake, name)
        if lake.is_system(name):
            if at is not None:
                raise ReferenceSyntaxError.system(reference)
            uri = lake.uri(name)
            return Snapshot(uri, open_delta(uri).version(), row)
        if not isinstance(at, str):
            raise NotPublishedError.at_all(name)
    if isinstance(at, str):
        from lakehouse.query.tags import tagged_version

        return Snapshot(f"{lake.root}/{name}", tagged_version(lake, name, at), row)
    assert at is not None
    return Snapshot(f"{lake.root}/{name}", _published_by(lake, name, at), row)


def _parse(reference: str) -> tuple[str, int | date | datetime | str | None]:
    match = _REFERENCE.fullmatch(reference.strip())
    if match is None:
        raise ReferenceSyntaxError.of(reference)
    name, at = match["name"], match["at"]
    try:
        if at is None:
            return name, None
        if at[0].isalpha():
            if at.lower() == _RESERVED:
                raise ReferenceSyntaxError.of(reference)
            return name, at.lower()
        if "-" not in at:
            return name, int(at)
        return name, datetime.fromisoformat(at.upper()).astimezone(UTC) if ":" in at else date.fromisoformat(at)
    except (ValueError, OverflowError):  # no such day, or more digits than a number may have
        raise ReferenceSyntaxError.of(reference) from None


def _numbered(lake: Lakehouse, name: str, version: int, row: type[Table]) -> Snapshot[Table]:
    """Opened at once and only once: where that works, the table is known without listing the lake."""
    folder = f"{LEDGER_FOLDER}/{name}" if name in SYSTEM_TABLES else name
    snapshot = Snapshot(f"{lake.root}/{folder}", version, row)
    try:
        snapshot.open()
    except MillraceError as error:
        if isinstance(error.__cause__, PermissionError):  # what may not be read can't be listed either
            raise
        _refuse_unknown(lake, name)
        if lake.uri(name) == snapshot.uri:
            raise
        snapshot = Snapshot(lake.uri(name), version, row)  # a ledger table that another package declares
        snapshot.open()
    return snapshot


def _refuse_unknown(lake: Lakehouse, name: str) -> None:
    names = lake.names()
    if name not in names:
        if name in declared_tables() and name not in SYSTEM_TABLES:
            raise NotPublishedError.at_all(name)
        raise UnknownTableError.named(name, names)


def _published_by(lake: Lakehouse, name: str, at: date) -> int:
    """The version that readers got of a day's data, or at an instant."""
    publications = lake.publications(name)
    first: date
    if isinstance(at, datetime):
        found = pointer.standing(p for p in publications if p.published_at <= at)
        first = min((p.published_at for p in publications if p.published), default=at)
    else:
        every = pointer.standing(publications)
        found = [p for p in every if p.day <= at]
        first = min((p.day for p in every), default=at)
    if not found:
        raise NotPublishedError.by_day(name, at.isoformat(), first.isoformat())
    return pointer.newest(found).version
