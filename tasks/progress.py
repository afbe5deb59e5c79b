"""What does a person see while a task runs? One line when it ends; in a terminal, a moving one until then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_running: list[Progress] = []


@contextmanager
def announced(name: str) -> Iterator[None]:
    """Say on standard error that a task runs, and how long it took."""
    started = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            progress.add_task(name, total=None)
            _running.append(progress)
            try:
                yield
            finally:
                _running.pop()
    else:
        yield
    print(f"{name:<22}{time.perf_counter() - started:8.1f} s", file=sys.stderr, flush=True)


def bar(what: str) -> Callable[[int, int], None]:
    """A callback (done, of) that draws a bar under the running task's line; outside a terminal it does nothing."""
    if not _running:
        return lambda done, of: None
    progress = _running[-1]
    row = progress.add_task(f"  {what}", total=None)
    return lambda done, of: progress.update(row, completed=done, total=of)
