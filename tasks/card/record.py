"""What does the ledger know of one model version? Every row that is about it, gathered once."""

from __future__ import annotations

import json
from dataclasses import dataclass

from features.drift import DriftRow
from lakehouse.lake import Lakehouse
from lakehouse.ledger import (
    Approval,
    Cost,
    Decision,
    Deployment,
    LlmCost,
    Metric,
    Promotion,
    Publication,
    Run,
)
from models.errors import RegistryError
from models.registry import CHAMPION
from tasks.errors import UnsourcedError


@dataclass(frozen=True)
class ModelRecord:
    """The ledger's rows about one version of the model.

    Attributes:
        version: number in the model registry.
        digest: SHA-256 over the model's files.
        run: the newest run that trained it.
        promotion: None if it never became champion.
        promotions: of all versions, oldest first.
        decisions: the run's gates.
        drift: the run's comparison of features.
        publications: of the table versions that it was trained on.
        metrics: Deequ's, of the same versions.
        costs: what the run's tasks took.
        llm_costs: what the run asked of a language model.
        deployments: acts of the service on this version.
        approvals: what people said of it, oldest first.
    """

    version: int
    digest: str
    run: Run
    promotion: Promotion | None
    promotions: list[Promotion]
    decisions: list[Decision]
    drift: list[DriftRow]
    publications: list[Publication]
    metrics: list[Metric]
    costs: list[Cost]
    llm_costs: list[LlmCost]
    deployments: list[Deployment]
    approvals: list[Approval]


def identify(lake: Lakehouse, reference: str) -> tuple[int, str]:
    """The (registry version, digest) that a number or `champion` names: by the ledger, else by the registry.

    Raises:
        RegistryError: there is no such version, or the registry does not answer.
    """
    promotions = list(lake.ledger.read(Promotion))
    known = [p for p in promotions if reference in (CHAMPION, str(p.registry_version))]
    if known:
        return known[-1].registry_version, known[-1].model_digest
    if reference == CHAMPION:
        raise RegistryError.unknown(reference)
    from models.registry import find

    found = find(reference)  # one that the gates refused stands only there
    return found.version, found.digest


def gather(lake: Lakehouse, reference: str) -> ModelRecord:
    """All rows about a version.

    Raises:
        RegistryError: there is no such version.
        UnsourcedError: no run of this lake made it.
    """
    version, digest = identify(lake, reference)
    ledger = lake.ledger
    runs = [run for run in ledger.read(Run) if json.loads(run.artifacts).get("model") == digest]
    if not runs:
        raise UnsourcedError.no_run(version, digest)
    run = runs[-1]
    promotions = list(ledger.read(Promotion))
    own = [p for p in promotions if p.model_digest == digest]
    return ModelRecord(
        version=version,
        digest=digest,
        run=run,
        promotion=own[-1] if own else None,
        promotions=promotions,
        decisions=list(ledger.read(Decision, [("run_id", "=", run.run_id)])),
        drift=list(ledger.read(DriftRow, [("run_id", "=", run.run_id)])),
        publications=[p for p in lake.publications() if f"{p.table_name}@{p.version}" in run.inputs],
        metrics=[m for m in ledger.read(Metric) if f"{m.table_name}@{m.version}" in run.inputs],
        costs=list(ledger.read(Cost, [("execution", "=", run.execution)])),
        llm_costs=list(ledger.read(LlmCost, [("execution", "=", run.execution)])),
        deployments=list(ledger.read(Deployment, [("model_digest", "=", digest)])),
        approvals=list(ledger.read(Approval, [("model_digest", "=", digest)])),
    )
