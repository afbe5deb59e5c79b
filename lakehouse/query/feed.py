"""What does a table's change data feed say of the way from one version to another, and what does reading it cost?

A commit of a table with ``delta.enableChangeDataFeed`` records the rows that it changed in files of their own; one that
only adds files needs no such record, and its files are the feed. Read by delta-rs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from lakehouse.contracts.delta_schema import CHANGE_FEED
from lakehouse.query.files import actions
from lakehouse.snapshot import Snapshot, schema_of
from lakehouse.upkeep.fates import fates

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from lakehouse.contracts.table import Table

_KIND = "_change_type"
#: Whether a row of ``Feed.reader`` was there and is no more, in DuckDB's SQL; else it came.
GONE = "__gone"


@dataclass(frozen=True)
class Feed:
    """The feed between two versions.

    Attributes:
        table: opened at the later one.
        first: the first commit of it.
        backwards: whether the earlier version is the one to go to.
        files: that it lies in.
        bytes: their size.
    """

    table: DeltaTable
    first: int
    backwards: bool
    files: int
    bytes: int

    def reader(self) -> pa.RecordBatchReader:
        """The table's columns and ``GONE``; DeltaError or OSError where a file is not there."""
        stored = schema_of(self.table)
        found = pa.RecordBatchReader.from_stream(
            self.table.load_cdf(starting_version=self.first, ending_version=self.table.version())
        )
        schema = stored.append(pa.field(GONE, pa.bool_()))
        left = ("insert", "update_postimage") if self.backwards else ("delete", "update_preimage")

        def batches() -> pa.RecordBatch:
            import pyarrow.compute as pc

            for batch in found:
                rows = pa.Table.from_batches([batch])
                gone = pc.is_in(rows[_KIND].cast(pa.string()), pa.array(left))
                columns = [rows[name].cast(stored.field(name).type) for name in stored.names]
                yield from pa.Table.from_arrays([*columns, gone], schema=schema).to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())


def between(before: Snapshot[Table], after: Snapshot[Table]) -> Feed | None:
    """The feed from one version of a table to another, either the older; None where it keeps none that can be read."""
    if before.version == after.version:
        return None
    old, new = sorted((before, after), key=lambda snapshot: snapshot.version)
    opened = old.delta(), new.delta()
    for table in opened:
        features = set(table.protocol().reader_features or ())
        on = table.metadata().configuration.get(CHANGE_FEED, "false").lower() == "true"
        # delta-rs's feed asks neither deletion vectors nor the columns' other names.
        if not on or features & {"deletionVectors", "columnMapping"}:
            return None
    span = range(old.version + 1, new.version + 1)
    known = fates(new.uri)
    if any(known.is_removed(version) or version in known.twins for version in (old.version, *span)):
        return None
    sizes: list[int] = []
    for version in span:
        recorded: list[int] = []
        moved: list[int] = []
        for action in actions(new.uri, version):
            if "metaData" in action:
                return None  # what was before may have had other columns
            if "cdc" in action:
                recorded.append(int(action["cdc"]["size"]))
            for kind in ("add", "remove"):
                if kind in action and action[kind].get("dataChange", True):
                    moved.append(int(action[kind].get("size") or 0))
        sizes += recorded or moved
    return Feed(opened[1], span.start, before.version > after.version, len(sizes), sum(sizes))
