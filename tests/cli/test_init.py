"""A new project runs at once, is cached, and says why it ran again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.prefix) / "bin"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Project", "can't be the name"),
        ("class", "can't be the name"),
        ("json", "is installed already"),
        ("lakehouse", "is installed already"),
        ("there", "is there already"),
    ],
)
def test_a_bad_name_is_refused_in_one_sentence_and_nothing_is_written(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    done = CliRunner().invoke(main, ["init", name])
    assert done.exit_code == 1
    assert said in done.output and "MR-INIT" in done.output
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def call(folder: Path, environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_new_project_runs_is_cached_and_says_why_it_ran_again(tmp_path: Path) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "LAKEHOUSE_", "MLFLOW_"))}
    environment = {
        **inherited,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    call(tmp_path, environment, "millrace", "init", "corner_shop")
    project = tmp_path / "corner_shop"
    run = ("pyflyte", "-c", "flyte.yaml", "run", "corner_shop/workflow.py", "daily")
    first = call(project, environment, *run)
    assert "customers=20" in first.stdout
    again = call(project, environment, *run)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert "fit" not in again.stderr
    tables = call(project, environment, "millrace", "tables", "--format", "csv").stdout
    assert "visits" in tables and "customer_stats" in tables
    model = project / "corner_shop" / "model.py"
    model.write_text(model.read_text().replace("PRIOR_VISITS = 3", "PRIOR_VISITS = 5"))
    changed = call(project, environment, *run)
    assert changed.stdout.splitlines()[-1] != first.stdout.splitlines()[-1]
    why = call(project, environment, "millrace", "why", "fit").stdout
    assert "corner_shop/model.py" in why and "code" in why
