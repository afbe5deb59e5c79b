"""Is it time to retrain? Who is champion, what has drifted, and the decision with its reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lakehouse import Snapshot
from lakehouse.tables import Movie, MovieCard, Rating
from tasks.kept import Artifact
from tasks.lake import Lake
from tasks.show import show
from tasks.typed import task

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.ledger import Decision, Promotion

#: The newest ratings are compared with those of the weeks before them.
CURRENT_DAYS = 14
REFERENCE_DAYS = 56
#: What is compared of them.
DRIFT_COLUMNS = ("rating", "year", "genres", "mood", "audience")


class Champion(BaseModel):
    """The model in use before this night; empty strings and zeros while there is none.

    Attributes:
        digest: SHA-256 over the model's files.
        path: folder of the files.
        registry_version: version in the model registry.
        trained_until: time of the newest interaction it was trained on.
        drift_answered: day of the last night before this one that retrained because of drift.
    """

    model_config = ConfigDict(frozen=True)

    digest: str = ""
    path: Annotated[str, Artifact()] = ""
    registry_version: int = 0
    trained_until: datetime | None = None
    drift_answered: date | None = None


class FeatureShift(BaseModel):
    """How far one column of the newest ratings is from the weeks before, and whether by chance (features.drift)."""

    model_config = ConfigDict(frozen=True)

    feature: str
    psi: float
    jensen_shannon: float
    test: Literal["kolmogorov-smirnov", "chi-square"]
    adjusted_p_value: float
    threshold: float
    drifted: bool
    reference_rows: int
    current_rows: int


class RetrainDecision(BaseModel):
    """Whether to retrain, in one sentence with the numbers that decided."""

    model_config = ConfigDict(frozen=True)

    retrain: bool
    cause: Literal["no champion", "drift", "new ratings", "age", "none"]
    reason: str
    new_ratings: int


class Decided(NamedTuple):
    """The verdict as Flyte's condition reads it, and as people do."""

    retrain: bool
    decision: RetrainDecision


@task(memory="1Gi")
def find_champion(lake: Lake, day: datetime) -> Champion:
    """The model promoted last in a night before this day: a night run again meets the champion that it met then.

    Where its files are gone, they are fetched from the registry. A model that earlier code wrote in a format of its own
    can be no champion: the night then trains as if there were none.
    """
    from lakehouse.ledger import Decision, Promotion, Run

    ledger = lake.open().ledger
    before = [p for p in ledger.read(Promotion) if p.day < day.date()]
    days = {run.run_id: run.day for run in ledger.read(Run) if run.day < day.date()}
    answered = [
        days[d.run_id] for d in ledger.read(Decision) if d.run_id in days and d.gate == "retrain" and _by_drift(d)
    ]
    drift_answered = max(answered, default=None)
    if not before:
        return Champion(drift_answered=drift_answered)
    last = max(before, key=lambda promotion: (promotion.day, promotion.promoted_at))
    if _of_earlier_code(files_of(last)):
        return Champion(drift_answered=drift_answered)
    return Champion(
        digest=last.model_digest,
        path=last.model_path,
        registry_version=last.registry_version,
        trained_until=last.trained_until,
        drift_answered=drift_answered,
    )


def files_of(promotion: Promotion) -> Path:
    """The folder of a promoted model's files, fetched from the registry where they are gone; who loads the model says
    what is still missing."""
    from models.errors import RegistryError
    from models.registry import fetch, find

    folder = Path(promotion.model_path)
    if not folder.exists():
        with suppress(RegistryError, OSError):
            fetch(find(str(promotion.registry_version)), folder.parent)
    return folder


def _of_earlier_code(folder: Path) -> bool:
    from models.artifact import format_of
    from models.recommender import FORMAT

    return format_of(folder) not in (None, FORMAT)  # what can't be read at all is named by who loads it


@task(memory="2Gi", deck=True)
def measure_drift(
    ratings: Snapshot[Rating], movies: Snapshot[Movie], cards: Snapshot[MovieCard], day: datetime
) -> list[FeatureShift]:
    """Drift of what was rated: the last 14 days against the 56 days before."""
    from features.store import end_of

    shifts = compare_windows(_described(ratings, movies, cards), end_of(day.date()))
    show("drift", [shift.model_dump() for shift in shifts])
    return shifts


@task(memory="1Gi")
def decide(
    champion: Champion,
    drift: list[FeatureShift],
    ratings: Snapshot[Rating],
    day: datetime,
    holdout_days: int,
    retrain_after_ratings: int,
    retrain_after_days: int,
) -> Decided:
    """Retrain without a champion, on drift, after enough ratings it has not learned from, or at a certain age.

    Drift that a night has answered by retraining stays visible until the reference window has moved on: for as long as
    the current window is wide, it is not answered again.
    """
    from features.store import end_of

    if champion.trained_until is None:
        total = ratings.count()
        return Decided(True, _because("no champion", f"No champion yet; {total} ratings to learn from.", total))
    # What a challenger would learn from and the champion did not; the newest days are kept for the test.
    cutoff = end_of(day.date()) - timedelta(days=holdout_days)
    fresh = ratings.arrow(["rated_at"], [("rated_at", ">", champion.trained_until), ("rated_at", "<", cutoff)]).num_rows
    decision = time_to_retrain(
        champion.trained_until,
        champion.drift_answered,
        drift,
        fresh,
        day.date(),
        cutoff,
        retrain_after_ratings=retrain_after_ratings,
        retrain_after_days=retrain_after_days,
    )
    return Decided(decision.retrain, decision)


def compare_windows(described: pa.Table, until: datetime) -> list[FeatureShift]:
    """Drift of what was rated: the last 14 days before an instant against the 56 days before these.

    ``described``: rated_at, and those of ``DRIFT_COLUMNS`` that are known of what was rated.
    """
    from features.drift import drift

    current_from = until - timedelta(days=CURRENT_DAYS)
    reference_from = current_from - timedelta(days=REFERENCE_DAYS)
    columns = [name for name in DRIFT_COLUMNS if name in described.column_names]
    found = drift(_between(described, reference_from, current_from), _between(described, current_from, until), columns)
    return [
        FeatureShift(
            feature=one.feature,
            psi=one.psi,
            jensen_shannon=one.jensen_shannon,
            test=one.test,
            adjusted_p_value=one.adjusted_p_value,
            threshold=one.threshold,
            drifted=one.drifted,
            reference_rows=one.reference_rows,
            current_rows=one.current_rows,
        )
        for one in found
        if one.psi is not None and one.jensen_shannon is not None
    ]


def time_to_retrain(
    trained_until: datetime,
    drift_answered: date | None,
    drift: Sequence[FeatureShift],
    fresh: int,
    day: date,
    cutoff: datetime,
    *,
    retrain_after_ratings: int,
    retrain_after_days: int,
) -> RetrainDecision:
    """The rule for a champion that is there.

    Args:
        trained_until: time of the newest interaction that the champion was trained on.
        drift_answered: day of the last night that retrained because of drift.
        drift: as found at the end of the day.
        fresh: ratings before the cutoff that the champion was not trained on.
        day: the night's day.
        cutoff: up to here a challenger would learn.
        retrain_after_ratings: retrain from so many fresh ratings on.
        retrain_after_days: retrain once the champion is so many days behind the cutoff.
    """
    age = (cutoff - trained_until).days
    drifted = [f"{shift.feature} (PSI {shift.psi:.2f})" for shift in drift if shift.drifted]
    cooling = drift_answered is not None and (day - drift_answered).days < CURRENT_DAYS
    if drifted and not cooling:
        return _because("drift", f"Drift in {', '.join(drifted)}.", fresh)
    if fresh >= retrain_after_ratings:
        reason = f"{fresh} ratings to learn from that the champion has not seen, at least {retrain_after_ratings}."
        return _because("new ratings", reason, fresh)
    if age >= retrain_after_days:
        reason = f"The champion lags {age} days behind what could be learned, from {retrain_after_days}."
        return _because("age", reason, fresh)
    moved = f"Drift in {', '.join(drifted)}, answered on {drift_answered}" if drifted else "No drift"
    reason = (
        f"{moved}; {fresh} of {retrain_after_ratings} ratings that the champion has not seen, "
        f"{age} of {retrain_after_days} days behind."
    )
    return _because("none", reason, fresh)


def _because(
    cause: Literal["no champion", "drift", "new ratings", "age", "none"], reason: str, new_ratings: int
) -> RetrainDecision:
    return RetrainDecision(retrain=cause != "none", cause=cause, reason=reason, new_ratings=new_ratings)


def _by_drift(decision: Decision) -> bool:
    """Whether the night retrained because of drift."""
    return decision.gate == "retrain" and bool(json.loads(decision.inputs).get("cause") == "drift")


def _described(ratings: Snapshot[Rating], movies: Snapshot[Movie], cards: Snapshot[MovieCard]) -> pa.Table:
    """Each rating with what is known about its movie."""
    rated = ratings.polars(["item_id", "rating", "rated_at"])
    described = rated.join(movies.polars(["item_id", "year", "genres"]), on="item_id", how="left")
    return described.join(cards.polars(["item_id", "mood", "audience"]), on="item_id", how="left").to_arrow()


def _between(rows: pa.Table, start: datetime, end: datetime) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    clock = rows["rated_at"]
    bounds = [pa.scalar(instant, clock.type) for instant in (start, end)]
    return rows.filter(pc.and_(pc.greater_equal(clock, bounds[0]), pc.less(clock, bounds[1])))
