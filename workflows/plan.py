"""What have all launch plans in common? Labels, one execution at a time, who hears of a failure, and that they wait.

A plan is registered switched off; `pyflyte launchplan --activate NAME` switches it on. Schedules are cron expressions
in UTC: of the two kinds of schedule that Flyte has, only these pass the time on that a run was scheduled for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flytekit import CronSchedule, Email, LaunchPlan
from flytekit.models.common import Labels
from flytekit.models.concurrency import ConcurrencyLimitBehavior, ConcurrencyPolicy
from flytekit.models.core.execution import WorkflowExecutionPhase

from lakehouse.settings import Settings

#: What somebody should look at.
_FAILURES = [
    WorkflowExecutionPhase.FAILED,
    WorkflowExecutionPhase.TIMED_OUT,
    WorkflowExecutionPhase.ABORTED,
]


def plan(
    workflow: Callable[..., object],
    *,
    name: str,
    cron: str | None,
    kickoff: str | None = None,
    default_inputs: Mapping[str, object] | None = None,
    fixed_inputs: Mapping[str, object] | None = None,
) -> LaunchPlan:
    """A launch plan, switched off.

    Args:
        workflow: what it runs.
        name: of the plan.
        cron: minute, hour, day, month and weekday, in UTC; None for what is launched by hand or by a release.
        kickoff: the input that gets the time for which the run was scheduled.
        default_inputs: values that a launch by hand may replace.
        fixed_inputs: values that nobody may replace.
    """
    addresses = [address.strip() for address in Settings().notify.split(",") if address.strip()]
    return LaunchPlan.get_or_create(
        workflow,
        name=name,
        schedule=CronSchedule(schedule=cron, kickoff_time_input_arg=kickoff) if cron else None,
        default_inputs=dict(default_inputs or {}),
        fixed_inputs=dict(fixed_inputs or {}),
        labels=Labels({"app": "millrace", "plan": name.replace("_", "-")}),
        notifications=[Email(phases=_FAILURES, recipients_email=addresses)] if addresses else [],
        # One that is still running when the next is due goes on, and the next is left out: it would find nothing new.
        concurrency=ConcurrencyPolicy(max_concurrency=1, behavior=ConcurrencyLimitBehavior.SKIP),
        max_parallelism=4,
        auto_activate=False,
    )
