"""How does a night end? With a row in the ledger, enough to do it again, and a report worth reading."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from features.tables import ItemStats, UserStats
from lakehouse import Snapshot
from lakehouse.settings import Settings
from lakehouse.tables import Movie, MovieCard, Rating, User
from tasks.decide import FeatureShift, RetrainDecision
from tasks.enrich import LlmUsage
from tasks.explain import Explanations
from tasks.features import TrainingSet, ViewState
from tasks.kept import Artifact
from tasks.lake import Lake
from tasks.promote import Outcome
from tasks.staleness import Staleness
from tasks.typed import task


class Night(BaseModel):
    """Where to read what a night did.

    Attributes:
        run_id: the run's row in the ledger (`millrace show RUN`).
        report: path of the HTML page.
        verdict: promoted, registered or kept, with the reason.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    report: Annotated[str, Artifact()]
    verdict: str


class Evidence(BaseModel):
    """What the tasks of a night found out, for the ledger and the report."""

    model_config = ConfigDict(frozen=True)

    day: datetime
    seed: int
    parameters: dict[str, str]
    tables: list[str]
    usage: LlmUsage
    views: list[ViewState]
    drift: list[FeatureShift]
    decision: RetrainDecision
    training_set: TrainingSet
    outcome: Outcome
    staleness: Staleness
    explanations: Explanations


@task(memory="2Gi", deck=True)
def conclude(
    lake: Lake,
    users: Snapshot[User],
    movies: Snapshot[Movie],
    ratings: Snapshot[Rating],
    user_stats: Snapshot[UserStats],
    item_stats: Snapshot[ItemStats],
    cards: Snapshot[MovieCard],
    usage: LlmUsage,
    views: list[ViewState],
    drift: list[FeatureShift],
    decision: RetrainDecision,
    training_set: TrainingSet,
    outcome: Outcome,
    staleness: Staleness,
    explanations: Explanations,
    day: datetime,
    holdout_days: int,
    retrain_after_ratings: int,
    retrain_after_days: int,
    model: str,
    seed: int,
) -> Night:
    """Write the run and its decisions into the ledger, and the report beside the lake."""
    import flytekit

    from tasks.record import record_run
    from tasks.report import render, render_fragment
    from tasks.typed import execution_id
    from tasks.write_up import write_up

    snapshots: list[Snapshot[Rating | User | Movie | UserStats | ItemStats | MovieCard]] = [
        users,
        movies,
        ratings,
        user_stats,
        item_stats,
        cards,
    ]
    evidence = Evidence(
        day=day,
        seed=seed,
        parameters={
            "day": str(day.date()),
            "holdout_days": str(holdout_days),
            "retrain_after_ratings": str(retrain_after_ratings),
            "retrain_after_days": str(retrain_after_days),
            "model": model,
            "seed": str(seed),
        },
        tables=[snapshot.reference for snapshot in snapshots],
        usage=usage,
        views=views,
        drift=drift,
        decision=decision,
        training_set=training_set,
        outcome=outcome,
        staleness=staleness,
        explanations=explanations,
    )
    lakehouse = lake.open()
    folder = Settings().state / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    run = record_run(lakehouse, evidence, folder, execution_id())
    report = write_up(lakehouse, evidence, run, execution_id(), ratings, cards, movies)
    page = folder / f"{day.date()}-{run.run_id}.html"
    page.write_text(render(report), encoding="utf-8")
    page.with_suffix(".json").write_text(report.model_dump_json(indent=1), encoding="utf-8")
    flytekit.Deck("night", render_fragment(report))
    return Night(run_id=run.run_id, report=str(page), verdict=run.verdict)
