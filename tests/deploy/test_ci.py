"""The workflows of the forge can be read, ask for no more rights than they need, and name what is there.

None was executed: they were never pushed to a forge.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.prefix) / "bin"
#: What every runner has.
ON_THE_RUNNER = {"sudo", "docker", "for", "do", "done", "git", "apt-get"}


def workflow(path: Path) -> dict[Any, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(path)["jobs"]
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job.get("steps", ())


def commands(path: Path) -> Iterator[list[str]]:
    """Each command of each script, as words."""
    for step in steps(path):
        for line in re.split(r"\n|&&|;", step.get("run", "")):
            words = shlex.split(re.sub(r"^\s*(do|done)\b", "", line), comments=True)
            if words:
                yield words


each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def test_all_parts_are_there() -> None:
    assert [path.stem for path in FILES] == ["audit", "ci", "register", "release"]


@each_file
def test_rights_are_declared_and_only_to_read(path: Path) -> None:
    top = workflow(path)
    assert top["permissions"] == {"contents": "read"}
    assert all(job.get("permissions", {"contents": "read"}) == {"contents": "read"} for job in jobs(path).values())
    # With a pull request's own code, nothing that has a secret may run.
    assert "pull_request_target" not in top[True]  # YAML reads `on` as true


@each_file
def test_every_action_is_pinned_by_its_whole_version_and_keeps_no_credentials(path: Path) -> None:
    for used in [step["uses"] for step in steps(path) if "uses" in step]:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@v\d+\.\d+\.\d+", used), used
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    assert all("timeout-minutes" in job or "uses" in job for job in jobs(path).values())


@each_file
def test_every_command_exists(path: Path) -> None:
    targets = set(re.findall(r"(?m)^([\w./]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for words in commands(path):
        program = words[0]
        if program == "make":
            assert set(words[1:]) <= targets, words
        elif program.startswith(".venv/bin/"):
            assert (BIN / program.removeprefix(".venv/bin/")).exists(), words
        else:
            assert program in ON_THE_RUNNER, words
        for file in [words[n + 1] for n, word in enumerate(words[:-1]) if word in ("-f", "-c")]:
            assert (ROOT / file).is_file() or program.endswith("python"), words
        for file in (word for word in words if word.startswith("tests/")):
            assert (ROOT / file).is_file(), words
    for job in jobs(path).values():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
    built = re.findall(r"--target (\w+)", path.read_text(encoding="utf-8"))
    stages = re.findall(r"(?m)^FROM .* AS (\w+)$", (ROOT / "deploy" / "docker" / "Dockerfile").read_text())
    assert set(built) <= set(stages)


@each_file
def test_no_secret_is_in_a_command_line_or_printed(path: Path) -> None:
    for step in steps(path):
        run = step.get("run", "")
        assert "${{" not in run, "what an expression holds would become part of the script"
        secret = [name for name, value in step.get("env", {}).items() if "secrets." in str(value)]
        assert not any(name in run for name in secret)
        assert not re.search(r"\b(echo|printenv|env|set -x)\b", run)
    everywhere = [workflow(path).get("env", {}), *(job.get("env", {}) for job in jobs(path).values())]
    assert not any("secrets." in str(value) for env in everywhere for value in env.values()), "for one step alone"


def test_a_change_is_linted_tested_documented_and_packaged() -> None:
    assert set(jobs(ROOT / ".github/workflows/ci.yml")) == {"lint", "test", "docs", "package"}
    words = [" ".join(one) for one in commands(ROOT / ".github/workflows/ci.yml")]
    assert {"make lint", "make test"} <= set(words)
    assert any("pyflyte" in one and " package " in one for one in words)


def test_a_tag_is_promoted_in_order_each_domain_behind_its_gate_and_its_smoke_test() -> None:
    found = jobs(ROOT / ".github/workflows/release.yml")
    order = ["build", "development", "staging", "production"]
    assert list(found) == order
    for before, after in pairwise(order):
        assert found[after]["needs"] == before
        assert found[after]["with"] == {"domain": after}
    (register,) = jobs(ROOT / ".github/workflows/register.yml").values()
    assert register["environment"] == "${{ inputs.domain }}"
    scripts = [step["run"] for step in register["steps"] if "run" in step]
    assert "register workflows" in scripts[-2] and 'remote-launchplan "smoke_test:$TAG"' in scripts[-1]
    assert "--wait-execution" in scripts[-1]


def test_the_smoke_test_is_a_launch_plan() -> None:
    from workflows.smoke import smoke_test

    assert smoke_test.name == "smoke_test"
    assert smoke_test.schedule is None
