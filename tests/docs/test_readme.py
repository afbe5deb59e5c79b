"""What the documents tell a reader to type works: each command and each Python example, on a lake after one night."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name != "CHANGELOG.md"
)


def blocks(document: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def in_order(document: str) -> list[tuple[str, str]]:
    """(language, text) of each shell and Python block."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"(?ms)^```(bash|python)\n(.*?)^```$", text)


def commands(document: str) -> list[str]:
    """Each line of the document's shell blocks, without comments."""
    return [line for block in blocks(document, "bash") for line in lines_of(block)]


def lines_of(block: str) -> list[str]:
    """A shell block's lines, without comments."""
    return [line for line in block.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def needs_a_network(command: str) -> bool:
    return command.startswith(("git clone ", "make "))


#: Documents whose commands or examples change the lake or build on each other: run in order, on a copy.
CHANGING = ("docs/how-to-feature-engineer.md", "docs/how-to-repair-and-erase.md")
#: Documents whose commands ask a running service; tests/serving/test_documents.py runs them beside one.
SERVED = ("docs/how-to-serving.md", *(name for name in DOCUMENTS if name.startswith("docs/runbooks/")))

TYPED = [(document, command) for document in DOCUMENTS for command in commands(document)]
EXAMPLES = [
    pytest.param(example, id=f"{document}-{number}")
    for document in DOCUMENTS
    if document not in (*CHANGING, *SERVED)
    for number, example in enumerate(blocks(document, "python"))
]


def run(words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command; the test fails with its output if it does."""
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_shows_commands_and_a_python_example() -> None:
    assert len(commands("README.md")) >= 10
    assert blocks("README.md", "python")


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = {shlex.split(command, comments=True)[1] for _, command in TYPED if command.startswith("make ")}
    prose = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z]+)", (ROOT / document).read_text(encoding="utf-8"))
    }
    assert named
    assert named | prose <= targets


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("document", "command"),
    [typed for typed in TYPED if not needs_a_network(typed[1]) and typed[0] not in (*CHANGING, *SERVED)],
)
def test_each_command_works(document: str, command: str, night_state: Mapping[str, str], tmp_path: Path) -> None:
    # What is written into the working folder must not land in the checkout.
    folder = ROOT if command.startswith(("pyflyte ", ".venv/bin/")) else tmp_path
    run(["bash", "-euc", command.removeprefix(".venv/bin/")], folder, night_state)


@pytest.mark.nightly
@pytest.mark.parametrize("document", CHANGING)
def test_commands_and_examples_that_build_on_each_other_work_in_order(
    document: str, night_state: Mapping[str, str], tmp_path: Path
) -> None:
    # As in a checkout: the state beside Feast's configuration.
    shutil.copytree(night_state["MILLRACE_STATE"], tmp_path / ".millrace")
    (tmp_path / "features").mkdir()
    for name in ("feature_store.yaml", "definitions.py", ".feastignore"):
        shutil.copy(ROOT / "features" / name, tmp_path / "features")
    (tmp_path / "flyte.yaml").touch()
    environment = {**night_state, "MILLRACE_STATE": str(tmp_path / ".millrace"), "PYTHONPATH": str(ROOT)}
    for kind, block in in_order(document):
        if kind == "python":
            run([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block], tmp_path, environment)
            continue
        for command in lines_of(block):
            run(["bash", "-euc", command], tmp_path, environment)


@pytest.mark.nightly
@pytest.mark.parametrize("example", EXAMPLES)
def test_each_python_example_runs(example: str, night_state: Mapping[str, str], tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    run([sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)], tmp_path, night_state)
