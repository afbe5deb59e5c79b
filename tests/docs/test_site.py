"""The documentation builds without a warning, shows all that is public, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cli.main import VERBS
from lakehouse.ledger import SYSTEM_TABLES

ROOT = Path(__file__).parents[2]

#: What a browser fetches by itself when it shows a page; links that a reader follows may lead anywhere.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc="(?P<src>[^"]*)"|<link\b(?P<link>[^>]*)>"""
    r"""|@import\s+(?:url\()?["']?(?P<style>[^"')]+)|url\(["']?(?P<url>https?:[^"')]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "WARNING" not in done.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def test_every_document_is_a_page(site: Path) -> None:
    for document in (ROOT / "docs").rglob("*.md"):
        name = document.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / re.sub(r"README\.html$", "index.html", name)).is_file(), name
    for name in ("index", "project/architecture", "project/contributing", "project/changelog", "project/security"):
        assert (site / f"{name}.html").is_file(), name


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    found = []
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        assert 'class="mermaid"' not in text, "the theme would fetch a library for it"
        for hit in _FETCHED.finditer(text):
            asked = hit["src"] or hit["style"] or hit["url"] or ""
            if hit["link"] and re.search(r'rel="(?:stylesheet|icon|preload|preconnect|modulepreload)"', hit["link"]):
                asked = hit["link"]
            if re.search(r"(?:https?:)?//", asked):
                found.append(f"{path.relative_to(site)}: {asked}")
    assert found == []


def test_the_reference_shows_every_public_module_table_and_verb(site: Path, api: ModuleType) -> None:
    for package, modules in api.PUBLIC.items():
        text = page(site, f"reference/{package}.html")
        assert all(f">{module}<" in text for module in modules), package
    assert 'id="lakehouse.snapshot.Snapshot"' in page(site, "reference/lakehouse.html")
    tables = page(site, "reference/tables.html")
    for name in (*SYSTEM_TABLES, "users", "movies", "ratings", "movie_cards", "feedback", "user_stats", "item_stats"):
        assert f'id="{name}"' in tables, name
    commands = page(site, "reference/commands.html")
    assert all(f'id="millrace-{verb}"' in commands for verb in VERBS)


def test_a_link_to_a_source_leads_to_its_copy(site: Path) -> None:
    assert 'href="../source/lakehouse/snapshot.py.txt"' in page(site, "concepts/snapshots.html")
    copied = (site / "source/lakehouse/snapshot.py.txt").read_bytes()
    assert copied == (ROOT / "lakehouse" / "snapshot.py").read_bytes()
