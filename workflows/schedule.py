"""What runs when? Each night, each hour, and as movies come in; the weekly upkeep is in workflows/upkeep.py.

    pyflyte -c flyte.yaml register workflows --version v1

| launch plan | cron (UTC) | runs | for the day |
|---|---|---|---|
| `nightly_retrain` | `15 0 * * *` | `last_night` | that ended 15 minutes ago |
| `hourly_materialization` | `40 * * * *` | `hourly` | of the hour |
| `enrich_new_movies` | `10,30,50 * * * *` | `enrichment` | of the hour |
"""

from __future__ import annotations

from datetime import datetime

from tasks.clock import ended_day
from tasks.compiled import workflow
from tasks.night import Night
from workflows.enrichment import enrichment
from workflows.hourly import hourly
from workflows.nightly import nightly
from workflows.plan import plan


@workflow
def last_night(
    kickoff: datetime,
    holdout_days: int = 14,
    retrain_after_ratings: int = 100,
    retrain_after_days: int = 7,
    model: str = "",
    seed: int = 0,
) -> Night:
    """The nightly job for the last day that had ended at the kickoff.

    Args:
        kickoff: when the schedule fired (UTC); Flyte fills it in.
        holdout_days: the newest days, kept from training and used to compare models.
        retrain_after_ratings: retrain once there are so many ratings to learn from that the champion has not seen.
        retrain_after_days: retrain once the champion is this many days behind what could be learned.
        model: folder of a Hugging Face model for the movie cards; empty for the small default one.
        seed: seeds everything random.

    Returns:
        The run's id in the ledger, the report's path and the verdict.
    """
    night: Night = nightly(
        day=ended_day(kickoff=kickoff),
        holdout_days=holdout_days,
        retrain_after_ratings=retrain_after_ratings,
        retrain_after_days=retrain_after_days,
        model=model,
        seed=seed,
    )
    return night


nightly_retrain = plan(
    last_night,
    name="nightly_retrain",
    cron="15 0 * * *",
    kickoff="kickoff",
    default_inputs={"holdout_days": 14, "retrain_after_ratings": 100, "retrain_after_days": 7, "model": ""},
    fixed_inputs={"seed": 0},
)

hourly_materialization = plan(hourly, name="hourly_materialization", cron="40 * * * *", kickoff="day")

enrich_new_movies = plan(
    enrichment, name="enrich_new_movies", cron="10,30,50 * * * *", kickoff="day", default_inputs={"model": ""}
)
