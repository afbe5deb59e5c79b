"""The documents point to what is there, and no file names a folder of one machine or a package index."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
#: Paths in backticks that look like one of the project's files or folders.
_NAMED = re.compile(r"`((?:lakehouse|features|models|serving|tasks|workflows|cli|docs|tests|benchmarks)/[\w./-]*)`")
_FORBIDDEN = {
    "a folder of one machine": re.compile(r"/(?:root|home|Users|work)/\w"),
    "a package index": re.compile(r"https?://\S*(?:pypi|pythonhosted|/simple\b)|--(?:extra-)?index-url"),
}


@cache
def project_files() -> tuple[Path, ...]:
    """The files that Git tracks or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))


def anchors(path: Path) -> set[str]:
    """The headings of a document as a Git host makes anchors of them."""
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_to_a_file_and_heading(document: str) -> None:
    source = ROOT / document
    for target in _LINK.findall(source.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = source.parent / name if name else source
        assert path.exists(), f"{document} links to {target}"
        assert path.resolve().is_relative_to(ROOT), f"{document} links out of the project: {target}"
        assert not anchor or anchor in anchors(path), f"{document} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_of_the_project_that_is_named_is_there(document: str) -> None:
    for name in _NAMED.findall((ROOT / document).read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{document} names {name}"


def test_the_decisions_are_numbered_and_listed() -> None:
    folder = ROOT / "docs" / "adr"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    listed = _LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == records
    for name in records:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {name[:4]}: ")
        assert "\nStatus: " in text
        assert all(f"\n## {part}\n" in text for part in ("Context", "Decision", "Consequences")), name


@pytest.mark.parametrize("what", sorted(_FORBIDDEN))
def test_no_file_names(what: str) -> None:
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image
        found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in _FORBIDDEN[what].finditer(text)]
    assert not found
