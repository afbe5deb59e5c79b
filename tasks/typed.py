"""What is a Millrace task? A Flyte task that caches on its code and environment and writes down what it cost."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar, cast

import flytekit
from flytekit import Cache, Resources

import lakehouse.flyte  # noqa: F401  # registers Snapshot[Row] as a Flyte type
from lakehouse.errors import StorageError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Cost
from tasks.cache import ProjectDigest
from tasks.described import described
from tasks.kept import UNUSABLE, Kept
from tasks.key import arguments, as_json, as_text, key_of
from tasks.meter import Meter
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
    interruptible: bool = True,
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
        interruptible: whether a cluster may run it where machines are taken away at any time; the last attempt is not.

    What the console says of it is its docstring, with a line an input: see tasks.described.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        return cast(
            Callable[P, R],
            flytekit.task(
                task_config=Kept(),
                cache=Cache(serialize=True, policies=[ProjectDigest()]) if cached else False,
                enable_deck=deck,
                retries=retries,
                timeout=timeout,
                requests=Resources(cpu=cpu, mem=memory),
                limits=Resources(mem=memory),
                interruptible=interruptible,
            )(_measured(function)),
        )

    return declare


def execution_id() -> str:
    """Flyte's execution id; locally one for each process."""
    name = flytekit.current_context().execution_id.name
    return name if name != "local" else f"local-{os.getpid()}-{int(_PROCESS_START)}"


_PROCESS_START = time.time()


def _measured(function: Callable[P, R]) -> Callable[P, R]:
    """Write one row to the ledger's ``costs`` for each execution of the function that ends well."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with announced(function.__name__), Meter() as meter:
            value = function(*args, **kwargs)
        try:
            lake = Lakehouse.open()
        except StorageError:
            return value  # the lake is not made yet; there is nowhere to write
        name = f"{function.__module__}.{function.__qualname__}"
        key = key_of(function, arguments(function, args, kwargs), gone=UNUSABLE.get())
        lake.ledger.append(
            [
                Cost(
                    cost_id=f"{execution_id()}/{name}/{meter.started_at.isoformat()}",
                    execution=execution_id(),
                    task=name,
                    started_at=meter.started_at,
                    key=key.model_dump_json(),
                    answer=as_text(as_json(value)),
                    **meter.used(),
                )
            ]
        )
        return value

    run.__doc__ = described(function)
    return run
