"""How does a lake keep a training set? As a published version of a Delta table, whose commit names the set.

It does not go through the gate: it has no row model to be judged by, and what it was made from did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from features.errors import TrainingSetError
from lakehouse.contracts.table import Table, declared_tables
from lakehouse.errors import ReferenceSyntaxError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.snapshot import Snapshot
from lakehouse.upkeep.acts import conflicts_explained

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Where a commit says which training set it holds.
_KEY = "millrace.training_set"


def save(lake: Lakehouse, table: str, rows: pa.Table, *, digest: str, inputs: Sequence[str]) -> Snapshot[Table]:
    """Keep rows as a published version of ``table``; does nothing if they are there.

    Cut off between the commit and its publication it may be run again.

    Args:
        lake: where the table is.
        table: its name, which no row model declares.
        rows: all of the version's rows.
        digest: names them.
        inputs: the versions that they were made from, as table@version.

    Raises:
        TrainingSetError: a row model declares the table.
        ReferenceSyntaxError: the name can't be a table's.
        TableBusyError: another process wrote the table at the same time; nothing was written.
    """
    from deltalake import CommitProperties, write_deltalake

    if not _NAME.fullmatch(table):
        raise ReferenceSyntaxError.of(table)
    if table in declared_tables():
        raise TrainingSetError.declared(table)
    uri = lake.uri(table)
    version = _committed(uri, digest)
    if version is None:
        with conflicts_explained(table):
            write_deltalake(
                uri,
                rows,
                mode="overwrite",
                schema_mode="overwrite",
                name=table,
                description="A training set.",
                commit_properties=CommitProperties(custom_metadata={_KEY: digest}, max_commit_retries=0),
            )
        version = _committed(uri, digest)
        assert version is not None
    if all(publication.version != version for publication in lake.publications(table)):
        now = datetime.now(UTC)
        lake.ledger.append(
            [
                Publication(
                    publication_id=f"{table}/{digest[:32]}@{version}",
                    table_name=table,
                    batch_id=digest[:32],
                    inputs=list(inputs),
                    day=now.date(),
                    version=version,
                    published=True,
                    rows_in=rows.num_rows,
                    rows_published=rows.num_rows,
                    rows_quarantined=0,
                    rows_duplicate=0,
                    rows_total=rows.num_rows,
                    failed_checks=[],
                    broken_rules="{}",
                    fingerprint=digest,
                    published_at=now,
                )
            ]
        )
    return Snapshot(uri, version)


def _committed(uri: str, digest: str) -> int | None:
    """The newest version that holds the rows; None where there is none."""
    from deltalake import DeltaTable

    if not DeltaTable.is_deltatable(uri):
        return None
    versions = (int(entry["version"]) for entry in DeltaTable(uri).history() if entry.get(_KEY) == digest)
    return next(versions, None)
