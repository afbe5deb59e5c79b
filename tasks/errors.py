"""What can go wrong when a run or a task is asked about, or done again?"""

from __future__ import annotations

import difflib
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


class BisectError(MillraceError):
    """No table version can be named that broke a metric."""

    code = "MR-BISECT"

    @classmethod
    def metric(cls, name: str, known: Sequence[str]) -> BisectError:
        # Compared as they may be written: in any case, and without the contender and the @10.
        short = {one.lower().rpartition(" ")[2].partition("@")[0]: one for one in reversed(known)}
        near = difflib.get_close_matches(name.lower(), [*short, *(one.lower() for one in known)], n=1, cutoff=0.5)
        whole = {**short, **{one.lower(): one for one in known}}
        return cls(
            f"No metric that both runs have is called {name!r}.",
            fix=f"Did you mean {whole[near[0]]!r}?" if near else suggestion(name, known, what="Metrics of both"),
        )

    @classmethod
    def ambiguous(cls, name: str, known: Sequence[str]) -> BisectError:
        return cls(f"{name!r} stands for {len(known)} metrics: {examples(known)}.", fix="Give the whole name.")

    @classmethod
    def not_worse(cls, metric: str, good: str, good_value: float, bad: str, bad_value: float) -> BisectError:
        return cls(
            f"{metric} is {good_value:.4f} in run {good} and {bad_value:.4f} in run {bad}: the first is not better.",
            fix="Swap --good and --bad, or name other runs; `millrace show RUN` has their metrics.",
        )

    @classmethod
    def differ(cls, good: str, bad: str, what: Sequence[str]) -> BisectError:
        return cls(
            f"Runs {good} and {bad} differ in more than their data: {examples(what)}.",
            fix="Name two runs of one code and configuration; `millrace why train --run A --against B` compares these.",
        )

    @classmethod
    def untrained(cls, run: str) -> BisectError:
        return cls(f"Run {run} kept its champion and trained nothing.", fix="Name two runs that trained a model.")

    @classmethod
    def order(cls, good: str, bad: str) -> BisectError:
        return cls(
            f"Run {bad} reads an older version of a table than run {good}, or is of an earlier day.",
            fix="Name a bad run that came after the good one.",
        )

    @classmethod
    def same_data(cls, good: str, bad: str) -> BisectError:
        return cls(
            f"Runs {good} and {bad} read the same version of every table.",
            fix="Look for the cause elsewhere: `millrace why train --run A --against B`.",
        )

    @classmethod
    def not_data(cls, metric: str, value: float, good: str, bad: str) -> BisectError:
        return cls(
            f"On run {bad}'s versions, with all else as in run {good}, {metric} is {value:.4f}: not data broke it.",
            fix="Compare the champions that the two runs began with: `millrace why train --run A --against B`.",
        )

    @classmethod
    def training(cls, run: str, tables: Sequence[str], reason: str) -> BisectError:
        return cls(
            f"The training of run {run} on {', '.join(tables)} failed: {reason}.",
            fix="Mend what it names and bisect again: trainings that are done are in the cache.",
        )


class SimulationError(MillraceError):
    """Days can't be played again."""

    code = "MR-SIMULATION"

    @classmethod
    def order(cls, first: date, last: date) -> SimulationError:
        return cls(f"The simulation's first day, {first}, is after its last one, {last}.", fix="Swap --from and --to.")

    @classmethod
    def short(cls, days: int, least: int) -> SimulationError:
        return cls(
            f"{days} days are too few for incidents to happen and be noticed; it takes {least}.",
            fix="Simulate more days, or give --no-incidents.",
        )

    @classmethod
    def early(cls, first: date, earliest: date) -> SimulationError:
        return cls(
            f"On {first} there is too little to learn from: the newest days are kept from training.",
            fix=f"Begin on {earliest} or later, or keep fewer days with --holdout-days.",
        )
