"""When may a task's old answer stand for a new one? While its code, its contracts and its environment are the same.

The cache version of a task is a digest over the source of its module and of every project module that this one
imports, directly or not (functions' own imports included), the files that lie beside them (prompts, templates) and the
environment's lock. The inputs' part of the key is Flyte's: a Snapshot's hash is its version.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import ParamSpec, TypeVar

from flytekit.core.cache import VersionParameters

P = ParamSpec("P")
R = TypeVar("R")

#: Where Millrace's own packages lie.
MILLRACE_ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
#: Files beside the code that change what it does.
RESOURCES = (".txt", ".j2", ".json", ".yaml", ".properties")


class ProjectDigest:
    """Flytekit cache policy: the digest of what a task's answer depends on beside its inputs."""

    def get_version(self, salt: str, params: VersionParameters[P, R]) -> str:
        name = inspect.unwrap(params.func).__qualname__
        parts = [salt, name, environment_digest(), code_digest(params.func)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def code_digest(function: Callable[..., object]) -> str:
    """SHA-256 over the source of a function's module and of every project module behind it."""
    source = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").resolve()
    found = sources(source, tuple(dict.fromkeys((import_root(source), MILLRACE_ROOT))))
    return hashlib.sha256("\n".join(f"{path}:{digest}" for path, digest in sorted(found.items())).encode()).hexdigest()


def import_root(source: Path) -> Path:
    """The folder that a file's dotted name starts from: the first one above it without ``__init__.py``."""
    folder = source.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def sources(start: Path, roots: tuple[Path, ...]) -> dict[str, str]:
    """Digests of a module's file and of all it imports from ``roots``, by path relative to its root."""
    found: dict[str, str] = {}
    todo = [start]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        root = next(r for r in roots if path.is_relative_to(r))
        digest, imported = _read(path)
        found[str(path.relative_to(root))] = digest
        for resource in sorted(path.parent.iterdir()) if path.parent != root else ():
            if resource.suffix in RESOURCES:
                found[str(resource.relative_to(root))] = _digest(resource)
        for name in imported:
            todo.extend(_files(name, roots))
    return found


@lru_cache(maxsize=1)
def project_digest() -> str:
    """SHA-256 over all of Millrace's own sources and the resources beside them."""
    packages = ("workflows", "tasks", "serving", "models", "features", "lakehouse", "cli")
    files = sorted(
        path
        for package in packages
        for path in (MILLRACE_ROOT / package).rglob("*")
        if path.suffix in (".py", *RESOURCES) and "__pycache__" not in path.parts
    )
    lines = [f"{path.relative_to(MILLRACE_ROOT)}:{_digest(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@lru_cache(maxsize=1)
def environment_digest() -> str:
    """SHA-256 of the environment's lock; without one (an installed package), of Millrace's version."""
    lock = MILLRACE_ROOT / LOCK
    if lock.is_file():
        return _digest(lock)
    from importlib.metadata import version

    return hashlib.sha256(version("millrace").encode()).hexdigest()


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    content = path.read_bytes()
    names: list[str] = []
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(import_root(path)).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            names.append(module)
            names += [f"{module}.{alias.name}" for alias in node.names]
    return hashlib.sha256(content).hexdigest(), tuple(dict.fromkeys(names))


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(name: str, roots: tuple[Path, ...]) -> Iterator[Path]:
    """The project files behind a dotted name: the module, and the packages above it, which Python runs first."""
    parts = name.split(".")
    for root in roots:
        folder = root
        for part in parts:
            if (folder / f"{part}.py").is_file():
                yield folder / f"{part}.py"
                break
            folder = folder / part
            if not (folder / "__init__.py").is_file():
                break
            yield folder / "__init__.py"
