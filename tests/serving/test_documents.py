"""The how-to and the runbooks can be followed: each command runs against a service; each alert has its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from tests.serving.conftest import BIN, Night, command
from tests.serving.test_monitor import night as leave_a_night

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "millrace.rules.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"))


def test_the_commands_of_the_how_to_and_of_each_runbook_work(night: Night, tmp_path: Path) -> None:
    # Landing and deployments write into the lake: a copy. Feast's pins name the tables by path: the features stay.
    lake = tmp_path / "lake"
    shutil.copytree(night.folder / "lake", lake)
    leave_a_night(Lakehouse.open(lake), date(1998, 4, 20), 0.3)
    state = tmp_path / "state"
    with command(night, state, LAKEHOUSE_ROOT=str(lake)) as (_, url):
        environment = {
            **night.environment(state),
            "LAKEHOUSE_ROOT": str(lake),
            "MILLRACE_SERVING_URL": url,
            "PATH": f"{BIN}:/usr/bin:/bin",
        }
        work = tmp_path / "work"
        work.mkdir()
        for page in (ROOT / "docs" / "how-to-serving.md", *PAGES):
            for example in blocks(page, "python"):
                done = subprocess.run(
                    [sys.executable, "-c", example],
                    cwd=work,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=300,
                )
                assert done.returncode == 0, f"{page.name}: {done.stdout}{done.stderr}"
            for block in blocks(page, "bash"):
                done = subprocess.run(
                    ["bash", "-euc", block], cwd=work, env=environment, capture_output=True, text=True, timeout=600
                )
                assert done.returncode == 0, f"{page.name}: {block}{done.stdout}{done.stderr}"
                assert "Traceback" not in done.stdout + done.stderr


def test_every_alert_names_a_page_and_every_page_has_an_alert_and_its_five_parts() -> None:
    rules = RULES.read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    named = re.findall(r"runbook: (\S+)", rules)
    assert len(named) == len(alerts) > 7
    assert {ROOT / name for name in named} == set(PAGES)
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert all(alert in index for alert in alerts)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert all(f"**{part}.**" in text for part in ("Symptom", "First look", "Decision", "Act", "Verify")), page
        assert blocks(page, "bash")


def test_the_rules_do_what_their_cases_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    for words in (["check", "rules", RULES.name], ["test", "rules", "millrace.rules.test.yml"]):
        done = subprocess.run([promtool, *words], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboard_name_metrics_that_the_service_has() -> None:
    from serving.metrics import Metrics

    metrics = Metrics()
    known = {metric.name for metric in metrics.registry.collect()}
    known |= set(re.findall(r"record: (\S+)", RULES.read_text(encoding="utf-8")))
    board = json.loads((ROOT / "deploy" / "grafana" / "serving.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(board["panels"]) >= 12
    for text in (RULES.read_text(encoding="utf-8"), *asked):
        for name in re.findall(r"\bmillrace[_:][a-z0-9_:]+", text):
            assert re.sub(r"_(total|bucket|sum|count)$", "", name) in known or name in known, name
