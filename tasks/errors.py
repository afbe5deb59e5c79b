"""What can go wrong when a run or a task is asked about, or done again?"""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.errors import MillraceError, examples, suggestion


class NotRecordedError(MillraceError):
    """The ledger has no execution of that task to answer from."""

    code = "MR-NOT-RECORDED"

    @classmethod
    def task(cls, name: str, known: Sequence[str]) -> NotRecordedError:
        if not known:
            return cls("No execution of any task is recorded in this lake yet.", fix="Run the nightly job first.")
        if all(one.rpartition(".")[2] == name for one in known):
            return cls(f"{len(known)} tasks are called {name!r}: {examples(known)}.", fix="Give the whole name.")
        return cls(
            f"No execution of a task {name!r} is recorded.",
            fix=suggestion(name, [one.rpartition(".")[2] for one in known], what="Recorded tasks"),
        )

    @classmethod
    def before(cls, task: str, run: str) -> NotRecordedError:
        return cls(
            f"No execution of {task} before the end of run {run} is recorded.",
            fix="Name a later run; keys are written down since Millrace 0.2.",
        )
