"""The files that editors, hooks and hosts read are well-formed, and fetch nothing that the lock does not pin."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def test_every_hook_is_local_and_runs_a_program_of_the_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert {"ruff", "ruff-format", "mypy", "lint-imports", "api", "secrets"} <= set(hooks)
    for hook in hooks.values():
        assert hook["language"] == "system"
        program, _, rest = hook["entry"].partition(" ")
        assert program.startswith(".venv/bin/")
        assert Path(sys.executable).with_name(Path(program).name).exists(), program
        for file in re.findall(r"tests/\S+\.py", rest):
            assert (ROOT / file).is_file()


def test_the_dev_container_names_an_image_without_a_host_and_begins_as_anybody_would() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(re.sub(r"(?m)^\s*//.*$", "", text))
    assert re.fullmatch(r"python:3\.11-\w+", container["image"])
    assert container["postCreateCommand"] == "make setup"


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_each_issue_form_asks_for_something(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) >= 3


def test_every_target_of_make_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"(?m)^\.PHONY: (.+)$", makefile)
    assert phony is not None
    explained = set(re.findall(r"(?m)^([a-z]+):.*## ", makefile))
    assert set(phony.group(1).split()) == explained
