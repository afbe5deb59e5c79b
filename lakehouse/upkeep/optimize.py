"""When are a table's files worth rewriting? When many are small, or many rows came since it was last clustered."""

from __future__ import annotations

import math
from collections import defaultdict

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.table import declared_tables
from lakehouse.errors import UnknownTableError
from lakehouse.lake import Lakehouse
from lakehouse.query.files import Span, table_files
from lakehouse.snapshot import open_delta
from lakehouse.upkeep.acts import Act, conflicts_explained, publish_act, published, settle

#: Bytes of a file that compaction aims at.
TARGET = 128 * 1024 * 1024
#: Compaction pays if it makes this many files fewer, and halves them.
FEWER = 4
#: Clustering rewrites the whole table: it pays if this share of its bytes came since.
UNCLUSTERED = 0.2


class OptimizeReport(BaseModel):
    """What rewriting one table's files saved.

    Attributes:
        table: the table.
        done: ``compact``, ``cluster``, or why neither was needed.
        version: the newest version now.
        files_before, files_after: files of the newest version.
        bytes_before, bytes_after: their size.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    done: str
    version: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


def optimize(lake: Lakehouse, name: str) -> OptimizeReport:
    """Make few large files of a table's many small ones, clustered as its contract says, if that pays.

    The new version holds the same rows. It is published only on top of the version that readers get; a table whose
    newest version is not published is left alone. Old versions keep their files until vacuum.

    Raises:
        UnknownTableError: there is no such table.
        TableBusyError: another process wrote the table at the same time; nothing was changed.
    """
    if name not in lake.names():
        raise UnknownTableError.named(name, lake.names())
    if lake.is_system(name):
        return _optimize_ledger(lake, name)
    publications = settle(lake, name)
    uri = lake.uri(name)
    files = table_files(uri)
    spans = [span for span in files.spans if span.last is None]
    if not any(p.published for p in publications) or published(publications, name).version != files.newest:
        return _report(name, "the newest version is not published", files.newest, spans, spans)
    row = declared_tables().get(name)
    cluster_by = list(row.contract.cluster_by) if row else []
    ordered = {version for version, operation in files.acts.items() if operation == "OPTIMIZE"}
    act = Act(kind="optimize", parent=files.newest)
    table = open_delta(uri)
    if cluster_by:
        fresh = sum(span.size for span in spans if span.first not in ordered)
        if fresh <= UNCLUSTERED * sum(span.size for span in spans):
            return _report(name, "it is clustered already", files.newest, spans, spans)
        with conflicts_explained(name):
            table.optimize.z_order(cluster_by, target_size=TARGET, commit_properties=act.commit_properties())
    elif _pays(spans):
        with conflicts_explained(name):
            table.optimize.compact(target_size=TARGET, commit_properties=act.commit_properties())
    else:
        return _report(name, "its files are large or few", files.newest, spans, spans)
    version = table.version()
    if version == files.newest:
        return _report(name, "nothing could be merged", version, spans, spans)
    if version == files.newest + 1:
        publish_act(lake, name, version, act)
    # Else delta-rs has put it behind another writer's commit, and that writer's next batch publishes both.
    after = [span for span in table_files(uri).spans if span.last is None]
    return _report(name, "cluster" if cluster_by else "compact", version, spans, after)


def _optimize_ledger(lake: Lakehouse, name: str) -> OptimizeReport:
    """Compact a system table, write a checkpoint, and let go the commits before it that nothing needs."""
    uri = lake.uri(name)
    spans = [span for span in table_files(uri).spans if span.last is None]
    table = open_delta(uri)
    if not _pays(spans):
        return _report(name, "its files are large or few", table.version(), spans, spans)
    with conflicts_explained(name):
        table.optimize.compact(target_size=TARGET)
    table.create_checkpoint()
    files = table_files(uri)
    after = [span for span in files.spans if span.last is None]
    return _report(name, "compact", files.newest, spans, after)


def _pays(spans: list[Span]) -> bool:
    partitions: dict[str, list[int]] = defaultdict(list)
    for span in spans:
        if span.size:  # deletion vectors have none
            partitions[span.path.rpartition("/")[0]].append(span.size)
    before = sum(len(sizes) for sizes in partitions.values())
    after = sum(
        sum(size >= TARGET for size in sizes) + math.ceil(sum(s for s in sizes if s < TARGET) / TARGET)
        for sizes in partitions.values()
    )
    return before - after >= FEWER and before >= 2 * after


def _report(name: str, done: str, version: int, before: list[Span], after: list[Span]) -> OptimizeReport:
    return OptimizeReport(
        table=name,
        done=done,
        version=version,
        files_before=sum(1 for span in before if span.size),
        files_after=sum(1 for span in after if span.size),
        bytes_before=sum(span.size for span in before),
        bytes_after=sum(span.size for span in after),
    )
