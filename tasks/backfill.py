"""Which nights are missing, and how are they made up for? One after the other, as each builds on the last."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse
from lakehouse.ledger import Run
from lakehouse.movielens import movielens
from lakehouse.settings import Settings
from lakehouse.tables import Rating
from tasks.cache import MILLRACE_ROOT, environment_digest, project_digest
from tasks.errors import BackfillError

PYFLYTE = "import sys; from flytekit.clis.sdk_in_container.pyflyte import main; sys.exit(main())"


class Night(BaseModel):
    """One day of a backfill.

    Attributes:
        day: the day (UTC).
        state: done; missing; stale, which is done with other code or another environment; or passed: the lake never
            stood at its end and is beyond it, so that it can't be made up for.
        reason: why it is stale or passed; empty otherwise.
    """

    model_config = ConfigDict(frozen=True)

    day: date
    state: Literal["done", "missing", "stale", "passed"]
    reason: str = ""

    @property
    def due(self) -> bool:
        """Whether it is to be run."""
        return self.state in ("missing", "stale")


def nights(lake: Lakehouse, first: date, last: date) -> list[Night]:
    """The state of each day from first to last.

    Raises:
        BackfillError: the first day is after the last one.
        NoDataForDayError: the source does not have one of the two.
    """
    if first > last:
        raise BackfillError.order(first, last)
    for day in (first, last):
        movielens().require(day)
    newest = {run.day: run for run in lake.ledger.read(Run) if run.workflow == "nightly"}
    published = {p.day for p in lake.publications(Rating.contract.table) if p.published}
    ahead = max(published, default=None)
    found = []
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        run = newest.get(day)
        if run is not None:
            found.append(_judged(run))
        elif ahead is not None and day < ahead and day not in published:
            found.append(Night(day=day, state="passed", reason=f"the lake stands at {ahead} already"))
        else:
            found.append(Night(day=day, state="missing"))
    return found


def make_up(lake: Lakehouse, due: Sequence[date], expected_seconds: float, report: Callable[[str], None]) -> None:
    """Run the nightly job for each day, in order, and report after each; interrupted, it goes on where it was.

    Args:
        lake: where.
        due: the days, oldest first.
        expected_seconds: what one takes, by history; 0 if there is none.
        report: called with a line after each day.

    Raises:
        BackfillError: a night failed; those before it stand.
    """
    environment = {**os.environ, "MILLRACE_STATE": str(Settings().state.resolve()), "LAKEHOUSE_ROOT": lake.root}
    took: list[float] = []
    for number, day in enumerate(due, 1):
        begun = time.monotonic()
        command = ["-c", "flyte.yaml", "run", "workflows/nightly.py", "nightly", "--day", day.isoformat()]
        done = subprocess.run(
            [sys.executable, "-c", PYFLYTE, *command],
            cwd=MILLRACE_ROOT,
            env={**environment, "PYTHONPATH": str(MILLRACE_ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BackfillError.failed(day, done.returncode, number - 1, len(due))
        took.append(time.monotonic() - begun)
        # The first night may have had all history to read, or a model to train: what is left is judged by the rest.
        typical = sum(took[1:]) / len(took[1:]) if took[1:] else expected_seconds or took[0]
        left = typical * (len(due) - number)
        report(
            f"{number} of {len(due)}: {day} in {took[-1]:.0f} s" + (f", about {_minutes(left)} left" if left else "")
        )


def _judged(run: Run) -> Night:
    others = [
        what
        for what, then, now in (
            ("code", run.code_digest, project_digest()),
            ("environment", run.lock_digest, environment_digest()),
        )
        if then != now
    ]
    if others:
        return Night(day=run.day, state="stale", reason=f"run {run.run_id} had other {' and other '.join(others)}")
    return Night(day=run.day, state="done")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
