"""What has a run, a task or a day cost, and what will the next run cost? Sums over the ledger's ``costs``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import BudgetError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Cost, Run

By = Literal["run", "task", "day"]

#: Runs that an estimate looks back at.
HISTORY = 10


class Spent(BaseModel):
    """What some executions of tasks took together; None where no execution knows.

    Attributes:
        name: run, task or day (UTC).
        started_at: the first execution's start.
        executions: how many; an answer from the cache is none.
        seconds: their wall-clock seconds, added up.
        cpu_seconds: CPU seconds of their processes.
        gpu_seconds: seconds on GPUs.
        peak_mib: the largest resident memory, MiB.
        read_bytes, written_bytes: through system calls.
        tokens_in, tokens_out: of language models.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    started_at: datetime
    executions: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float | None
    peak_mib: float
    read_bytes: int | None
    written_bytes: int | None
    tokens_in: int | None
    tokens_out: int | None


class Estimate(BaseModel):
    """What the next run will take, as the median of the newest ones; zeros without history.

    Attributes:
        runs: how many were looked at.
        seconds: wall-clock seconds.
        cpu_seconds: CPU seconds.
        tokens: of language models, in and out.
    """

    model_config = ConfigDict(frozen=True)

    runs: int
    seconds: float
    cpu_seconds: float
    tokens: float


def spent(lake: Lakehouse, by: By) -> list[Spent]:
    """The costs by run, task or day, oldest first. Work outside a run that was written down is in no run's row."""
    costs = list(lake.ledger.read(Cost))
    groups: dict[str, list[Cost]] = {}
    runs = {run.execution: run.run_id for run in lake.ledger.read(Run)} if by == "run" else {}
    for cost in costs:
        name = {"task": cost.task, "day": str(cost.started_at.date())}.get(by) or runs.get(cost.execution)
        if name is not None:
            groups.setdefault(name, []).append(cost)
    return [_together(name, group) for name, group in groups.items()]


def estimate(lake: Lakehouse, workflow: str = "nightly") -> Estimate:
    """What one more run of a workflow will take, from its newest runs."""
    runs = list(lake.ledger.read(Run))
    newest = {run.run_id for run in [run for run in runs if run.workflow == workflow][-HISTORY:]}
    known = [one for one in spent(lake, "run") if one.name in newest]
    if not known:
        return Estimate(runs=0, seconds=0, cpu_seconds=0, tokens=0)
    return Estimate(
        runs=len(known),
        seconds=median(one.seconds for one in known),
        cpu_seconds=median(one.cpu_seconds for one in known),
        tokens=median((one.tokens_in or 0) + (one.tokens_out or 0) for one in known),
    )


def require_budget(expected: Estimate, cpu_seconds: float, runs: int = 1) -> None:
    """Refuse work that is expected to cost more than a budget; without history nothing is refused.

    Raises:
        BudgetError: history says that it will not do.
    """
    if expected.cpu_seconds * runs > cpu_seconds:
        raise BudgetError.exceeded(expected.cpu_seconds * runs, cpu_seconds, runs, expected.runs)


def _together(name: str, costs: list[Cost]) -> Spent:
    return Spent(
        name=name,
        started_at=costs[0].started_at,
        executions=len(costs),
        seconds=round(sum(cost.seconds for cost in costs), 3),
        cpu_seconds=round(sum(cost.cpu_seconds for cost in costs), 3),
        gpu_seconds=_sum(cost.gpu_seconds for cost in costs),
        peak_mib=round(max(cost.peak_mib for cost in costs), 1),
        read_bytes=_whole(cost.read_bytes for cost in costs),
        written_bytes=_whole(cost.written_bytes for cost in costs),
        tokens_in=_whole(cost.tokens_in for cost in costs),
        tokens_out=_whole(cost.tokens_out for cost in costs),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _whole(values: Iterable[int | None]) -> int | None:
    total = _sum(values)
    return None if total is None else int(total)
