"""The checklist names commands that the command line knows and tests that exist, for each of the ten practices."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "checklist.md").read_text(encoding="utf-8")
PARTS = ("Done", "Shown by", "Guarded by", "Missing")
_HEADINGS = re.findall(r"(?m)^## (.+)$", TEXT)
SECTIONS = dict(zip(_HEADINGS, re.split(r"(?m)^## .+$", TEXT)[1:], strict=True))


def part(section: str, name: str) -> str:
    """One of a section's four parts, on one line."""
    found = re.search(rf"(?ms)^\*\*{name}\.?\*\*(.*?)(?=^\*\*|\Z)", SECTIONS[section])
    assert found is not None, f"{section} lacks {name}"
    return " ".join(found.group(1).split())


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


COMMANDS = [command for section in SECTIONS for command in quoted(part(section, "Shown by"))]
TESTS = [test for section in SECTIONS for test in quoted(part(section, "Guarded by"))]


def test_there_are_ten_practices_with_four_parts_each() -> None:
    assert [heading.partition(".")[0] for heading in SECTIONS] == [str(number) for number in range(1, 11)]
    for section in SECTIONS:
        assert all(part(section, name) for name in PARTS)
        assert quoted(part(section, "Shown by")) and len(quoted(part(section, "Guarded by"))) >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_one_that_there_is(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
        assert words[0] in targets
        return
    assert program == "millrace"
    parse(main, "millrace", words)


@pytest.mark.parametrize("command", ["millrace histories ratings", "millrace card --colour", "millrace deploy stag"])
def test_a_command_that_there_is_not_would_be_noticed(command: str) -> None:
    program, *words = shlex.split(command)
    with pytest.raises(click.UsageError):
        parse(main, program, words)


def parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Read a command line down to its last verb, without doing anything; click.UsageError if it can't be read."""
    context = command.make_context(name, list(words), parent=parent)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        verb, found, rest = command.resolve_command(context, rest)
        assert found is not None and verb is not None
        parse(found, verb, rest, context)


@pytest.mark.parametrize("test", TESTS)
def test_each_test_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
