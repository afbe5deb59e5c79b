"""Which challengers do the gates let pass?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from flytekit.core.local_cache import LocalTaskCache

from lakehouse import Lakehouse
from lakehouse.ledger import Promotion
from tasks.decide import Champion
from tasks.features import TrainingSet, ViewState
from tasks.lake import Lake
from tasks.promote import METRIC, REGISTERED_MODEL, Gate, judge, register, tracking_uri
from tasks.train import Comparison, Model, Score

AT = datetime(1998, 4, 7, tzinfo=UTC)


def score(contender: str, value: float, low: float = 0.0, high: float = 1.0) -> Score:
    return Score(contender=contender, metric=METRIC, value=value, low=low, high=high, users=90)


def comparison(challenger: float, gap: tuple[float, float] | None = None) -> Comparison:
    paired = [] if gap is None else [score("challenger", sum(gap) / 2, *gap)]
    return Comparison(
        window_from=AT,
        window_to=AT,
        targets=1,
        scores=[score("challenger", challenger), score("popularity", 0.2), score("item-kNN", 0.24)],
        against_champion=paired,
        examples=[],
    )


def views(different: int) -> list[ViewState]:
    return [
        ViewState(view="users", reference="users@2", written=1, compared=10, different=different, examples=[]),
        ViewState(view="movies", reference="movies@2", written=1, compared=10, different=0, examples=[]),
    ]


def refused(verdict: Comparison, different: int = 0) -> list[str]:
    return [gate.gate for gate in judge(comparison=verdict, views=views(different)) if not gate.passed]


def test_a_challenger_above_every_baseline_passes_without_a_champion() -> None:
    assert refused(comparison(0.25)) == []


def test_a_challenger_at_or_below_a_baseline_is_refused_by_name() -> None:
    assert refused(comparison(0.24)) == ["better than item-kNN"]
    assert refused(comparison(0.1)) == ["better than popularity", "better than item-kNN"]


def test_only_an_interval_wholly_below_zero_is_worse_than_the_champion() -> None:
    assert refused(comparison(0.25, (-0.05, 0.01))) == []
    assert refused(comparison(0.25, (-0.05, -0.01))) == ["champion"]


def test_one_value_that_differs_online_refuses_promotion() -> None:
    assert refused(comparison(0.25), different=1) == ["parity"]


def test_each_gate_gives_its_numbers() -> None:
    gates = {gate.gate: gate for gate in judge(comparison=comparison(0.25, (-0.01, 0.03)), views=views(1))}
    assert gates["champion"].inputs == pytest.approx({"difference": 0.01, "low": -0.01, "high": 0.03})
    assert "1 of 20 feature values" in gates["parity"].reason


def test_a_model_is_registered_once_and_only_one_that_passed_becomes_champion(lake: Lakehouse, tmp_path: Path) -> None:
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
        files = TrainingSet(folder=str(tmp_path), digest="t", rows=1, cutoff=AT, until=AT, sources=["ratings@2"])
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
