"""Does anything have to be done now? One look at the ledger, and the decision whether to retrain."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from serving.parity import ServedParity
from tasks.lake import Lake
from tasks.serving import Landing
from tasks.typed import task


class Check(BaseModel):
    """What a check found.

    Attributes:
        events: events of feedback that have just landed.
        fired: rules that fired, each with value, bound and runbook.
        reason: whether a retrain is launched, and why.
    """

    model_config = ConfigDict(frozen=True)

    events: int
    fired: list[str]
    reason: str


class Watched(NamedTuple):
    """The verdict as Flyte's condition reads it, the day to retrain for, and what was found."""

    retrain: bool
    day: datetime
    check: Check


@task(cached=False, memory="2Gi")
def compare_served(lake: Lake, at: str = "") -> ServedParity:
    """Compare a sample of the features that the service answered with, with the versions that they came from.

    Args:
        lake: the lake; its ledger gets the outcome.
        at: the instant (ISO 8601, UTC) of the look; empty for now.
    """
    from lakehouse.settings import Settings
    from serving.parity import compare_served as compare

    return compare(lake.open(), Settings().state, _instant(at))


@task(cached=False, memory="1Gi")
def watch(lake: Lake, landed: Landing, served: ServedParity, at: str = "") -> Watched:
    """Compare freshness, drift, decay, promotions and parity with their bounds; every run does it anew.

    Args:
        lake: the lake.
        landed: the feedback that came in before: the look includes it.
        served: the comparison of what was served, made before: the look includes it.
        at: the instant (ISO 8601, UTC) as which to look; empty for now.
    """
    from lakehouse.tables import Rating
    from serving.monitor import check

    instant = _instant(at)
    lakehouse = lake.open()
    verdict = check(lakehouse, instant)
    # What the source brought; ratings given online enter with the next of its days.
    days = [p.day for p in lakehouse.publications(Rating.contract.table) if p.published and not p.inputs]
    day = max(days, default=instant.date())
    fired = [f"{one.rule}: {one.value} (bound {one.bound}; {one.page})" for one in verdict.findings if one.fired]
    return Watched(
        verdict.retrain,
        datetime(day.year, day.month, day.day),
        Check(events=landed.events, fired=fired, reason=verdict.reason),
    )


def _instant(at: str) -> datetime:
    instant = datetime.fromisoformat(at) if at else datetime.now(UTC)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@task(cached=False, memory="1Gi")
def report(check: Check, night: str = "") -> Check:
    """What was found, with the verdict of the night that was launched, if one was.

    Args:
        check: what was found.
        night: the launched night's verdict; empty if none was launched.
    """
    return check if not night else check.model_copy(update={"reason": f"{check.reason} {night}"})
