"""The quarter-hourly job: take in feedback, look at data, answers and model, and retrain if a rule says so twice.

    pyflyte -c flyte.yaml run workflows/monitor.py monitor

Registered with `pyflyte register`, the launch plan `quarter_hourly_monitor` runs it every 15 minutes. `deploy_champion`
and `roll_back_champion` are the deployment verbs, for the console.
"""

from __future__ import annotations

from datetime import datetime

from flytekit import conditional

from tasks.compiled import workflow
from tasks.lake import open_lake
from tasks.monitor import Check, compare_served, report, watch
from tasks.serving import Deployed, Landing, deploy, land_feedback, roll_back
from workflows.nightly import nightly
from workflows.plan import plan


@workflow
def answer(day: datetime, check: Check) -> Check:
    """Run the nightly job for the newest day, and retrain in it whatever its own rule says."""
    night = nightly(day=day, retrain_after_days=0)
    return report(check=check, night=night.verdict)


@workflow
def rest(check: Check) -> Check:
    """Nothing is to be done."""
    return report(check=check)


@workflow
def monitor(at: str = "") -> Check:
    """Land what the service has logged, compare data, answers and model with their bounds, and retrain if it is time.

    Args:
        at: the instant (ISO 8601, UTC) as which to look; empty for now. A lake that replays the past needs it.

    Returns:
        The rules that fired, and why a retrain was launched or not; the ledger's `decisions` keep it under `monitor`.
    """
    lake = open_lake()
    landed = land_feedback(lake=lake)
    served = compare_served(lake=lake, at=at)
    watched = watch(lake=lake, landed=landed, served=served, at=at)
    found: Check = (
        conditional("time_to_act")
        .if_(watched.retrain.is_true())  # type: ignore[attr-defined]  # a promise here
        .then(answer(day=watched.day, check=watched.check))
        .else_()
        .then(rest(check=watched.check))
    )
    return found


@workflow
def deploy_champion(model: str = "champion", canary: float = 0.0, force: bool = False) -> Deployed:
    """Put a registered model in front of users, in the service that MILLRACE_SERVING_URL names.

    Args:
        model: registry version or alias.
        canary: share of the users; 0 for all.
        force: also if the replay of the last requests speaks against it.
    """
    return deploy(model=model, canary=canary, force=force)


@workflow
def roll_back_champion(reason: str = "asked for") -> Deployed:
    """Go back to the model before.

    Args:
        reason: why; the ledger keeps it.
    """
    return roll_back(reason=reason)


@workflow
def land() -> Landing:
    """Publish the service's logged events, each once."""
    return land_feedback(lake=open_lake())


quarter_hourly_monitor = plan(monitor, name="quarter_hourly_monitor", cron="*/15 * * * *")
