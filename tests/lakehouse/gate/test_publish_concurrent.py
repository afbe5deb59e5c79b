"""Several writers at once: nothing is lost, no row is there twice, and each publication stands for its own batch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.errors import TableBusyError
from lakehouse.gate.commits import commits
from lakehouse.gate.publish import publish
from lakehouse.gate.quarantine import refused_rows
from lakehouse.gate.staging import Batch, stage
from lakehouse.ledger import Metric
from lakehouse.snapshot import Snapshot, open_delta
from lakehouse.tables import Rating

DAY = date(1998, 3, 1)
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)
WRITERS = 8

Rows = dict[tuple[int, int], float]

#: Adds rows to the ledger, of which every process brings half; all begin at once.
APPENDER = """
import sys
from datetime import UTC, datetime
from lakehouse.ledger import Ledger, Metric
from lakehouse.storage import storage_of

root, number = sys.argv[1], int(sys.argv[2])
ledger = Ledger(storage_of(root))
sys.stdin.readline()
for n in range(6):
    keys = [f"own-{number}-{n}", f"shared-{n}"]
    ledger.append([
        Metric(metric_id=key, table_name="t", version=n, metric="m", column="*", value=number,
               measured_at=datetime.now(UTC))
        for key in keys
    ])
"""


@pytest.fixture
def lake(seed_folder: Path, tmp_path: Path) -> Lakehouse:
    shutil.copytree(seed_folder, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


def staged(lake: Lakehouse, number: int) -> Batch:
    """Two rows of the writer's own, one of a key that all bring (a newer one each), and one bad row."""
    key = (number % 5 + 1, number // 5 + 2)
    rows: Sequence[tuple[int, int, float, datetime]] = (
        (*key, 4.0, NOON),
        (number % 5 + 1, number // 5 + 4, 3.0, NOON),
        (5, 1, 1 + number / 4, NOON + timedelta(minutes=number)),
        (1, 99, 3.0, NOON),
    )
    names = arrow_schema(Rating.contract).names
    columns: dict[str, list[object]] = {n: [row[place] for row in rows] for place, n in enumerate(names)}
    table = pa.table(columns, arrow_schema(Rating.contract))
    return stage(lake, Rating, table, batch_id=f"batch-{number}", day=DAY)


def own_keys(number: int) -> set[tuple[int, int]]:
    return {(number % 5 + 1, number // 5 + 2), (number % 5 + 1, number // 5 + 4)}


def stored(snapshot: Snapshot[Rating]) -> Rows:
    rows = snapshot.arrow().to_pylist()
    found = {(row["user_id"], row["item_id"]): row["rating"] for row in rows}
    assert len(found) == len(rows), "no row is there twice"
    return found


def at_once(lake: Lakehouse, numbers: Sequence[int]) -> list[Snapshot[Rating]]:
    """What each writer gets, who publishes again if it was told that others were quicker."""
    batches = [staged(lake, number) for number in numbers]
    start = threading.Barrier(len(batches))

    def publishes(batch: Batch) -> Snapshot[Rating]:
        start.wait()
        for _ in range(3):
            try:
                return publish(Lakehouse.open(lake.root), Rating, batch)
            except TableBusyError:
                continue
        return publish(Lakehouse.open(lake.root), Rating, batch)

    with ThreadPoolExecutor(len(batches)) as pool:
        return list(pool.map(publishes, batches))


def assert_all_landed(lake: Lakehouse, numbers: Sequence[int], got: Sequence[Snapshot[Rating]]) -> None:
    publications = {p.batch_id: p for p in lake.publications("ratings")}
    assert len(publications) == len(lake.publications("ratings")) == len(numbers), "one publication a batch"
    refused = [row.quarantined.batch_id for row in refused_rows(lake, "ratings")]
    newest = max(p.version for p in publications.values())
    merges = {c.version: c.transactions for c in commits(lake, "ratings", newest) if c.operation == "MERGE"}
    for number, snapshot in zip(numbers, got, strict=True):
        one = publications[f"batch-{number}"]
        assert (one.version, one.published) == (snapshot.version, True)
        assert list(merges[one.version]) == [f"millrace/ratings/batch-{number}"], "its own commit"
        assert one.rows_in == one.rows_published + one.rows_quarantined + one.rows_duplicate == 4
        assert (one.rows_quarantined, refused.count(one.batch_id)) == (1, 1)
        rows = stored(snapshot)
        assert own_keys(number) <= rows.keys()
        assert rows[5, 1] >= 1 + number / 4
        assert one.rows_total == len(rows)
        sizes = [m.value for m in lake.ledger.read(Metric) if (m.metric, m.version) == ("Size", one.version)]
        assert sizes == [len(rows)], "the audit was of this version"
    assert len(merges) == len(numbers)
    latest = lake.latest(Rating)
    assert latest.version == newest == open_delta(latest.uri).version()
    assert stored(latest).keys() == {(5, 1)}.union(*map(own_keys, numbers))
    assert stored(latest)[5, 1] == 1 + max(numbers) / 4, "the newest row of the key that all bring"


def test_writers_who_publish_at_once_all_land_and_none_loses_or_doubles_a_row(lake: Lakehouse) -> None:
    publish(lake, Rating, staged(lake, 0))
    got = at_once(lake, range(1, WRITERS + 1))
    assert_all_landed(lake, range(WRITERS + 1), [lake.resolve("ratings@2"), *got])  # type: ignore[list-item]


def test_two_first_batches_make_one_table(lake: Lakehouse) -> None:
    assert_all_landed(lake, [1, 2], at_once(lake, [1, 2]))


def test_processes_that_append_to_the_ledger_at_once_lose_no_row_and_write_no_key_twice(lake: Lakehouse) -> None:
    arguments = [[sys.executable, "-c", APPENDER, lake.root, str(number)] for number in range(WRITERS)]
    writers = [subprocess.Popen(one, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for one in arguments]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, told = writer.communicate(timeout=120)
        assert writer.returncode == 0, told
    keys = [row.metric_id for row in lake.ledger.read(Metric)]
    own = {f"own-{number}-{n}" for number in range(WRITERS) for n in range(6)}
    assert sorted(keys) == sorted(own | {f"shared-{n}" for n in range(6)})
