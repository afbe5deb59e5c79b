"""When does the nightly job retrain, and what does it say?"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import write_deltalake

from lakehouse import Lakehouse, Snapshot
from lakehouse.contracts.arrow import to_arrow
from lakehouse.ledger import Decision, Promotion, Run
from lakehouse.tables import Rating
from models.recommender import FORMAT
from tasks.decide import Champion, FeatureShift, decide, find_champion
from tasks.lake import Lake

DAY = datetime(1998, 4, 20)
CUTOFF = datetime(1998, 4, 7, tzinfo=UTC)  # 14 days before the end of DAY
CHAMPION = Champion(digest="d", path="p", registry_version=1, trained_until=CUTOFF - timedelta(days=2))
SHIFT = FeatureShift(
    feature="genres",
    psi=0.3,
    jensen_shannon=0.2,
    test="chi-square",
    adjusted_p_value=0.001,
    threshold=0.2,
    drifted=True,
    reference_rows=900,
    current_rows=900,
)


@pytest.fixture
def ratings(lake: Lakehouse) -> Snapshot[Rating]:
    """Three ratings that the champion has seen, five that it has not, four of the newest days."""
    instants = [
        *[CHAMPION.trained_until - timedelta(hours=n) for n in range(3)],
        *[CUTOFF - timedelta(hours=n + 1) for n in range(5)],
        *[CUTOFF + timedelta(hours=n) for n in range(4)],
    ]
    rows = [Rating(user_id=1, item_id=n, rating=3.0, rated_at=at) for n, at in enumerate(instants, 1)]
    write_deltalake(lake.uri("ratings"), to_arrow(Rating, rows))
    return Snapshot(lake.uri("ratings"), 0, Rating)


def ask(champion: Champion, ratings: Snapshot[Rating], drift: list[FeatureShift], after: int, days: int):
    return decide(
        champion=champion,
        drift=drift,
        ratings=ratings,
        day=DAY,
        holdout_days=14,
        retrain_after_ratings=after,
        retrain_after_days=days,
    )


def test_without_a_champion_it_trains(ratings: Snapshot[Rating]) -> None:
    decided = ask(Champion(), ratings, [], 100, 100)
    assert decided.retrain and "No champion yet" in decided.decision.reason


def test_only_ratings_between_the_champions_newest_and_the_cutoff_count(ratings: Snapshot[Rating]) -> None:
    assert ask(CHAMPION, ratings, [], 5, 100).retrain
    kept = ask(CHAMPION, ratings, [], 6, 100)
    assert not kept.retrain
    assert kept.decision.new_ratings == 5
    assert "5 of 6 ratings" in kept.decision.reason


def test_drift_and_age_each_suffice_and_are_named(ratings: Snapshot[Rating]) -> None:
    drifted = ask(CHAMPION, ratings, [SHIFT], 100, 100)
    assert drifted.retrain and "genres (PSI 0.30)" in drifted.decision.reason
    quiet = SHIFT.model_copy(update={"drifted": False})
    assert not ask(CHAMPION, ratings, [quiet], 100, 3).retrain
    aged = ask(CHAMPION, ratings, [quiet], 100, 2)
    assert aged.retrain and "2 days" in aged.decision.reason


def test_drift_that_was_answered_within_the_window_is_not_answered_again(ratings: Snapshot[Rating]) -> None:
    def after(days: int) -> Champion:
        return CHAMPION.model_copy(update={"drift_answered": DAY.date() - timedelta(days=days)})

    kept = ask(after(13), ratings, [SHIFT], 100, 100)
    assert not kept.retrain and kept.decision.cause == "none"
    assert f"answered on {DAY.date() - timedelta(days=13)}" in kept.decision.reason
    assert ask(after(14), ratings, [SHIFT], 100, 100).decision.cause == "drift"
    assert ask(after(13), ratings, [SHIFT], 5, 100).decision.cause == "new ratings"


def test_a_night_knows_when_drift_was_answered_last(lake: Lakehouse) -> None:
    for number, cause in ((17, "drift"), (18, "age"), (20, "drift")):
        day = datetime(1998, 4, number)
        run = {"run_id": f"r{number}", "day": day.date(), "finished_at": CUTOFF, "seed": 0, "seconds": 1.0}
        texts = ("execution", "workflow", "code_digest", "commit", "lock_digest", "verdict", "report")
        objects = ("parameters", "artifacts", "metrics")
        lake.ledger.append(
            [Run(**run, inputs=[], outputs=[], **dict.fromkeys(texts, ""), **dict.fromkeys(objects, "{}"))]
        )
        decision = {"decision_id": f"r{number}/retrain", "run_id": f"r{number}", "gate": "retrain", "passed": True}
        lake.ledger.append([Decision(**decision, reason="", inputs=json.dumps({"cause": cause}), decided_at=CUTOFF)])
    place = Lake(root=lake.root, id=lake.id)
    assert find_champion(lake=place, day=DAY).drift_answered == date(1998, 4, 17)
    assert find_champion(lake=place, day=datetime(1998, 4, 21)).drift_answered == date(1998, 4, 20)


def test_a_model_of_earlier_code_is_no_champion(lake: Lakehouse, tmp_path: Path) -> None:
    for name, form, met in (("old", 1, False), ("new", FORMAT, True), ("broken", None, True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{" if form is None else json.dumps({"format": form}))
        row = promotion(20, model_path=str(tmp_path / name))
        place = Lakehouse.open(tmp_path / f"lake-{name}", create=True)
        place.ledger.append([row])
        found = find_champion(lake=Lake(root=place.root, id=place.id), day=datetime(1998, 4, 21))
        assert (found.digest == row.model_digest) is met, name


def promotion(number: int, model_path: str = "p") -> Promotion:
    return Promotion(
        promotion_id=f"{number}",
        day=datetime(1998, 4, number).date(),
        model_digest=f"digest{number}",
        model_path=model_path,
        registry_version=number,
        trained_until=CUTOFF,
        promoted_at=CUTOFF,
    )


def test_a_night_meets_the_champion_of_the_nights_before_it(lake: Lakehouse) -> None:
    for number in (18, 19, 20):
        lake.ledger.append([promotion(number)])
    place = Lake(root=lake.root, id=lake.id)
    assert find_champion(lake=place, day=DAY).digest == "digest19"
    assert find_champion(lake=place, day=datetime(1998, 4, 18)) == Champion()
