"""What may others build on? The modules listed here, each public name of which has its line in docs/api.txt.

    python docs/api.py            # print the list
    python docs/api.py --write    # write it: `make api`

Read from the sources by griffe, without importing them. A test compares the file with the sources, so that a name
that is changed or taken away is changed here too, in the same commit, where a reviewer sees it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("api.txt")

#: The public modules by package; the reference has a page for each package, in this order.
PUBLIC = {
    "lakehouse": (
        "lakehouse",
        "lakehouse.contracts.table",
        "lakehouse.contracts.expectations",
        "lakehouse.contracts.arrow",
        "lakehouse.snapshot",
        "lakehouse.lake",
        "lakehouse.gate.publish",
        "lakehouse.query.connection",
        "lakehouse.query.diff",
        "lakehouse.errors",
        "lakehouse.settings",
    ),
    "features": (
        "features.feature_view",
        "features.aggregations",
        "features.store",
        "features.training_set",
        "features.drift",
        "features.testing",
    ),
    "models": (
        "models.recommender",
        "models.evaluation",
        "models.fairness",
        "models.registry",
        "models.llm.component",
        "models.llm.batch",
        "models.llm.engine",
        "models.llm.weights",
    ),
    "serving": ("serving.client", "serving.schemas"),
    "tasks": ("tasks.typed", "tasks.compiled", "tasks.lake", "tasks.kept"),
}


def listing() -> str:
    """Every public name with its signature or type, one a line, by module."""
    packages = {name: griffe.load(name, search_paths=[ROOT], allow_inspection=False) for name in PUBLIC}
    lines: list[str] = []
    for package, modules in PUBLIC.items():
        for module in modules:
            found = packages[package] if module == package else packages[package][module.removeprefix(f"{package}.")]
            lines += [f"{module}", *sorted(f"    {line}" for line in _members(found)), ""]
    return "\n".join(lines)


def _members(owner: griffe.Module | griffe.Class) -> Iterator[str]:
    """The lines of a module or class: what is declared in it, and what a module names in ``__all__``."""
    for name, member in owner.members.items():
        if name.startswith("_") or (member.is_alias and name not in (owner.exports or ())):
            continue
        if member.is_alias:
            yield f"{name} = {member.target_path}"  # type: ignore[union-attr]  # an alias has it
            continue
        if isinstance(member, griffe.Function):
            yield f"{name}{_signature(member)}"
        elif isinstance(member, griffe.Class):
            bases = ", ".join(str(base) for base in member.bases)
            yield f"class {name}({bases})" if bases else f"class {name}"
            yield from (f"{name}.{line}" for line in _members(member))
            if isinstance(member.members.get("__init__"), griffe.Function):
                yield f"{name}{_signature(member.members['__init__'])}"  # type: ignore[arg-type]
        elif isinstance(member, griffe.Attribute) and not str(member.value).startswith(("TypeVar(", "ParamSpec(")):
            yield f"{name}: {member.annotation}" if member.annotation else name


def _signature(function: griffe.Function) -> str:
    """Parameters with their annotations and defaults, and what comes back; on one line."""
    given: list[str] = []
    starred = False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.kind
        prefix = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(kind, "")
        if kind is griffe.ParameterKind.keyword_only and not starred:
            given.append("*")
        starred = starred or kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        text = f"{prefix}{parameter.name}"
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not prefix:
            text += f" = {parameter.default}" if parameter.annotation is not None else f"={parameter.default}"
        given.append(text)
    returned = f" -> {function.returns}" if function.returns is not None else ""
    return " ".join(f"({', '.join(given)}){returned}".split())


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        LIST.write_text(listing(), encoding="utf-8")
    else:
        print(listing(), end="")
