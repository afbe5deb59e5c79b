"""Is it time to act? The ledger's numbers and the service's, against bounds; and when a retrain is launched.

A rule must hold twice in a row before it launches anything (debounce), and after a launch nothing is launched for a
while (cool-down). Both are read from the ledger's decisions, so that it does not matter where the monitor runs.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse
from lakehouse.ledger import Decision
from serving.health import LakeHealth, lake_health

#: Checks in a row that must fire before a retrain is launched.
DEBOUNCE = 2
#: After a launch, nothing is launched for so long.
COOL_DOWN = timedelta(hours=12)
#: Bounds of the rules.
STALE_HOURS = 48.0
DECAY = 0.10
CHAMPION_DAYS = 30.0
DRIFT_PSI = 0.2

GATE = "monitor"


class Finding(BaseModel):
    """One rule against its bound; ``page`` is the runbook."""

    model_config = ConfigDict(frozen=True)

    rule: Literal["freshness", "bad batch", "drift", "decay", "age", "promotion", "parity"]
    fired: bool
    value: str
    bound: str
    page: str


class Verdict(BaseModel):
    """What a check came to.

    Attributes:
        findings: every rule.
        retrain: whether to launch the retrain now.
        reason: one sentence.
    """

    model_config = ConfigDict(frozen=True)

    findings: list[Finding]
    retrain: bool
    reason: str


def findings(health: LakeHealth) -> list[Finding]:
    """Every rule against the ledger's numbers."""
    age = health.newest_day_age_hours
    champion = health.champion_age_days
    return [
        Finding(
            rule="freshness",
            fired=age is None or age > STALE_HOURS,
            value="no data" if age is None else f"{age:.1f} h",
            bound=f"{STALE_HOURS:g} h",
            page="docs/runbooks/stale-features.md",
        ),
        Finding(
            rule="bad batch",
            fired=bool(health.refused_batches),
            value=", ".join(health.refused_batches) or "none",
            bound="none refused",
            page="docs/runbooks/bad-batch.md",
        ),
        Finding(
            rule="drift",
            fired=bool(health.drifted),
            value="not measured" if health.drift_psi is None else f"PSI {health.drift_psi:.2f}",
            bound=f"PSI {DRIFT_PSI:g}",
            page="docs/runbooks/drift.md",
        ),
        Finding(
            rule="decay",
            fired=health.decay is not None and health.decay > DECAY,
            value="not measured" if health.decay is None else f"{health.decay:+.0%}",
            bound=f"{DECAY:.0%} of NDCG@10",
            page="docs/runbooks/decay.md",
        ),
        Finding(
            rule="age",
            fired=champion is not None and champion > CHAMPION_DAYS,
            value="no champion" if champion is None else f"{champion:.1f} days",
            bound=f"{CHAMPION_DAYS:g} days",
            page="docs/runbooks/decay.md",
        ),
        Finding(
            rule="promotion",
            fired=bool(health.refused_gates),
            value=", ".join(gate.partition(":")[0] for gate in health.refused_gates) or "none refused",
            bound="none refused",
            page="docs/runbooks/failed-promotion.md",
        ),
        Finding(
            rule="parity",
            fired=bool(health.served_different),
            value="not compared"
            if health.served_compared is None
            else f"{health.served_different} of {health.served_compared}",
            bound="no served value differs",
            page="docs/runbooks/parity.md",
        ),
    ]


def check(lake: Lakehouse, at: datetime, *, note: bool = True) -> Verdict:
    """Look at the lake at an instant and decide; the decision is written into the ledger unless ``note`` is off.

    Only drift, decay and age are what a retrain can mend.
    """
    found = findings(lake_health(lake, at))
    causes = [f"{one.rule} ({one.value}, bound {one.bound})" for one in found if one.fired and one.rule in _MENDED]
    before = [d for d in lake.ledger.read(Decision, [("gate", "=", GATE)]) if d.decided_at < at]
    row = 1 if causes else 0
    for decision in reversed(before):
        if not causes or not json.loads(decision.inputs)["causes"] or row >= DEBOUNCE:
            break
        row += 1
    launches = [d.decided_at for d in before if d.passed]
    cooling = bool(launches) and at - launches[-1] < COOL_DOWN
    retrain = row >= DEBOUNCE and not cooling
    if not causes:
        reason = "No rule that a retrain would mend has fired."
    elif retrain:
        reason = f"Retrain: {', '.join(causes)}, {row} checks in a row."
    elif cooling:
        reason = f"{', '.join(causes)}; the last launch was at {launches[-1]:%Y-%m-%d %H:%M}, {COOL_DOWN} must pass."
    else:
        reason = f"{', '.join(causes)}; it must hold {DEBOUNCE} checks in a row."
    if note:
        lake.ledger.append(
            [
                Decision(
                    decision_id=f"{GATE}/{at.isoformat()}",
                    run_id=f"{GATE}/{at.isoformat()}",
                    gate=GATE,
                    passed=retrain,
                    reason=reason,
                    inputs=json.dumps({"causes": causes, "fired": [one.rule for one in found if one.fired]}),
                    decided_at=at,
                )
            ]
        )
    return Verdict(findings=found, retrain=retrain, reason=reason)


_MENDED = ("drift", "decay", "age")
