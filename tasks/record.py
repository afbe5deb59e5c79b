"""What does the ledger keep of a night? One row a run with all it depends on, and one row a decision."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from features.drift import DriftRow
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Cost, Decision, Run
from lakehouse.tracing.openlineage import announce
from tasks.cache import MILLRACE_ROOT, environment_digest, project_digest

if TYPE_CHECKING:
    from tasks.night import Evidence


def record_run(lake: Lakehouse, evidence: Evidence, reports: Path, execution: str) -> Run:
    """Append the run and its decisions; the id is a digest, so that the same night recorded again adds nothing."""
    outcome, model = evidence.outcome, evidence.outcome.model
    parameters = json.dumps(evidence.parameters, sort_keys=True)
    code, lock = project_digest(), environment_digest()
    depends_on = [lake.id, parameters, code, lock, *evidence.tables, evidence.training_set.digest]
    run_id = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()[:16]
    now = datetime.now(UTC)
    own = [cost for cost in lake.ledger.read(Cost) if cost.execution == execution]
    artifacts = {
        "training_set": evidence.training_set.digest,
        "llm": evidence.usage.model_digest,
        "prompt": evidence.usage.prompt_digest,
        **({"model": model.digest} if model else {}),
    }
    metrics = {f"{score.contender} {score.metric}": score.value for score in outcome.comparison.scores}
    run = Run(
        run_id=run_id,
        execution=execution,
        workflow="nightly",
        day=evidence.day.date(),
        parameters=parameters,
        seed=evidence.seed,
        code_digest=code,
        commit=commit(),
        lock_digest=lock,
        inputs=evidence.training_set.sources,
        outputs=evidence.tables,
        artifacts=json.dumps(artifacts, sort_keys=True),
        metrics=json.dumps(metrics, sort_keys=True),
        verdict=f"{outcome.verdict}: {outcome.reason}",
        report=str(reports / f"{evidence.day.date()}-{run_id}.html"),
        seconds=(now - min((cost.started_at for cost in own), default=now)).total_seconds(),
        finished_at=now,
    )
    lake.ledger.append([run])
    announce(lake, run)
    retrain = Decision(
        decision_id=f"{run_id}/retrain",
        run_id=run_id,
        gate="retrain",
        passed=evidence.decision.retrain,
        reason=evidence.decision.reason,
        inputs=json.dumps(
            {"cause": evidence.decision.cause, "psi": {shift.feature: shift.psi for shift in evidence.drift}},
            sort_keys=True,
        ),
        decided_at=now,
    )
    gates = [
        Decision(
            decision_id=f"{run_id}/{gate.gate}",
            run_id=run_id,
            gate=gate.gate,
            passed=gate.passed,
            reason=gate.reason,
            inputs=json.dumps(gate.inputs, sort_keys=True),
            decided_at=now,
        )
        for gate in outcome.gates
    ]
    lake.ledger.append([retrain, *gates])
    shifts = [
        DriftRow(drift_id=f"{run_id}/{shift.feature}", run_id=run_id, compared_at=now, **shift.model_dump())
        for shift in evidence.drift
    ]
    lake.ledger.append(shifts)
    return run


def commit() -> str:
    """The checkout's Git commit, with + if files differ from it; empty outside a checkout or without Git."""
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(MILLRACE_ROOT), *words],  # noqa: S607  # whichever Git the user has
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}{'+' if changed else ''}"
