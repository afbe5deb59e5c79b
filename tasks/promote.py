"""Does the challenger become champion? Gates with reasons, the registry, and the alias that serving follows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict

from lakehouse.ledger import Promotion
from lakehouse.settings import Settings
from models.registry import REGISTERED_MODEL, alone, quiet_mlflow, registry_name, tracking_uri
from tasks.decide import Champion, RetrainDecision
from tasks.features import TrainingSet, ViewState
from tasks.kept import Destination
from tasks.lake import Lake
from tasks.show import show
from tasks.train import Comparison, Model, Score
from tasks.typed import task

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRIC = "NDCG@10"
#: What a challenger must beat: what people would pick instead.
BASELINES = ("popularity", "recent popularity", "item-kNN", "EASE")
#: What 95 of 100 answers to one user may cost, in milliseconds of CPU time: the clock on the wall would judge the
#: machine's other work too.
MAX_MILLISECONDS = 50.0
#: The largest that a model's files may be, MiB.
MAX_MEBIBYTES = 256.0


class Gate(BaseModel):
    """One condition of promotion, with the numbers that decided."""

    model_config = ConfigDict(frozen=True)

    gate: str
    passed: bool
    reason: str
    inputs: dict[str, float]


class Outcome(BaseModel):
    """How the night ended for the model.

    Attributes:
        verdict: promoted; registered, but not promoted; or kept (the champion stays, nothing was trained).
        reason: one sentence.
        model: the challenger; None if nothing was trained.
        registry_version: the challenger's version in the registry; 0 if nothing was trained.
        comparison: everybody on the newest interactions.
        gates: the conditions of promotion.
        registry: where the challenger was registered; a new registry is not filled by an answer from the cache.
    """

    model_config = ConfigDict(frozen=True)

    verdict: str
    reason: str
    model: Model | None
    registry_version: int
    comparison: Comparison
    gates: list[Gate]
    registry: Annotated[str, Destination(registry_name)] = ""


@task(memory="1Gi", deck=True)
def judge(training_set: TrainingSet, model: Model, comparison: Comparison, views: list[ViewState]) -> list[Gate]:
    """The gates: not worse than the champion, better than the baselines, fair, online equal to offline, fast, small.

    The champion is met twice: in the days after the cutoff, and at the next item in the midst of a visit.
    """
    gates = quality_gates(comparison)
    compared, different = sum(v.compared for v in views), sum(v.different for v in views)
    gates.append(
        Gate(
            gate="parity",
            passed=different == 0,
            reason=f"{different} of {compared} feature values differ between the online and the offline path.",
            inputs={"compared": float(compared), "different": float(different)},
        )
    )
    milliseconds = _answer_milliseconds(training_set, model)
    gates.append(
        Gate(
            gate="latency",
            passed=milliseconds <= MAX_MILLISECONDS,
            reason=f"95 of 100 answers take {milliseconds:.1f} ms of CPU time or less; "
            f"{MAX_MILLISECONDS:g} ms are allowed.",
            inputs={"p95_milliseconds": milliseconds, "limit": MAX_MILLISECONDS},
        )
    )
    mebibytes = sum(file.stat().st_size for file in Path(model.path).iterdir()) / 2**20
    gates.append(
        Gate(
            gate="size",
            passed=mebibytes <= MAX_MEBIBYTES,
            reason=f"The model's files have {mebibytes:.1f} MiB; {MAX_MEBIBYTES:g} MiB are allowed.",
            inputs={"mebibytes": mebibytes, "limit": MAX_MEBIBYTES},
        )
    )
    show("gates", [gate.model_dump(exclude={"inputs"}) for gate in gates])
    return gates


@task(memory="2Gi")
def register(
    lake: Lake,
    training_set: TrainingSet,
    model: Model,
    comparison: Comparison,
    gates: list[Gate],
    champion: Champion,
    day: datetime,
    seed: int,
) -> Outcome:
    """Register the challenger with all it came from; make it champion if every gate let it pass."""
    lakehouse = lake.open()
    passed = all(gate.passed for gate in gates)
    Settings().state.mkdir(parents=True, exist_ok=True)
    with quiet_mlflow(), alone():
        version = _register(training_set, model, comparison, gates, day, seed, promote=passed)
    if passed:
        lakehouse.ledger.append(
            [
                Promotion(
                    promotion_id=f"{day.date()}/{model.digest}",
                    day=day.date(),
                    model_digest=model.digest,
                    model_path=model.path,
                    registry_version=version,
                    trained_until=model.trained_until,
                    promoted_at=datetime.now(UTC),
                )
            ]
        )
        before = f"version {champion.registry_version}" if champion.digest else "no champion"
        reason = f"All {len(gates)} gates passed; version {version} follows {before}."
    else:
        refused = [f"{gate.gate} ({gate.reason.rstrip('.')})" for gate in gates if not gate.passed]
        reason = f"Refused by {'; '.join(refused)}."
    return Outcome(
        verdict="promoted" if passed else "registered",
        reason=reason,
        model=model,
        registry_version=version,
        comparison=comparison,
        gates=gates,
        registry=registry_name(),
    )


@task(memory="1Gi")
def keep(decision: RetrainDecision, comparison: Comparison) -> Outcome:
    """Nothing was trained: say why."""
    return Outcome(
        verdict="kept", reason=decision.reason, model=None, registry_version=0, comparison=comparison, gates=[]
    )


def quality_gates(comparison: Comparison) -> list[Gate]:
    """Those of the gates that the comparison alone decides: champion, baselines, fairness."""
    challenger = _score(comparison, "challenger")
    assert challenger is not None
    gates = []
    for gap in comparison.against_champion:
        metric = gap.metric.removesuffix(" difference")
        gates.append(
            Gate(
                gate="champion" if metric == METRIC else "champion, next item",
                # Worse only if the whole interval lies below zero: few users must not cry wolf.
                passed=gap.high >= 0,
                reason=f"{metric} {gap.value:+.4f} against the champion ({gap.low:+.4f} to {gap.high:+.4f}, "
                f"paired over {gap.users} users).",
                inputs={"difference": gap.value, "low": gap.low, "high": gap.high},
            )
        )
    for name in BASELINES:
        baseline = _score(comparison, name)
        assert baseline is not None
        gates.append(
            Gate(
                gate=f"better than {name}",
                passed=challenger.value > baseline.value,
                reason=f"{METRIC} {challenger.value:.4f} against {baseline.value:.4f}.",
                inputs={"challenger": challenger.value, "baseline": baseline.value},
            )
        )
    gates += [
        Gate(
            gate=f"fair by {gap.attribute}",
            passed=gap.fair,
            reason=f"{gap.worst} has {gap.ratio:.2f} of the {METRIC} of {gap.best} ({gap.low:.2f} to {gap.high:.2f}); "
            f"{gap.limit:.2f} must be within reach."
            if gap.worst != gap.best
            else "Fewer than two groups have users enough to be compared.",
            inputs={"ratio": gap.ratio, "low": gap.low, "high": gap.high, "limit": gap.limit}
            | {f"{METRIC} of {g.group}": g.value for g in comparison.groups if g.attribute == gap.attribute}
            | {f"users of {g.group}": float(g.users) for g in comparison.groups if g.attribute == gap.attribute},
        )
        for gap in comparison.disparities
    ]
    return gates


def _answer_milliseconds(training_set: TrainingSet, model: Model, answers: int = 100) -> float:
    """What one user's ten recommendations out of all items cost: the 95th percentile, in milliseconds of CPU time."""
    import numpy as np

    from models.interactions import Histories, Query, int64_column
    from models.recommender import Recommender

    recommender = Recommender.load(Path(model.path), digest=model.digest)
    users, items = training_set.read("users"), training_set.read("items")
    interactions = training_set.read("interactions")
    took = []
    for row in range(answers):
        one = users.slice(row % users.num_rows, 1)
        histories = Histories.of(interactions, int64_column(one, "user_id", "users"), training_set.cutoff)
        query = Query(histories, one, items, training_set.cutoff)
        started = time.process_time()
        recommender.recommend(query, 10)
        took.append((time.process_time() - started) * 1000)
    return float(np.percentile(took, 95))


def _score(comparison: Comparison, contender: str) -> Score | None:
    return next((s for s in comparison.scores if (s.contender, s.metric) == (contender, METRIC)), None)


def _register(
    training_set: TrainingSet,
    model: Model,
    comparison: Comparison,
    gates: list[Gate],
    day: datetime,
    seed: int,
    *,
    promote: bool,
) -> int:
    """One MLflow run and one registered version for each model digest and day; asked again, the same one."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=tracking_uri())
    try:
        client.create_registered_model(REGISTERED_MODEL, description="Two-stage recommender, one version a night.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {"day": day.date().isoformat(), "model_digest": model.digest}
    found = _versions(client, tags)
    if found:
        number = found[0]
    else:
        experiment = client.get_experiment_by_name("nightly")
        artifacts = (Settings().state / "mlflow-artifacts").as_uri()
        experiment_id = (
            experiment.experiment_id if experiment else client.create_experiment("nightly", artifact_location=artifacts)
        )
        run = client.create_run(experiment_id, run_name=f"nightly {day.date()}", tags=tags)
        for key, value in {"seed": seed, "cutoff": training_set.cutoff, "warm_start": model.warm_start}.items():
            client.log_param(run.info.run_id, key, value)
        for score in comparison.scores:
            name = f"{score.contender}/{score.metric}".replace("@", "_at_").replace(" ", "_")
            client.log_metric(run.info.run_id, name, score.value)
        for epoch, loss in enumerate(model.losses):
            client.log_metric(run.info.run_id, "loss", loss, step=epoch)
        client.log_artifacts(run.info.run_id, model.path, "model")
        client.set_terminated(run.info.run_id)
        created = client.create_model_version(
            REGISTERED_MODEL,
            source=f"{run.info.artifact_uri}/model",
            run_id=run.info.run_id,
            tags={
                **tags,
                "training_set": training_set.digest,
                "sources": ", ".join(training_set.sources),
                "gates": json.dumps({gate.gate: gate.passed for gate in gates}),
            },
        )
        # Where another machine registered the same at once, the first one stays.
        number = min(_versions(client, tags))
        if number < int(created.version):
            client.delete_model_version(REGISTERED_MODEL, created.version)
    client.set_registered_model_alias(REGISTERED_MODEL, "challenger", str(number))
    if promote:
        client.set_registered_model_alias(REGISTERED_MODEL, "champion", str(number))
    return number


def _versions(client: MlflowClient, tags: Mapping[str, str]) -> list[int]:
    """Numbers of the registered versions with these tags, lowest first."""
    found = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    return sorted(int(one.version) for one in found if {key: one.tags.get(key) for key in tags} == tags)
