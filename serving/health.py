"""How do data and model stand? Read from the ledger: freshness, refused batches, drift, refused challengers.

The same numbers go to Prometheus, to `millrace monitor` and to the monitoring workflow.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse
from lakehouse.ledger import Decision, Promotion, Run
from lakehouse.tables import Rating
from serving.metrics import Metrics
from serving.parity import GATE as SERVED_PARITY


class LakeHealth(BaseModel):
    """What the ledger says at an instant.

    Attributes:
        at: the instant (UTC).
        newest_day_age_hours: hours since the end of the newest published day of ratings; None if there is none.
        refused_batches: tables of the newest day whose last batch the gate refused.
        drift_psi: largest PSI of the newest night; None if none was measured.
        drifted: features that drifted in it.
        champion_age_days: days since the newest interaction that the champion was trained on.
        refused_gates: gates that refused the newest night's challenger, with the reason.
        ndcg: NDCG@10 of the newest nights, oldest first: of what served on after each.
        served_compared: values that the newest comparison of what was served with the lake compared; None without one.
        served_different: of these, values that differ.
        decay: fall of that from the best of the nights before the last to the last, as a share; None under two nights.
    """

    model_config = ConfigDict(frozen=True)

    at: datetime
    newest_day_age_hours: float | None = None
    refused_batches: list[str] = []
    drift_psi: float | None = None
    drifted: list[str] = []
    champion_age_days: float | None = None
    refused_gates: list[str] = []
    ndcg: list[float] = []
    served_compared: int | None = None
    served_different: int | None = None
    decay: float | None = None


#: Nights that a decay is looked for in.
NIGHTS = 7


def lake_health(lake: Lakehouse, at: datetime) -> LakeHealth:
    """Ask the ledger, at an instant."""
    publications = lake.publications()
    ratings = [p for p in publications if p.table_name == Rating.contract.table and p.published]
    days = [p.day for p in ratings]
    age = None
    if days:
        end = datetime.combine(max(days) + timedelta(days=1), time(), UTC)
        age = max(0.0, (at - end).total_seconds() / 3600)
    last = {p.table_name: p for p in publications if p.kind in ("batch", "requeue")}
    refused = sorted(name for name, p in last.items() if not p.published)
    runs = sorted((run for run in lake.ledger.read(Run) if run.workflow == "nightly"), key=lambda r: r.finished_at)
    psi: float | None = None
    drifted: list[str] = []
    gates: list[str] = []
    if runs:
        decisions = [d for d in lake.ledger.read(Decision) if d.run_id == runs[-1].run_id]
        gates = [f"{d.gate}: {d.reason}" for d in decisions if not d.passed and d.gate != "retrain"]
        psi, drifted = _drift(lake, runs[-1].run_id)
    compared = [d for d in lake.ledger.read(Decision, [("gate", "=", SERVED_PARITY)]) if d.decided_at <= at]
    served = json.loads(compared[-1].inputs) if compared else {}
    promotions = list(lake.ledger.read(Promotion))
    champion = max(promotions, key=lambda p: p.promoted_at) if promotions else None
    quality = [value for run in runs[-NIGHTS:] if (value := _ndcg(run)) is not None]
    decay = None
    if len(quality) > 1 and max(quality[:-1]) > 0:
        decay = 1 - quality[-1] / max(quality[:-1])
    return LakeHealth(
        at=at,
        newest_day_age_hours=age,
        refused_batches=refused,
        drift_psi=psi,
        drifted=drifted,
        champion_age_days=None if champion is None else (at - champion.trained_until).total_seconds() / 86_400,
        refused_gates=gates,
        ndcg=quality,
        served_compared=served.get("compared"),
        served_different=served.get("different"),
        decay=decay,
    )


def measure_lake(lake: Lakehouse, metrics: Metrics, at: datetime) -> LakeHealth:
    """The same as Prometheus metrics."""
    health = lake_health(lake, at)
    if health.newest_day_age_hours is not None:
        metrics.night_age.set(3600 * health.newest_day_age_hours)
    metrics.refused.set(len(health.refused_batches))
    metrics.promotion_failed.set(bool(health.refused_gates))
    if health.served_different is not None:
        metrics.served_different.set(health.served_different)
    if health.drift_psi is not None:
        metrics.drift.set(health.drift_psi)
    return health


def _ndcg(run: Run) -> float | None:
    """NDCG@10 of the model that served on: the challenger if it was promoted, else the champion."""
    metrics = json.loads(run.metrics)
    name = "challenger" if run.verdict.startswith("promoted") else "champion"
    value = metrics.get(f"{name} NDCG@10")
    return float(value) if isinstance(value, (int, float)) else None


def _drift(lake: Lakehouse, run_id: str) -> tuple[float | None, list[str]]:
    from features.drift import DriftRow

    rows = list(lake.ledger.read(DriftRow, [("run_id", "=", run_id)]))
    return max((row.psi for row in rows), default=None), [row.feature for row in rows if row.drifted]
