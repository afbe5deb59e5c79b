"""How does a new project begin? ``millrace init``: a small one that runs at once, to be changed step by step."""

from __future__ import annotations

import keyword
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

#: Each file of a project, by the template that it is made from.
FILES = {
    "flyte.yaml.txt": "flyte.yaml",
    "gitignore.txt": ".gitignore",
    "README.md.txt": "README.md",
    "init.txt": "{name}/__init__.py",
    "tables.py.txt": "{name}/tables.py",
    "source.py.txt": "{name}/source.py",
    "model.py.txt": "{name}/model.py",
    "workflow.py.txt": "{name}/workflow.py",
}


@click.command()
@click.argument("name")
def init(name: str) -> None:
    """Write a small project into the new folder NAME: a table, a feature view, a model, a workflow."""
    from cli.errors import InitError

    folder = Path(name)
    package = folder.name
    if not package.isidentifier() or keyword.iskeyword(package) or package != package.lower():
        raise InitError.not_a_name(package)
    if package in sys.stdlib_module_names or find_spec(package) is not None:
        raise InitError.taken(package)
    if folder.exists():
        raise InitError.exists(str(folder))
    templates = Path(__file__).with_name("scaffold")
    for template, place in FILES.items():
        target = folder / place.format(name=package)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / template).read_text(encoding="utf-8")
        target.write_text(Template(text).substitute(name=package), encoding="utf-8")
    click.echo(f"{folder} is written. Next:")
    click.echo(f"  cd {folder}")
    click.echo(f"  pyflyte -c flyte.yaml run {package}/workflow.py daily")
