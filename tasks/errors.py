"""What can go wrong when a run or a task is asked about, or done again?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

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


class ReplayError(MillraceError):
    """A run can't be done again here."""

    code = "MR-REPLAY"

    @classmethod
    def code_lost(cls, run: str, commit: str) -> ReplayError:
        what = f"commit {commit.rstrip('+')} with changes" if commit else "files outside a checkout"
        return cls(
            f"The code of run {run} is not this checkout's, and it was {what} that nobody committed.",
            fix="Bring the files back as they were, or commit before a run that is to be replayed.",
        )

    @classmethod
    def no_commit(cls, run: str, commit: str, reason: str) -> ReplayError:
        return cls(
            f"Commit {commit} of run {run} can't be checked out: {reason}.",
            fix="Run it in a clone that has the commit (git fetch).",
        )

    @classmethod
    def remote(cls, run: str, root: str) -> ReplayError:
        return cls(
            f"Run {run} can't be replayed from {root}: only a lake in a folder can be copied.",
            fix="Replay single steps with --step, which read the versions where they are.",
        )

    @classmethod
    def failed(cls, run: str, reason: str) -> ReplayError:
        return cls(f"The replay of run {run} failed: {reason}", fix="Mend what it names and replay again.")

    @classmethod
    def step(cls, task: str, reason: str) -> ReplayError:
        return cls(f"{task} can't be replayed by itself: {reason}.", fix="Replay the whole run, without --step.")


class UnsourcedError(MillraceError):
    """A document says a number that no row of the ledger has."""

    code = "MR-UNSOURCED"

    @classmethod
    def no_source(cls, label: str, value: object) -> UnsourcedError:
        return cls(
            f"The document says {value!r} of {label!r} and cites no row of the ledger.",
            fix="Cite the row and column that the value comes from, or leave it out.",
        )

    @classmethod
    def no_row(cls, label: str, source: str) -> UnsourcedError:
        return cls(
            f"The document cites {source} for {label!r}, and the ledger has no such value.",
            fix="Cite a row that is there; `millrace sql` shows the ledger's tables.",
        )

    @classmethod
    def differs(cls, label: str, source: str, said: object, stored: object) -> UnsourcedError:
        return cls(
            f"The document says {said!r} of {label!r}, and {source} says {stored!r}.",
            fix="Make the document anew from the ledger; a value is never typed in.",
        )

    @classmethod
    def prose(cls, text: str) -> UnsourcedError:
        return cls(
            f"The document's text {text[:60]!r} holds a number, which has no source row.",
            fix="Cite the number as a fact, or write the text without it.",
        )

    @classmethod
    def no_run(cls, version: int, digest: str) -> UnsourcedError:
        return cls(
            f"No run in the ledger made model version {version} (digest {digest[:12]}).",
            fix="Ask the lake whose nightly job registered it, or name another version.",
        )


class BackfillError(MillraceError):
    """Nights can't be made up for."""

    code = "MR-BACKFILL"

    @classmethod
    def order(cls, first: date, last: date) -> BackfillError:
        return cls(f"The backfill's first day, {first}, is after its last one, {last}.", fix="Swap --from and --to.")

    @classmethod
    def failed(cls, day: date, status: int, done: int, due: int) -> BackfillError:
        return cls(
            f"The night of {day} ended with status {status}; {done} of {due} are done.",
            fix="Mend what it says above and run the same command again: it goes on with this night.",
        )
