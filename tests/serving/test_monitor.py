"""When does the monitor see trouble, and when does it launch a retrain?"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from features.drift import DriftRow
from lakehouse import Lakehouse
from lakehouse.ledger import Decision, Promotion, Publication, Run
from serving.health import lake_health
from serving.monitor import COOL_DOWN, check, findings

AT = datetime(1998, 4, 21, 6, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def night(lake: Lakehouse, day: date, ndcg: float, *, verdict: str = "promoted: x", psi: float = 0.05) -> None:
    """What a night leaves in the ledger."""
    finished = datetime(day.year, day.month, day.day, 23, tzinfo=UTC)
    run = Run(
        run_id=f"run-{day}",
        execution="e",
        workflow="nightly",
        day=day,
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=[],
        outputs=[],
        artifacts="{}",
        metrics=json.dumps({"challenger NDCG@10": ndcg, "champion NDCG@10": ndcg}),
        verdict=verdict,
        report="",
        seconds=1.0,
        finished_at=finished,
    )
    drift = DriftRow(
        drift_id=f"{run.run_id}/rating",
        run_id=run.run_id,
        feature="rating",
        psi=psi,
        jensen_shannon=0.1,
        test="chi-square",
        adjusted_p_value=0.0,
        threshold=0.2,
        drifted=psi > 0.2,
        reference_rows=1000,
        current_rows=1000,
        compared_at=finished,
    )
    promotion = Promotion(
        promotion_id=run.run_id,
        day=day,
        model_digest="d",
        model_path="",
        registry_version=1,
        trained_until=finished - timedelta(days=10),
        promoted_at=finished,
    )
    retrain = Decision(
        decision_id=f"{run.run_id}/retrain",
        run_id=run.run_id,
        gate="retrain",
        passed=True,
        reason="Drift.",
        inputs="{}",
        decided_at=finished,
    )
    for row in (run, drift, promotion, retrain):
        lake.ledger.append([row])


def batch(lake: Lakehouse, table: str, day: date, *, published: bool) -> None:
    number = len(lake.publications())
    publication = Publication(
        publication_id=f"{table}/{number}",
        table_name=table,
        batch_id=f"{day}-{number}",
        day=day,
        version=number,
        published=published,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=datetime(day.year, day.month, day.day, 12, number, tzinfo=UTC),
    )
    lake.ledger.append([publication])


@pytest.fixture
def calm(lake: Lakehouse) -> Lakehouse:
    batch(lake, "ratings", date(1998, 4, 20), published=True)
    night(lake, date(1998, 4, 19), 0.30)
    night(lake, date(1998, 4, 20), 0.29)
    return lake


def fired(lake: Lakehouse, at: datetime = AT) -> list[str]:
    return [one.rule for one in findings(lake_health(lake, at)) if one.fired]


def test_a_lake_in_order_fires_nothing(calm: Lakehouse) -> None:
    assert fired(calm) == []
    verdict = check(calm, AT)
    assert not verdict.retrain and "No rule" in verdict.reason
    assert [d.passed for d in calm.ledger.read(Decision) if d.gate == "monitor"] == [False]


def test_each_trouble_fires_its_rule_and_no_other(calm: Lakehouse) -> None:
    assert fired(calm, AT + timedelta(days=3)) == ["freshness"]
    assert fired(calm, AT + timedelta(days=40)) == ["freshness", "age"]
    batch(calm, "ratings", date(1998, 4, 21), published=False)
    assert fired(calm) == ["bad batch"]
    batch(calm, "ratings", date(1998, 4, 21), published=True)
    assert fired(calm) == []
    gate = Decision(
        decision_id="run-1998-04-20/better",
        run_id="run-1998-04-20",
        gate="better than EASE",
        passed=False,
        reason="0.1 against 0.2.",
        inputs="{}",
        decided_at=AT,
    )
    calm.ledger.append([gate])
    assert fired(calm) == ["promotion"]


def test_decay_is_the_fall_from_the_best_of_the_last_nights(calm: Lakehouse) -> None:
    night(calm, date(1998, 4, 21), 0.26, verdict="kept: x")
    assert lake_health(calm, AT).decay == pytest.approx(1 - 0.26 / 0.30)
    assert fired(calm) == ["decay"]


def test_a_retrain_is_launched_on_the_second_look_and_then_not_for_a_while(calm: Lakehouse) -> None:
    night(calm, date(1998, 4, 21), 0.29, psi=0.4)
    looks = [check(calm, AT + n * QUARTER) for n in range(4)]
    assert [look.retrain for look in looks] == [False, True, False, False]
    assert "2 checks in a row" in looks[0].reason and looks[1].reason.startswith("Retrain: drift (PSI 0.40")
    assert "must pass" in looks[2].reason
    assert check(calm, AT + QUARTER + COOL_DOWN).retrain


def test_one_calm_look_begins_the_count_anew(calm: Lakehouse) -> None:
    night(calm, date(1998, 4, 21), 0.29, psi=0.4)
    assert not check(calm, AT).retrain
    night(calm, date(1998, 4, 22), 0.29)
    assert not check(calm, AT + QUARTER).retrain
    night(calm, date(1998, 4, 23), 0.29, psi=0.4)
    assert not check(calm, AT + 2 * QUARTER).retrain
    assert check(calm, AT + 3 * QUARTER).retrain


def test_a_look_without_a_note_changes_nothing(calm: Lakehouse) -> None:
    night(calm, date(1998, 4, 21), 0.29, psi=0.4)
    assert not any(check(calm, AT + n * QUARTER, note=False).retrain for n in range(3))
    assert [d for d in calm.ledger.read(Decision) if d.gate == "monitor"] == []
