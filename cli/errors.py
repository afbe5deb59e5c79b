"""What can go wrong when a run is named? No run, or more than one, goes by that name."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.errors import MillraceError, examples


class UnknownRunError(MillraceError):
    """No run goes by that name."""

    code = "MR-RUN-UNKNOWN"

    @classmethod
    def named(cls, name: str, runs: int) -> UnknownRunError:
        if not runs:
            return cls("This lake has no run yet.", fix="Run the nightly job first.")
        return cls(
            f"No run's id is or starts with {name!r}.",
            fix=f"`millrace runs` lists the {runs} there are; `last` is the newest.",
        )


class AmbiguousRunError(MillraceError):
    """More than one run's id starts so."""

    code = "MR-RUN-AMBIGUOUS"

    @classmethod
    def prefix(cls, name: str, run_ids: Sequence[str]) -> AmbiguousRunError:
        return cls(
            f"{len(run_ids)} runs' ids start with {name!r}: {examples(run_ids)}.", fix="Give more of the id's digits."
        )


class InitError(MillraceError):
    """A project can't be begun under that name."""

    code = "MR-INIT"

    @classmethod
    def not_a_name(cls, name: str) -> InitError:
        return cls(
            f"{name!r} can't be the name of a Python package.",
            fix="Take a word of lower-case letters, digits and _, such as my_project.",
        )

    @classmethod
    def taken(cls, name: str) -> InitError:
        return cls(f"A Python package {name!r} is installed already.", fix="Take another name.")

    @classmethod
    def exists(cls, folder: str) -> InitError:
        return cls(f"{folder} is there already.", fix="Take another name, or remove the folder; nothing was written.")
