"""How do the documents become a site? The pages that are made and the links that are turned, beside mkdocs.yml.

Made at build, never committed: the project's own pages at the root (README.md becomes the home page), the reference of
the public modules (docs/api.py), of the commands and of the tables. A link from a document to a file of the project
leads to a copy of that file in the site. Nothing is fetched, at build or when somebody reads.
"""

from __future__ import annotations

import posixpath
import re
import sys
from importlib import import_module
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from api import PUBLIC  # noqa: E402  (found by the line above)

#: The documents at the project's root, and the page that each becomes.
AT_ROOT = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
}
_PAGES = {page: document for document, page in AT_ROOT.items()}
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"(?ms)^```.*?^```$")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made here."""
    made = {page: (ROOT / document).read_text(encoding="utf-8") for document, page in AT_ROOT.items()}
    made |= {f"reference/{package}.md": _package(package) for package in PUBLIC}
    made |= {"reference/commands.md": _commands(), "reference/tables.md": _tables()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for page in [file for file in files if file.is_documentation_page()]:
        for path in _linked(_origin(page.src_uri), page.content_string):
            if files.get_file_from_path(_copy(path)) is None and path.is_file():
                files.append(
                    File.generated(config, _copy(path), abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV)
                )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn each link to a file outside docs/ towards that file's page or copy in the site; a folder has neither."""
    here, origin = page.file.src_uri, _origin(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        target, _, anchor = match.group(1).partition("#")
        path = _path(origin, target)
        if path is None:
            return match.group(0)
        place = _place(path)
        to = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"]({to}{'#' + anchor if anchor else ''})"

    parts, last = [], 0
    for block in _FENCED.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[last : block.start()]), block.group(0)]
        last = block.end()
    return "".join([*parts, _LINK.sub(turned, markdown[last:])])


def _origin(page: str) -> str:
    """The file that a page is made from, relative to the project's root."""
    return _PAGES.get(page, f"docs/{page}")


def _path(origin: str, target: str) -> Path | None:
    """The project's file that a relative link leads to; None for any other link."""
    if not target or "://" in target or target.startswith(("mailto:", "/")):
        return None
    return ROOT / posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def _place(path: Path) -> str:
    """Where a file of the project is in the site."""
    name = path.relative_to(ROOT).as_posix()
    if name in AT_ROOT:
        return AT_ROOT[name]
    if name.startswith("docs/") and not name.endswith((".py", ".txt")):
        inside = name.removeprefix("docs/")
        return f"{inside}/README.md" if path.is_dir() else inside
    return _copy(path)


def _copy(path: Path) -> str:
    """Where the copy of a file lies; sources as text, so that a browser shows them."""
    name = path.relative_to(ROOT).as_posix()
    return f"source/{name}" if path.suffix in (".png", ".txt") else f"source/{name}.txt"


def _linked(origin: str, text: str) -> set[Path]:
    found = {_path(origin, target.partition("#")[0]) for target in _LINK.findall(_FENCED.sub("", text))}
    return {path for path in found if path is not None and _place(path) == _copy(path)}


def _package(package: str) -> str:
    """The reference of one package's public modules, by mkdocstrings."""
    head = f"# {package}\n\n{(import_module(package).__doc__ or '').strip()}\n"
    return head + "".join(f"\n## {module}\n\n::: {module}\n" for module in PUBLIC[package])


def _commands() -> str:
    """What each verb of the command says of itself."""
    from cli.main import main

    parts = ["# Commands\n\nWhat `millrace VERB --help` says.\n"]
    context = click.Context(main, info_name="millrace")
    for name in main.list_commands(context):
        parts += _help(context, main.get_command(context, name), name)
    return "\n".join(parts)


def _help(parent: click.Context, command: click.Command | None, name: str) -> list[str]:
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
    level = "##" if parent.parent is None else "###"
    parts = [f"{level} {context.command_path}\n", f"```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for one in command.list_commands(context):
            parts += _help(context, command.get_command(context, one), one)
    return parts


def _tables() -> str:
    """What each declared table promises, by the compiler behind ``millrace describe``."""
    for module in ("lakehouse.tables", "features.tables", "features.drift"):
        import_module(module)
    from lakehouse.contracts.reference import markdown
    from lakehouse.contracts.table import declared_tables
    from lakehouse.ledger import SYSTEM_TABLES

    own, system = [], []
    for name, row in declared_tables().items():
        text = markdown(row.contract).replace("# ", "### ", 1)
        known_to_ledger = name in SYSTEM_TABLES or not row.__module__.endswith(".tables")
        (system if known_to_ledger else own).append((name, text))
    head = "# Tables\n\nMade from the row models. Columns, rules and comments are those of the stored Delta tables."
    parts = [head, "## Data", *(text for _, text in sorted(own))]
    parts += ["## The ledger", *(text for _, text in sorted(system))]
    return "\n\n".join([*parts, _answers()]) + "\n"


def _answers() -> str:
    """The one ledger table that is written without a row model: the language model runs where no lake is."""
    from models.llm.store import SCHEMA

    head = (
        "### llm_responses\n\nOne answer of a language model.\n\n- key: answer_key\n\n| column | type |\n| --- | --- |"
    )
    return "\n".join([head, *(f"| {field.name} | {field.type} |" for field in SCHEMA)])
