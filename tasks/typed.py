"""What is a Millrace task? A Flyte task that caches on its code and environment and writes down what it cost."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar, cast

import flytekit
from flytekit import Cache, Resources

import lakehouse.flyte  # noqa: F401  # registers Snapshot[Row] as a Flyte type
from lakehouse.errors import StorageError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Cost
from tasks.cache import ProjectDigest
from tasks.progress import announced

P = ParamSpec("P")
R = TypeVar("R")


def task(
    *,
    cached: bool = True,
    deck: bool = False,
    retries: int = 1,
    timeout: timedelta = timedelta(hours=1),
    cpu: str = "1",
    memory: str = "2Gi",
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a task.

    Args:
        cached: answer from Flyte's cache while code, environment and inputs are the same (see tasks.cache). Of two
            executions that ask the same at once, one runs and the other waits.
        deck: show the task's deck in the console.
        retries: attempts after a failure; every task here may be repeated.
        timeout: after this the attempt is ended.
        cpu: cores asked for on a cluster.
        memory: memory asked for on a cluster.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        return cast(
            Callable[P, R],
            flytekit.task(
                cache=Cache(serialize=True, policies=[ProjectDigest()]) if cached else False,
                enable_deck=deck,
                retries=retries,
                timeout=timeout,
                requests=Resources(cpu=cpu, mem=memory),
                limits=Resources(mem=memory),
            )(_measured(function)),
        )

    return declare


def execution_id() -> str:
    """Flyte's execution id; locally one for each process."""
    name = flytekit.current_context().execution_id.name
    return name if name != "local" else f"local-{os.getpid()}-{int(_PROCESS_START)}"


_PROCESS_START = time.time()
_SAMPLE_SECONDS = 0.2


def _measured(function: Callable[P, R]) -> Callable[P, R]:
    """Write one row to the ledger's ``costs`` for each execution of the function that ends well."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with announced(function.__name__), _Meter() as meter:
            value = function(*args, **kwargs)
        try:
            lake = Lakehouse.open()
        except StorageError:
            return value  # the lake is not made yet; there is nowhere to write
        name = f"{function.__module__}.{function.__qualname__}"
        lake.ledger.append(
            [
                Cost(
                    cost_id=f"{execution_id()}/{name}/{meter.started_at.isoformat()}",
                    execution=execution_id(),
                    task=name,
                    started_at=meter.started_at,
                    seconds=meter.seconds,
                    cpu_seconds=meter.cpu_seconds,
                    peak_mib=meter.peak_mib,
                )
            ]
        )
        return value

    return run


class _Meter:
    """Wall-clock and CPU seconds, and the sampled peak of resident memory, of this process and its children."""

    def __enter__(self) -> _Meter:
        import psutil

        self.process = psutil.Process()
        self.peak_mib = 0.0
        self.children_cpu: dict[int, float] = {}
        self.started_at = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._cpu = self._sample()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu_seconds = max(0.0, self._sample() - self._cpu)
        self.seconds = time.perf_counter() - self._clock

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> float:
        """Note the memory in use and return the CPU seconds so far; a child that has ended keeps its last reading."""
        import psutil

        own = self.process.cpu_times()
        resident = self.process.memory_info().rss
        for child in self.process.children(recursive=True):
            try:
                times = child.cpu_times()
                resident += child.memory_info().rss
                self.children_cpu[child.pid] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak_mib = max(self.peak_mib, resident / 2**20)
        return float(own.user + own.system + sum(self.children_cpu.values()))
