"""A process that publishes may end anywhere: before any of its durable acts, and by kill -9."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.table import TableAlterer

from lakehouse import Lakehouse
from lakehouse.gate.publish import publish
from lakehouse.gate.quarantine import quarantined, refused_rows
from lakehouse.gate.staging import ROW_NUMBER, Batch, stage
from lakehouse.ledger import Metric
from lakehouse.privacy.erasure import erase
from lakehouse.snapshot import Snapshot
from lakehouse.storage import LocalStorage
from lakehouse.tables import Rating
from lakehouse.upkeep.restore import restore

NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)
DAY = date(1998, 3, 1)

#: Of a person who was erased; a number that nothing else holds.
WHO = 424242

ROWS: dict[str, list[int] | list[float]] = {
    "user_id": [1, 2, 3, 3, 1, 99],
    "item_id": [1, 1, 1, 1, 2, 1],
    "rating": [4.0, 3.0, 2.0, 1.0, 6.0, 1.0],
}

#: Publishes a batch in a process that ends itself, as by kill -9, after one step.
PUBLISHER = """
import os, signal, sys
from pathlib import Path
import lakehouse.gate.publish as gate
from lakehouse import Lakehouse
from lakehouse.gate.staging import Batch
from lakehouse.tables import Rating

root, batch, step = sys.argv[1:]
real = getattr(gate, step)

def deadly(*args):
    real(*args)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(gate, step, deadly)
gate.publish(Lakehouse.open(Path(root)), Rating, Batch.model_validate_json(batch))
"""


class Killed(BaseException):
    """As by kill -9: nothing of the code catches it."""


@pytest.fixture
def lake(seed_folder: Path, tmp_path: Path, own_state: None) -> Lakehouse:
    shutil.copytree(seed_folder, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


def staged(lake: Lakehouse, *, of_the_erased: int = 0, batch_id: str = "first") -> Batch:
    """Three good keys, one of them twice, two bad rows, and rows of the person who was erased."""
    columns = {
        "user_id": [*ROWS["user_id"], *[WHO] * of_the_erased],
        "item_id": [*ROWS["item_id"], *[3] * of_the_erased],
        "rating": [*ROWS["rating"], *[4.5] * of_the_erased],
    }
    times = pa.array([NOON] * len(columns["user_id"]), pa.timestamp("us", "UTC"))
    return stage(lake, Rating, pa.table({**columns, "rated_at": times}), batch_id=batch_id, day=DAY)


def assert_whole(lake: Lakehouse, snapshot: Snapshot[Rating], of_the_erased: int = 0) -> None:
    """Each row is where it belongs, once, and one publication tells of it."""
    rows = {(row["user_id"], row["item_id"]): row["rating"] for row in snapshot.arrow().to_pylist()}
    assert rows == {(1, 1): 4.0, (2, 1): 3.0, (3, 1): 1.0}
    assert snapshot.count() == 3
    refused = quarantined(lake, "ratings")
    assert refused is not None
    found = {row["row_number"]: json.loads(row["row"]).get("rating") for row in refused.arrow().to_pylist()}
    assert found == {4: 6.0, 5: 1.0, **dict.fromkeys(range(6, 6 + of_the_erased))}
    assert refused.count() == len(found)
    (one,) = lake.publications("ratings")
    counts = (one.rows_in, one.rows_published, one.rows_quarantined, one.rows_duplicate, one.rows_total)
    assert counts == (6 + of_the_erased, 3, 2 + of_the_erased, 1, 3)
    assert (one.version, one.published) == (snapshot.version, True)
    metrics = [m.metric_id for m in lake.ledger.read(Metric)]
    assert len(metrics) == len(set(metrics)) > 0
    assert lake.latest(Rating) == snapshot
    assert len([line for line in snapshot.delta().history() if line.get("userMetadata")]) == 1, "one merge"


def traces_of_the_person(root: str) -> list[str]:
    """Files of the lake that hold the person, by reading whatever is there."""
    found = []
    for path in filter(Path.is_file, Path(root).rglob("*")):
        if path.suffix == ".parquet":
            text = json.dumps(pq.read_table(path, partitioning=None).to_pylist(), default=str)
        else:
            text = path.read_bytes().decode("latin-1")
        if str(WHO) in text:
            found.append(path.relative_to(root).as_posix())
    return found


class Steps:
    """Counts the durable acts, and kills before the deadly one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from delta.tables import DeltaMergeBuilder
        from pyspark.sql import DataFrameWriter

        self.names: list[str] = []
        self.deadly = 0
        for owner, name in (
            (LocalStorage, "write"),
            (DeltaTable, "create"),
            (DeltaTable, "restore"),
            (TableAlterer, "add_constraint"),
            (DataFrameWriter, "save"),
            (DeltaMergeBuilder, "execute"),
        ):
            monkeypatch.setattr(owner, name, self._step(name, getattr(owner, name)))
        monkeypatch.setattr("deltalake.write_deltalake", self._step("write_deltalake", write_deltalake))
        delete = self._step("delete", LocalStorage.delete)

        def of_a_file(storage: LocalStorage, key: str) -> None:
            if storage.exists(key):
                delete(storage, key)

        monkeypatch.setattr(LocalStorage, "delete", of_a_file)

    def _step(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.names.append(name)
            if len(self.names) == self.deadly:
                raise Killed
            return real(*args, **options)

        return counted

    def until(self, deadly: int) -> None:
        """Begin anew."""
        self.names, self.deadly = [], deadly


def test_a_kill_before_any_durable_act_loses_no_row_doubles_none_and_keeps_nothing_of_the_erased(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first one, the second, … and after the last, which is after each of them as well.

    The batch brings a row of a person who was erased: at the end no file holds it.
    """
    erase(lake, subject="user_id", value=WHO, reason="asked", requested_by="desk")
    batch = staged(lake, of_the_erased=1)
    assert traces_of_the_person(lake.root) == [batch.path]
    steps = Steps(monkeypatch)
    for number in range(1, 100):
        shutil.copytree(lake.root, tmp_path / "copy")
        copy = Lakehouse.open(tmp_path / "copy")
        steps.until(number)
        try:
            publish(copy, Rating, batch)
        except Killed:
            done = steps.names
            steps.until(0)
            assert_whole(copy, publish(copy, Rating, batch), of_the_erased=1)
            assert traces_of_the_person(copy.root) == [], done
            shutil.rmtree(copy.root)
        else:
            break  # it went through
    for _ in range(2):
        assert_whole(copy, publish(copy, Rating, batch), of_the_erased=1)
    assert (steps.names.count("save"), steps.names.count("execute")) == (1, 1)
    assert number == len(steps.names) + 1 > 10, "the test has gone through the steps"


@pytest.mark.parametrize("step", ["refuse", "merge"])
def test_after_kill_9_the_next_try_goes_on(lake: Lakehouse, step: str) -> None:
    batch = staged(lake)
    arguments = [sys.executable, "-c", PUBLISHER, lake.root, batch.model_dump_json(), step]
    killed = subprocess.run(arguments, capture_output=True, text=True, timeout=180, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert lake.publications("ratings") == [], "the process died at its step"
    for _ in range(2):
        assert_whole(lake, publish(lake, Rating, batch))


def test_a_withdrawn_batch_goes_through_the_gate_again_and_lands(lake: Lakehouse) -> None:
    """Also if a person was erased between, whose row its staged file then lacks."""
    one = stage(lake, Rating, rating(5, 5), batch_id="one", day=DAY)
    before = publish(lake, Rating, one)
    erase(lake, subject="user_id", value=WHO, reason="asked", requested_by="desk")
    batch = staged(lake, of_the_erased=2)
    publish(lake, Rating, batch)
    restore(lake, before.reference)
    assert lake.latest(Rating).arrow(["user_id"])["user_id"].to_pylist() == [5]
    again = publish(lake, Rating, batch)
    assert again == lake.latest(Rating) == publish(lake, Rating, batch)
    assert sorted(again.arrow(["user_id"])["user_id"].to_pylist()) == [1, 2, 3, 5]
    first, second = (p for p in lake.publications("ratings") if p.batch_id == "first")
    counts = [(p.rows_in, p.rows_published, p.rows_quarantined, p.rows_duplicate) for p in (first, second)]
    assert counts == [(8, 3, 4, 1), (6, 3, 2, 1)], "what was forgotten does not come again"
    fates = {r.quarantined.row_number: r.fate for r in refused_rows(lake, "ratings") if r.fate == "open"}
    assert set(fates) == {4, 5}
    assert ROW_NUMBER in pq.read_schema(Path(lake.root) / batch.path).names
    assert traces_of_the_person(lake.root) == []


def rating(user: int, item: int) -> pa.Table:
    times = pa.array([NOON], pa.timestamp("us", "UTC"))
    return pa.table({"user_id": [user], "item_id": [item], "rating": [4.0], "rated_at": times})
