"""Which day does a scheduled run stand for? The last one that had ended, in UTC, when its schedule fired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tasks.typed import task


@task(memory="500Mi")
def ended_day(kickoff: datetime) -> datetime:
    """The start (UTC) of the last day that had ended at a moment; a moment without a zone is taken as UTC.

    Flyte passes the time for which the run was scheduled, however late it starts. Neither a clock change nor daylight
    saving moves a day: only UTC counts.
    """
    at = kickoff.astimezone(UTC) if kickoff.tzinfo else kickoff.replace(tzinfo=UTC)
    return at.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) - timedelta(days=1)
