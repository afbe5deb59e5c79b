from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import Lakehouse
from lakehouse.ledger import Metric
from lakehouse.publish import publish
from lakehouse.quarantine import quarantined
from lakehouse.staging import Batch, stage
from lakehouse.tables import Rating

NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)

#: Publishes a batch in a process that ends itself, as by kill -9, before or after one step.
PUBLISHER = """
import os, signal, sys
from pathlib import Path
import lakehouse.publish as gate
from lakehouse import Lakehouse
from lakehouse.ledger import Ledger, Publication
from lakehouse.staging import Batch
from lakehouse.tables import Rating

root, batch, when, step = sys.argv[1:]
owner, name = (Ledger, "append") if step == "append" else (gate, step)
real = getattr(owner, name)

def deadly(*args):
    if step == "append" and not isinstance(args[1][0], Publication):
        return real(*args)
    if when == "after":
        real(*args)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, deadly)
gate.publish(Lakehouse.open(Path(root)), Rating, Batch.model_validate_json(batch))
"""


@pytest.fixture
def lake(seed_folder: Path, tmp_path: Path) -> Lakehouse:
    shutil.copytree(seed_folder, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


@pytest.fixture
def batch(lake: Lakehouse) -> Batch:
    """Three good keys, one of them twice, and two bad rows."""
    rows = pa.table(
        {
            "user_id": [1, 2, 3, 3, 1, 99],
            "item_id": [1, 1, 1, 1, 2, 1],
            "rating": [4.0, 3.0, 2.0, 1.0, 6.0, 1.0],
            "rated_at": pa.array([NOON] * 6, pa.timestamp("us", "UTC")),
        }
    )
    return stage(lake, Rating, rows, batch_id="first", day=date(1998, 3, 1))


@pytest.mark.parametrize(
    ("when", "step"),
    [("after", "refuse"), ("after", "merge"), ("after", "audit"), ("before", "append"), ("after", "append")],
)
def test_a_kill_at_any_step_loses_no_row_and_doubles_none(lake: Lakehouse, batch: Batch, when: str, step: str) -> None:
    arguments = [sys.executable, "-c", PUBLISHER, lake.root, batch.model_dump_json(), when, step]
    killed = subprocess.run(arguments, capture_output=True, text=True, timeout=180, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    ended = (when, step) == ("after", "append")
    assert bool(lake.publications("ratings")) is ended, "the process died at its step"

    snapshot = publish(lake, Rating, batch)
    for _ in range(2):
        rows = {(row["user_id"], row["item_id"]): row["rating"] for row in snapshot.arrow().to_pylist()}
        assert rows == {(1, 1): 4.0, (2, 1): 3.0, (3, 1): 1.0}
        assert snapshot.count() == 3
        refused = quarantined(lake, "ratings")
        assert refused is not None
        found = {row["row_number"]: json.loads(row["row"])["rating"] for row in refused.arrow().to_pylist()}
        assert (refused.count(), found) == (2, {4: 6.0, 5: 1.0})
        (one,) = lake.publications("ratings")
        assert (one.rows_in, one.rows_published, one.rows_quarantined, one.rows_duplicate) == (6, 3, 2, 1)
        assert (one.version, one.published) == (snapshot.version, True)
        metrics = [m.metric_id for m in lake.ledger.read(Metric)]
        assert len(metrics) == len(set(metrics)) > 0
        assert lake.latest(Rating) == snapshot
        merges = [line for line in snapshot.delta().history() if line.get("userMetadata")]
        assert len(merges) == 1
        snapshot = publish(lake, Rating, batch)
