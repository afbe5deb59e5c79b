"""How does an act on a table (restore, optimize, erase) become the version that readers get? Its commit says it all.

Delta commits the act, the ledger publishes it. A kill between the two leaves a commit that knows what it was:
``settle`` writes the missing row, and whoever acts on the table or publishes into it settles it first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import NotPublishedError, StorageError, TableBusyError, first_line
from lakehouse.gate.commits import commits, is_gated
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.query.files import commit_info
from lakehouse.snapshot import open_delta
from lakehouse.tracing.openlineage import announce

if TYPE_CHECKING:
    from deltalake import CommitProperties

#: A merged batch that no publication tells of may still be on its way to it for so long.
UNDERWAY = timedelta(minutes=10)

#: Where a commit keeps its act.
_KEY = "millrace.act"


class Act(BaseModel):
    """What was done to a table as it stood.

    Attributes:
        kind: as in the ledger.
        parent: the published version it was done to; of a restore, the version whose rows came back.
        fingerprint: of the contract that the table keeps from then on; None for its parent's.
        follows: the version that the commit stands right behind, of those that delta-rs writes no readVersion into.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["restore", "optimize", "erase", "evolve"]
    parent: int
    fingerprint: str | None = None
    follows: int | None = None

    def commit_properties(self) -> CommitProperties:
        """For delta-rs: the commit carries the act, and fails rather than follow another writer's commit."""
        from deltalake import CommitProperties

        return CommitProperties(custom_metadata={_KEY: self.model_dump_json()}, max_commit_retries=0)


def settle(lake: Lakehouse, name: str) -> list[Publication]:
    """Publish what acts have committed and a kill kept from being published; all publications of the table."""
    from deltalake import DeltaTable

    publications = lake.publications(name)
    if not DeltaTable.is_deltatable(lake.uri(name)):
        return publications
    known = max((p.version for p in publications), default=0)
    newest = open_delta(lake.uri(name)).version()
    for version in range(known + 1, newest + 1):
        commit = commit_info(lake.uri(name), version)
        if _KEY in commit:
            act = Act.model_validate_json(commit[_KEY])
            # One that landed behind another writer's commit holds rows that nobody has judged.
            if commit.get("readVersion", act.follows) == version - 1:
                publications.append(publish_act(lake, name, version, act))
    return publications


def publish_act(lake: Lakehouse, name: str, version: int, act: Act) -> Publication:
    """Make an act's version the one that readers get; it stands for the day and the contract of its parent."""
    parent = published(lake.publications(name), name, act.parent)
    publication = Publication(
        publication_id=f"{name}/{act.kind}-{version}@{version}",
        table_name=name,
        batch_id=f"{act.kind}-{version}",
        kind=act.kind,
        inputs=[f"{name}@{act.parent}"],
        restored_from=act.parent if act.kind == "restore" else None,
        day=parent.day,
        version=version,
        published=True,
        rows_in=0,
        rows_published=0,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=open_delta(lake.uri(name), version).count(),
        failed_checks=[],
        broken_rules="{}",
        fingerprint=act.fingerprint or parent.fingerprint,
        published_at=datetime.now(UTC),
    )
    lake.ledger.append([publication])
    announce(lake, publication)
    return publication


def published(publications: list[Publication], name: str, version: int | None = None) -> Publication:
    """The newest publication of a version (default: of the latest published); NotPublishedError without one."""
    found = [p for p in publications if p.published and version in (None, p.version)]
    if not found:
        raise NotPublishedError.at_all(name) if version is None else NotPublishedError.version(name, version)
    return max(found, key=lambda p: (p.version, p.published_at))


def refuse_if_underway(lake: Lakehouse, name: str, publications: list[Publication]) -> None:
    """TableBusyError while a batch may stand between its merge and its publication."""
    newest = next(commits(lake, name, open_delta(lake.uri(name)).version()), None)
    if newest is None or not is_gated(newest) or any(p.version == newest.version for p in publications):
        return
    if datetime.now(UTC) - datetime.fromtimestamp(newest.timestamp / 1000, UTC) < UNDERWAY:
        raise TableBusyError.underway(name, newest.version)


@contextmanager
def conflicts_explained(name: str) -> Iterator[None]:
    """Another writer's commit in between as a TableBusyError, what else delta-rs can't do as a StorageError."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise TableBusyError.changed(name, first_line(error)) from error
    except (DeltaError, OSError) as error:
        raise StorageError(
            f"Table {name!r} can't be changed: {first_line(error)}.",
            fix="Mend that (disk space, permissions, a damaged file, a table feature), then repeat.",
        ) from error
