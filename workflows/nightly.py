"""The main job: bring the lake to the end of a day, and the recommender with it.

    pyflyte -c flyte.yaml run workflows/nightly.py nightly --day 1998-04-20

Read it from top to bottom: that is the order in which it runs. Every value that flows is pinned to a version, so what
has been computed once for a version is never computed again.
"""

from __future__ import annotations

from datetime import datetime

from flytekit import conditional

from lakehouse import Snapshot
from lakehouse.tables import Movie
from tasks.compiled import workflow
from tasks.decide import Champion, RetrainDecision, decide, find_champion, measure_drift
from tasks.enrich import enrich
from tasks.explain import explain
from tasks.features import TrainingSet, ViewState, build_training_set, compute_features, materialize
from tasks.ingest import ingest
from tasks.lake import Lake, open_lake
from tasks.night import Night, conclude
from tasks.promote import Outcome, judge, keep, register
from tasks.publish import publish
from tasks.staleness import look_back
from tasks.train import compare, train, watch_champion


@workflow
def retrain(
    lake: Lake,
    training_set: TrainingSet,
    movies: Snapshot[Movie],
    champion: Champion,
    views: list[ViewState],
    day: datetime,
    seed: int,
) -> Outcome:
    """Train a challenger, compare it with the champion and the baselines, and promote it if every gate lets it pass."""
    challenger = train(training_set=training_set, champion=champion, seed=seed)
    comparison = compare(training_set=training_set, movies=movies, model=challenger, champion=champion)
    gates = judge(training_set=training_set, model=challenger, comparison=comparison, views=views)
    return register(
        lake=lake,
        training_set=training_set,
        model=challenger,
        comparison=comparison,
        gates=gates,
        champion=champion,
        day=day,
        seed=seed,
    )


@workflow
def stay(training_set: TrainingSet, movies: Snapshot[Movie], champion: Champion, decision: RetrainDecision) -> Outcome:
    """Keep the champion, and see how it does on the newest interactions."""
    comparison = watch_champion(training_set=training_set, movies=movies, champion=champion)
    return keep(decision=decision, comparison=comparison)


@workflow
def nightly(
    day: datetime = datetime(1998, 4, 20),
    holdout_days: int = 14,
    retrain_after_ratings: int = 100,
    retrain_after_days: int = 7,
    model: str = "",
    seed: int = 0,
) -> Night:
    """Bring lake, features and recommender to the end of a day, and say in a report what was done and why.

    Args:
        day: the day (UTC); the lake then knows the world as at its end. MovieLens 100K has 1997-09-20 to 1998-04-22.
        holdout_days: the newest days, kept from training and used to compare models.
        retrain_after_ratings: retrain once there are so many ratings to learn from that the champion has not seen.
        retrain_after_days: retrain once the champion is this many days behind what could be learned.
        model: folder of a Hugging Face model for the movie cards; empty for the small default one.
        seed: seeds everything random.

    Returns:
        The run's id in the ledger, the report's path and the verdict.
    """
    lake = open_lake()
    batches = ingest(lake=lake, day=day)
    data = publish(lake=lake, batches=batches)

    stats = compute_features(lake=lake, ratings=data.ratings, day=day)
    enriched = enrich(lake=lake, movies=data.movies, day=day, model=model)
    views = materialize(
        users=data.users,
        movies=data.movies,
        user_stats=stats.user_stats,
        item_stats=stats.item_stats,
        cards=enriched.cards,
        day=day,
    )

    champion = find_champion(lake=lake, day=day)
    drift = measure_drift(ratings=data.ratings, movies=data.movies, cards=enriched.cards, day=day)
    decided = decide(
        champion=champion,
        drift=drift,
        ratings=data.ratings,
        day=day,
        holdout_days=holdout_days,
        retrain_after_ratings=retrain_after_ratings,
        retrain_after_days=retrain_after_days,
    )

    training_set = build_training_set(
        ratings=data.ratings,
        users=data.users,
        movies=data.movies,
        user_stats=stats.user_stats,
        item_stats=stats.item_stats,
        cards=enriched.cards,
        day=day,
        holdout_days=holdout_days,
    )
    outcome = (
        conditional("time_to_retrain")
        .if_(decided.retrain.is_true())  # type: ignore[attr-defined]  # a promise here
        .then(
            retrain(
                lake=lake,
                training_set=training_set,
                movies=data.movies,
                champion=champion,
                views=views,
                day=day,
                seed=seed,
            )
        )
        .else_()
        .then(stay(training_set=training_set, movies=data.movies, champion=champion, decision=decided.decision))
    )

    staleness = look_back(lake=lake, training_set=training_set, day=day)
    explanations = explain(training_set=training_set, movies=data.movies, outcome=outcome, champion=champion)

    return conclude(
        lake=lake,
        users=data.users,
        movies=data.movies,
        ratings=data.ratings,
        user_stats=stats.user_stats,
        item_stats=stats.item_stats,
        cards=enriched.cards,
        usage=enriched.usage,
        views=views,
        drift=drift,
        decision=decided.decision,
        training_set=training_set,
        outcome=outcome,
        staleness=staleness,
        explanations=explanations,
        day=day,
        holdout_days=holdout_days,
        retrain_after_ratings=retrain_after_ratings,
        retrain_after_days=retrain_after_days,
        model=model,
        seed=seed,
    )
