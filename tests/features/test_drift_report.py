"""Evidently's report stands beside the verdicts: real, self-contained, and made without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import write_deltalake

from cli.main import main
from features.drift import drift
from features.drift_report import write_report
from features.errors import DriftColumnError
from lakehouse import Lakehouse

#: Refuses every connection but those between processes of the machine.
_ALONE = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"a connection was tried: {arguments}")
sys.addaudithook(watch)
from cli.main import main
main()
"""


def sample(shift: float, rows: int = 600) -> pa.Table:
    random = np.random.default_rng(3)
    known = datetime(1998, 3, 1, tzinfo=UTC)
    times = [known + timedelta(hours=hour) for hour in range(rows)]
    return pa.table(
        {
            "spent": random.normal(shift, 1, rows),
            "plan": random.choice(["free", "plus"], rows),
            "active": random.random(rows) < 0.5,
            "genres": pa.array([["Drama", "Crime"] if row % 2 else None for row in range(rows)]),
            "known_at": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    """A table at two versions; its number has moved by a standard deviation in the second."""
    lake = Lakehouse.open(tmp_path / "lake", create=True)
    for shift in (0.0, 1.0):
        write_deltalake(lake.uri("shop"), sample(shift), mode="overwrite")
    return lake


def test_two_versions_are_compared_and_drawn_without_a_network(lake: Lakehouse, tmp_path: Path) -> None:
    report = tmp_path / "drift.html"
    words = ["--lake", lake.root, "drift", "shop@0", "shop@1", "--format", "csv", "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    verdicts = {line.split(",")[0]: line.split(",")[1] for line in done.stdout.splitlines()[1:]}
    assert verdicts == {"spent": "true", "plan": "false", "active": "false", "genres": "false"}
    page = report.read_text(encoding="utf-8")
    # Evidently's own verdicts by column, and nothing that a browser would fetch.
    assert all(name in page for name in verdicts) and "Drift is detected for" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?https?:", page)
    assert not list(tmp_path.glob(".config/evidently*")) and [f.name for f in tmp_path.glob("*.part")] == []


def test_the_newest_days_of_one_version_are_compared_with_the_days_before(lake: Lakehouse) -> None:
    words = ["--lake", lake.root, "drift", "shop@0", "--days", "10", "--against", "12", "--column", "spent"]
    done = CliRunner().invoke(main, [*words, "--format", "csv"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (row,) = done.stdout.splitlines()[1:]
    assert row.endswith(f",{12 * 24},{10 * 24}") and row.startswith("spent,false,")


def test_what_has_no_value_on_one_side_is_not_drawn_and_alone_refused(tmp_path: Path) -> None:
    full, empty = sample(0.0), sample(0.0).slice(0, 0)
    with pytest.raises(DriftColumnError, match="nothing to draw of spent, plan"):
        write_report(tmp_path / "report.html", full, empty, drift(full, empty, ["spent", "plan"]))
    assert list(tmp_path.iterdir()) == []
