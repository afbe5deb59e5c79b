"""The tutorial's project works as it stands: its files compile and register, and its commands do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main

ROOT = Path(__file__).parents[2]
BIN = Path(sys.prefix) / "bin"
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")

#: What the reader does, in order: a shell block, or a file to write.
STEPS = re.findall(r'(?ms)^```(sh|python title="([\w./]+)")\n(.*?)^```$', TEXT)


def environment(folder: Path) -> Mapping[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "LAKEHOUSE_", "MLFLOW_"))}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "HOME": str(folder), "PYTHONPATH": str(ROOT), "PATH": path}


def call(folder: Path, home: Path, script: str) -> str:
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as it is at the tutorial's end, not run."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init", "corner_shop"]).exit_code == 0
    folder = tmp_path / "corner_shop"
    for _, name, text in STEPS:
        if name:
            (folder / name).write_text(text, encoding="utf-8")
    yield folder


def test_the_tutorial_has_a_table_a_view_a_model_and_a_schedule() -> None:
    assert [name for _, name, _ in STEPS if name] == [
        f"corner_shop/{name}.py" for name in ("customers", "habits", "regulars", "weekly")
    ]


def test_the_view_and_the_model_say_what_the_rows_say(project: Path, tmp_path: Path) -> None:
    said = call(
        project,
        tmp_path,
        f"""{sys.executable} - <<'END'
from datetime import date
from corner_shop.customers import registered
from corner_shop.habits import CustomerHabits
from corner_shop.regulars import regulars
from corner_shop.source import visits_until
habits = CustomerHabits.compute(visits_until(date(2026, 1, 31)))
print(max(habits["visits_of_week"].to_pylist()), regulars(habits, registered()))
END""",
    )
    most, found = said.split(maxsplit=1)
    assert int(most) >= 2 and re.fullmatch(r"\{'north': [01]\.\d+, 'south': [01]\.\d+\}", found.strip())


def test_the_workflow_compiles_and_registers_with_its_schedule(project: Path, tmp_path: Path) -> None:
    commands = [line for kind, _, text in STEPS if kind == "sh" for line in text.splitlines()]
    said = call(project, tmp_path, next(line for line in commands if "--dry-run" in line))
    assert "weekly_regulars" in said and "corner_shop.regulars.fit_regulars" in said


def test_every_step_works_in_order(tmp_path: Path) -> None:
    """All of the tutorial after the demo: a minute or two, most of it Spark's."""
    folder = tmp_path
    said: dict[str, str] = {}
    for _, name, text in STEPS:
        if name:
            (folder / name).write_text(text, encoding="utf-8")
        elif "make demo" not in text:
            said[text] = call(folder, tmp_path, text)
            folder = folder / "corner_shop" if "cd corner_shop" in text else folder
    (weekly,) = (out for text, out in said.items() if "quarantine list" in text)
    assert "customer_id ge 1" in weekly and "customer_habits" in weekly
    (why,) = (out for text, out in said.items() if "millrace why" in text)
    assert "corner_shop/regulars.py" in why
