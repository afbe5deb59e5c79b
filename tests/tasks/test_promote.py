"""Which challengers do the gates let pass?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flytekit.core.local_cache import LocalTaskCache

from features.training_set import Part, Pin
from lakehouse import Lakehouse
from lakehouse.ledger import Promotion
from models.fairness import Disparity, GroupScore
from models.recommender import RecommenderConfig, fit
from models.registry import REGISTERED_MODEL, tracking_uri
from tasks import promote
from tasks.decide import Champion
from tasks.features import TrainingSet, ViewState
from tasks.lake import Lake
from tasks.promote import METRIC, Gate, judge, register
from tasks.train import NEXT_ITEM, Comparison, Model, Score

AT = datetime(1998, 4, 7, tzinfo=UTC)


def score(contender: str, value: float, low: float = 0.0, high: float = 1.0) -> Score:
    return Score(contender=contender, metric=METRIC, value=value, low=low, high=high, users=90)


def comparison(
    challenger: float, gap: tuple[float, float] | None = None, disparity: Disparity | None = None
) -> Comparison:
    paired = [] if gap is None else [score("challenger", sum(gap) / 2, *gap)]
    baselines = {"popularity": 0.2, "recent popularity": 0.23, "item-kNN": 0.24, "EASE": 0.22}
    return Comparison(
        window_from=AT,
        window_to=AT,
        targets=1,
        scores=[score("challenger", challenger), *(score(name, value) for name, value in baselines.items())],
        against_champion=paired,
        groups=[],
        disparities=[disparity] if disparity else [],
        lists={},
        examples=[],
    )


def views(different: int) -> list[ViewState]:
    return [
        ViewState(view="users", reference="users@2", written=1, compared=10, different=different, examples=[]),
        ViewState(view="movies", reference="movies@2", written=1, compared=10, different=0, examples=[]),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, Model]:
    """A real model of 20 users and 30 items, and the files that it was trained on."""
    rng = np.random.default_rng(3)
    users, items = rng.integers(1, 21, 400), rng.integers(1, 31, 400)
    times = [AT - timedelta(hours=int(hours)) for hours in rng.integers(1, 24 * 60, 400)]
    rows = pa.table({"user_id": users, "item_id": items, "rated_at": pa.array(times, pa.timestamp("us", "UTC"))})
    folder = tmp_path_factory.mktemp("training")
    for name, table in {
        "interactions": rows,
        "users": pa.table({"user_id": range(1, 21)}),
        "items": pa.table({"item_id": range(1, 31)}),
    }.items():
        pq.write_table(table, folder / f"{name}.parquet")
    model = fit(rows, rows, config=RecommenderConfig(epochs=1))
    path = folder / "model"
    digest = model.save(path)
    described = Model(
        path=str(path),
        digest=digest,
        interactions=400,
        users=20,
        items=30,
        trained_until=AT,
        losses=[],
        warm_start=False,
    )
    return files_in(folder, rows=400), described


def files_in(folder: Path, *, rows: int) -> TrainingSet:
    ratings = Pin(table="ratings", version=2, table_id="id", fingerprint="", uri="ratings")
    digests = {"interactions": "i", "users": "u", "items": "m"}
    parts = tuple(Part(name=name, entities=ratings, views=()) for name in digests)
    return TrainingSet(parts=parts, folder=str(folder), digest="t", digests=digests, rows=rows, cutoff=AT, until=AT)


Refused = Callable[..., list[str]]
Judged = Callable[..., dict[str, Gate]]


@pytest.fixture
def judged(own_state: None, trained: tuple[TrainingSet, Model]) -> Judged:
    def ask(verdict: Comparison, different: int = 0) -> dict[str, Gate]:
        training_set, model = trained
        gates = judge(training_set=training_set, model=model, comparison=verdict, views=views(different))
        return {gate.gate: gate for gate in gates}

    return ask


@pytest.fixture
def refused(judged: Judged) -> Refused:
    return lambda verdict, different=0: [name for name, gate in judged(verdict, different).items() if not gate.passed]


def test_a_challenger_above_every_baseline_passes_without_a_champion(refused: Refused) -> None:
    assert refused(comparison(0.25)) == []


def test_a_challenger_at_or_below_a_baseline_is_refused_by_name(refused: Refused) -> None:
    assert refused(comparison(0.24)) == ["better than item-kNN"]
    everyone = [f"better than {name}" for name in ("popularity", "recent popularity", "item-kNN", "EASE")]
    assert refused(comparison(0.1)) == everyone


def test_only_an_interval_wholly_below_zero_is_worse_than_the_champion(refused: Refused) -> None:
    assert refused(comparison(0.25, (-0.05, 0.01))) == []
    assert refused(comparison(0.25, (-0.05, -0.01))) == ["champion"]


def test_a_model_that_is_worse_at_the_next_item_alone_is_refused_for_that(refused: Refused) -> None:
    verdict = comparison(0.25, (-0.05, 0.01))
    next_up = score("challenger", -0.03, -0.05, -0.01).model_copy(update={"metric": f"{NEXT_ITEM} difference"})
    both = verdict.model_copy(update={"against_champion": [*verdict.against_champion, next_up]})
    assert refused(both) == ["champion, next item"]


def test_one_value_that_differs_online_refuses_promotion(refused: Refused) -> None:
    assert refused(comparison(0.25), different=1) == ["parity"]


def test_an_unfair_model_is_refused_by_attribute_with_its_groups(judged: Judged) -> None:
    gap = {"attribute": "gender", "worst": "F", "best": "M", "ratio": 0.5, "low": 0.4, "high": 0.7, "limit": 0.8}
    gate = judged(comparison(0.25, disparity=Disparity(**gap, fair=False)))["fair by gender"]
    assert not gate.passed
    assert "F has 0.50 of the NDCG@10 of M (0.40 to 0.70)" in gate.reason
    assert judged(comparison(0.25, disparity=Disparity(**gap, fair=True)))["fair by gender"].passed


def test_a_model_that_is_slow_or_large_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.promote.MAX_MILLISECONDS", 0.0)
    monkeypatch.setattr("tasks.promote.MAX_MEBIBYTES", 0.0001)
    assert refused(comparison(0.26)) == ["latency", "size"]


def test_a_fairness_gate_gives_each_groups_value_and_size_of_its_attribute_alone(judged: Judged) -> None:
    gap = {"attribute": "gender", "worst": "F", "best": "M", "ratio": 0.9, "low": 0.7, "high": 1.1, "limit": 0.8}
    group = partial(GroupScore, judged=True)
    groups = [
        group(attribute="gender", group="F", users=25, value=0.24),
        group(attribute="gender", group="M", users=70, value=0.27),
        group(attribute="age", group="25-39", users=40, value=0.25),
    ]
    verdict = comparison(0.25, disparity=Disparity(**gap, fair=True)).model_copy(update={"groups": groups})
    assert judged(verdict)["fair by gender"].inputs == pytest.approx(
        {"ratio": 0.9, "low": 0.7, "high": 1.1, "limit": 0.8}
        | {"NDCG@10 of F": 0.24, "NDCG@10 of M": 0.27, "users of F": 25, "users of M": 70}
    )


def test_each_gate_gives_its_numbers(judged: Judged) -> None:
    gates = judged(comparison(0.25, (-0.01, 0.03)), 1)
    assert gates["champion"].inputs == pytest.approx({"difference": 0.01, "low": -0.01, "high": 0.03})
    assert "1 of 20 feature values" in gates["parity"].reason
    assert gates["latency"].inputs["p95_milliseconds"] > 0
    assert 0 < gates["size"].inputs["mebibytes"] < 1


def test_a_model_is_registered_once_and_only_one_that_passed_becomes_champion(
    lake: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def night(digest: str, *, passed: bool) -> int:
        folder = tmp_path / digest
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text("{}")
        model = Model(
            path=str(folder),
            digest=digest,
            interactions=1,
            users=1,
            items=2,
            trained_until=AT,
            losses=[1.0, 0.5],
            warm_start=False,
        )
        files = files_in(tmp_path, rows=1)
        outcome = register(
            lake=Lake(root=lake.root, id=lake.id),
            training_set=files,
            model=model,
            comparison=comparison(0.25),
            gates=[Gate(gate="parity", passed=passed, reason="For the test.", inputs={})],
            champion=Champion(),
            day=datetime(1998, 4, 20),
            seed=0,
        )
        assert outcome.verdict == ("promoted" if passed else "registered")
        return outcome.registry_version

    assert night("first", passed=True) == 1
    assert night("second", passed=False) == 2
    LocalTaskCache.clear()  # a retry that Flyte does not answer meets the version that is there
    assert night("first", passed=True) == 1
    client = MlflowClient(tracking_uri=tracking_uri())
    assert client.get_model_version_by_alias(REGISTERED_MODEL, "champion").version == 1
    assert len(client.search_model_versions(f"name = '{REGISTERED_MODEL}'")) == 2
    assert [p.model_digest for p in lake.ledger.read(Promotion)] == ["first"]

    # Another machine, which looked before the first one was there: its own is taken away again.
    versions, asked = promote._versions, []

    def too_early(client: MlflowClient, tags: Mapping[str, str]) -> list[int]:
        asked.append(tags)
        return [] if len(asked) == 1 else versions(client, tags)

    monkeypatch.setattr(promote, "_versions", too_early)
    LocalTaskCache.clear()
    assert night("first", passed=True) == 1
    assert len(asked) == 2
    assert len(client.search_model_versions(f"name = '{REGISTERED_MODEL}'")) == 2
    assert client.get_model_version_by_alias(REGISTERED_MODEL, "champion").version == 1
