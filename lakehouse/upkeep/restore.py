"""How does a table go back to an earlier version? By a new version with the old rows; batches between are withdrawn."""

from __future__ import annotations

from collections.abc import Iterable

from lakehouse.contracts.table import Table
from lakehouse.errors import RestoreError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.snapshot import Snapshot, open_delta
from lakehouse.upkeep.acts import Act, conflicts_explained, publish_act, published, refuse_if_underway, settle


def withdrawn(publications: Iterable[Publication]) -> set[str]:
    """Ids of the publications whose rows a later restore took out of their table; their batches may come again.

    A restore that was itself withdrawn withdraws nothing: who goes back to before it has the batches again.
    """
    by_table: dict[str, list[Publication]] = {}
    for publication in publications:
        by_table.setdefault(publication.table_name, []).append(publication)
    found: set[str] = set()
    for own in by_table.values():
        restores = sorted((p for p in own if p.restored_from is not None), key=lambda p: p.version, reverse=True)
        for restore in restores:
            if restore.publication_id not in found:
                assert restore.restored_from is not None
                between = range(restore.restored_from + 1, restore.version)
                found |= {p.publication_id for p in own if p.version in between}
    return found


def to_withdraw(lake: Lakehouse, snapshot: Snapshot[Table]) -> list[Publication]:
    """The published batches that going back to that version would withdraw, oldest first."""
    publications = lake.publications(snapshot.name)
    gone = withdrawn(publications)
    return [
        p
        for p in sorted(publications, key=lambda p: (p.version, p.published_at))
        if p.version > snapshot.version and p.rows_published and p.published and p.publication_id not in gone
    ]


def restore(lake: Lakehouse, reference: str) -> Snapshot[Table]:
    """Bring a published version's rows back as a new version, which readers get from then on.

    The batches published since are withdrawn: publishing one of them again brings it through the gate again. Restoring
    what readers get already changes nothing.

    Raises:
        NotPublishedError: the version was never published.
        UnknownVersionError: there is no such version, or vacuum removed its files.
        RestoreError: a system table, or a version that is a redacted twin.
        TableBusyError: another process is publishing into the table.
    """
    snapshot = lake.resolve(reference)
    name = snapshot.name
    if lake.is_system(name):
        raise RestoreError.system(name)
    publications = settle(lake, name)
    published(publications, name, snapshot.version)
    if snapshot.redacted:
        raise RestoreError.redacted(name, snapshot.version)
    table = open_delta(snapshot.uri)
    if table.version() == snapshot.version:
        return snapshot
    latest = published(publications, name)
    if latest.version == table.version() and latest.restored_from == snapshot.version:
        return Snapshot(snapshot.uri, latest.version, snapshot.row)  # asked twice
    refuse_if_underway(lake, name, publications)
    act = Act(kind="restore", parent=snapshot.version)
    with conflicts_explained(name):
        table.restore(snapshot.version, commit_properties=act.commit_properties())
    publish_act(lake, name, table.version(), act)
    return Snapshot(snapshot.uri, table.version(), snapshot.row)
