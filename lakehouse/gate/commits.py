"""What does each commit of a table say of itself? Its operation, counts, note and app transactions, read from the log.

By number and file, not by delta-rs's ``history()``: that numbers the commits from the version the table was opened at,
and is off by one for each commit that another writer has made since.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakehouse.lake import Lakehouse


@dataclass(frozen=True)
class Commit:
    """One commit of a table's log.

    Attributes:
        version: that it made.
        operation: such as MERGE or RESTORE.
        timestamp: when it was made (milliseconds since 1970, UTC).
        parameters: of the operation, as its engine wrote them.
        metrics: the operation's own counts.
        note: the ``userMetadata`` of a writer in Spark; empty if there is none.
        transactions: versions by application.
    """

    version: int
    operation: str
    timestamp: int
    parameters: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    note: str = ""
    transactions: dict[str, int] = field(default_factory=dict)

    def count(self, metric: str) -> int:
        """One of the operation's counts; 0 if the engine did not write it."""
        return int(self.metrics.get(metric, 0))


#: Start of the names under which the gate's commits are known to Delta; table and batch follow.
GATE = "millrace/"


def is_gated(commit: Commit) -> bool:
    """Whether the commit came through the gate."""
    return any(name.startswith(GATE) for name in commit.transactions)


def commits(lake: Lakehouse, table: str, newest: int) -> Iterator[Commit]:
    """The commits from that version on downwards, as far as the log still has them."""
    for version in range(newest, -1, -1):
        try:
            content = lake.storage.read(f"{table}/_delta_log/{version:020d}.json")
        except FileNotFoundError:
            return
        yield _commit(version, content)


def _commit(version: int, content: bytes) -> Commit:
    info: dict[str, object] = {}
    transactions: dict[str, int] = {}
    for line in content.splitlines():
        # The lines that tell of files may be many and long; they are not parsed.
        if line.startswith((b'{"commitInfo"', b'{"txn"')):
            action = json.loads(line)
            info = action.get("commitInfo", info)
            if "txn" in action:
                transactions[str(action["txn"]["appId"])] = int(action["txn"]["version"])
    parameters = info.get("operationParameters")
    metrics = info.get("operationMetrics")
    return Commit(
        version=version,
        operation=str(info.get("operation", "")),
        timestamp=int(str(info.get("timestamp", 0))),
        parameters=parameters if isinstance(parameters, dict) else {},
        metrics=metrics if isinstance(metrics, dict) else {},
        note=str(info.get("userMetadata") or ""),
        transactions=transactions,
    )
