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
