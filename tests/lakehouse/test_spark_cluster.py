"""The gate gives the same on a Spark standalone cluster, a master and two workers of the pyspark package, as by itself.

Executors are processes of their own there: the libraries must reach them, and they the driver.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from lakehouse.spark import java_home

ROOT = Path(__file__).parents[2]
#: Publishes ratings, two of them bad, and the users' statistics that follow from the good ones.
SCRIPT = """
import json, sys
from datetime import UTC, date, datetime, timedelta
import pyarrow as pa
from features.tables import UserStats
from lakehouse import Lakehouse
from lakehouse.gate.publish import publish, publish_rows
from lakehouse.gate.quarantine import refused_rows
from lakehouse.gate.staging import stage
from lakehouse.ledger import Metric
from lakehouse.spark import spark_session, stop_spark
from lakehouse.tables import Rating

lake = Lakehouse.open(sys.argv[1])
day = date(1998, 3, 1)
times = [datetime(1998, 2, 20 + n % 5, tzinfo=UTC) + timedelta(minutes=n) for n in range(25)]
ratings = pa.table({
    "user_id": [1 + n % 5 for n in range(24)] + [99],
    "item_id": [1 + n // 5 for n in range(24)] + [1],
    "rating": [2.0 + n % 4 for n in range(23)] + [6.0, 3.0],
    "rated_at": pa.array(times, pa.timestamp("us", "UTC")),
})
published = publish(lake, Rating, stage(lake, Rating, ratings, batch_id="first", day=day))
known = published.arrow()
stats = publish_rows(lake, UserStats, lambda: UserStats.compute(known), batch_id="stats", day=day)
executors = spark_session().sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1

def rows(table):
    return sorted((list(map(str, row.values())) for row in table.to_pylist()))

print(json.dumps({
    "executors": executors,
    "found": {
        "ratings": rows(published.arrow()),
        "user_stats": rows(stats.arrow()),
        "refused": sorted([r.quarantined.row, sorted(r.quarantined.rules)] for r in refused_rows(lake, "ratings")),
        "metrics": sorted([m.metric_id, m.value] for m in lake.ledger.read(Metric)),
        "counts": sorted(
            [p.publication_id, p.version, p.published, p.rows_in, p.rows_published, p.rows_quarantined]
            for p in lake.publications() if p.batch_id != "seed"
        ),
    },
}))
stop_spark()
"""


def said(process: subprocess.Popen[str], log: Path, pattern: str) -> str:
    """Wait until a process has written what matches, at most a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = re.search(pattern, log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[found.lastindex or 0]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace")[-3000:])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a master with two workers of one core and 1 GiB each, on free ports of the loopback address."""
    folder = tmp_path_factory.mktemp("cluster")
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))},
        "JAVA_HOME": str(java_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "PYSPARK_PYTHON": sys.executable,
    }
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *words: str) -> tuple[subprocess.Popen[str], Path]:
        log = folder / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [str(spark_class), *words, "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"],
                env=environment,
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started.append(process)
        return process, log

    try:
        url = said(*start("master", "org.apache.spark.deploy.master.Master"), r"Starting Spark master at (spark://\S+)")
        one = ("--cores", "1", "--memory", "1g")
        workers = [
            start(f"worker-{n}", "org.apache.spark.deploy.worker.Worker", url, *one, "--work-dir", str(folder / str(n)))
            for n in range(2)
        ]
        for process, log in workers:
            said(process, log, "Successfully registered with master")
        yield url
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def result(seed: Path, folder: Path, **settings: str) -> dict[str, object]:
    """What the script found, in a process of its own on a copy of the lake."""
    shutil.copytree(seed, folder / "lake")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "SPARK_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "lake")],
        env={**inherited, "PYTHONPATH": str(ROOT), "MILLRACE_STATE": str(folder), **settings},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_gate_gives_the_same_rows_verdicts_and_metrics_on_two_workers(
    cluster: str, seed_folder: Path, tmp_path: Path
) -> None:
    alone = result(seed_folder, tmp_path / "alone", MILLRACE_SPARK_MASTER="local[2]")
    spread = result(seed_folder, tmp_path / "spread", MILLRACE_SPARK_MASTER=cluster, SPARK_LOCAL_IP="127.0.0.1")
    assert (alone["executors"], spread["executors"]) == (0, 2)
    assert spread["found"] == alone["found"]
    found = spread["found"]
    assert isinstance(found, dict)
    assert len(found["ratings"]) == 23 and len(found["refused"]) == 2 and found["user_stats"]
