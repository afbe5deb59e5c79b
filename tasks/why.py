"""Why did a task run again? The part of its cache key that changed since its last execution, from the ledger."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from importlib import import_module

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse
from lakehouse.ledger import Cost, Run
from tasks.errors import NotRecordedError
from tasks.key import Change, Key, changes, key_of


class Execution(BaseModel):
    """One execution of a task whose key is known."""

    model_config = ConfigDict(frozen=True)

    task: str
    execution: str
    started_at: datetime
    key: Key


class Why(BaseModel):
    """What tells an execution from the one before it.

    Attributes:
        execution: the one that is explained.
        against: the one it is compared with; None if it was the first.
        gone: what its cached answer lacked, if there was one that could not be given.
        changes: what differs between the two keys.
        pending: what differs between its key and the code and environment of this checkout: why it would run again.
    """

    model_config = ConfigDict(frozen=True)

    execution: Execution
    against: Execution | None
    gone: str
    changes: list[Change]
    pending: list[Change]


def why(lake: Lakehouse, task: str, run: Run | None = None, against: Run | None = None) -> Why:
    """Compare two executions of a task: its newest with the one before, or those whose answers two runs stand on.

    Args:
        lake: whose ledger is asked.
        task: its name, such as ``tasks.train.train``; ``train`` will do where that is one task's.
        run: the run that is explained (default: the task's newest execution).
        against: the run it is compared with (default: the execution before).

    Raises:
        NotRecordedError: no execution of it is recorded, or none before the run's end.
    """
    known = executions(lake, task)
    newest = standing(known, run) if run else known[-1]
    earlier = [one for one in known if one.started_at < newest.started_at]
    other = standing(known, against) if against else (earlier[-1] if earlier else None)
    return Why(
        execution=newest,
        against=other,
        gone=newest.key.gone,
        changes=changes(other.key, newest.key) if other else [],
        pending=_pending(newest),
    )


def executions(lake: Lakehouse, task: str) -> list[Execution]:
    """The recorded executions of a task, oldest first; NotRecordedError if there are none."""
    rows = [row for row in lake.ledger.read(Cost) if row.key]
    names = sorted({row.task for row in rows})
    meant = [name for name in names if name == task] or [name for name in names if name.rpartition(".")[2] == task]
    if len(meant) != 1:
        raise NotRecordedError.task(task, meant or names)
    return [
        Execution(
            task=row.task,
            execution=row.execution,
            started_at=row.started_at,
            key=Key.model_validate_json(row.key or ""),
        )
        for row in rows
        if row.task == meant[0]
    ]


def standing(known: list[Execution], run: Run) -> Execution:
    """The execution whose answer a run stands on: its own, else (a cache hit) the newest before its end."""
    own = [one for one in known if one.execution == run.execution]
    before = own or [one for one in known if one.started_at <= run.finished_at]
    if not before:
        raise NotRecordedError.before(known[0].task, run.run_id)
    return before[-1]


def _pending(execution: Execution) -> list[Change]:
    """What an execution with the same inputs would have different in this checkout."""
    logging.getLogger("flytekit").setLevel(logging.ERROR)  # it notes which fields a cluster's branches can't look into
    module, _, name = execution.task.rpartition(".")
    if not _is_importable(module):
        return []
    declared = getattr(import_module(module), name, None)
    function = getattr(declared, "task_function", None)
    if function is None:
        return []
    now = key_of(function, {})
    return changes(execution.key, now.model_copy(update={"inputs": execution.key.inputs}))


def _is_importable(module: str) -> bool:
    if module in sys.modules:
        return True
    try:
        import_module(module)
    except ImportError:
        return False
    return True
