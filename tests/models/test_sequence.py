"""The transformer looks at no later item, learns of no later day, repeats itself, and starts warm without a leak."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from models.errors import ArtifactError
from models.interactions import Histories, Interactions, microseconds
from models.ranker import deterministic
from models.recommender import Recommender, fit
from models.sequence import SequenceConfig, SequenceModel, Transformer, bucket

if TYPE_CHECKING:
    from tests.models.conftest import World

TINY = SequenceConfig(length=8, width=8, layers=1, heads=2, epochs=3, later_epochs=1, batch=16)


def grown(log: Interactions, *instants: int, items: np.ndarray | None = None) -> SequenceModel:
    with deterministic(0, 1):
        model = SequenceModel(TINY, log.catalogue() if items is None else items)
        for at in instants:
            model.grow(log, at)
    return model


def weights(model: SequenceModel) -> list[torch.Tensor]:
    return list(model.net.state_dict().values())


def equal(one: SequenceModel, other: SequenceModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_no_position_sees_a_later_one() -> None:
    torch.manual_seed(0)
    net = Transformer(20, TINY).eval()
    item, gap = torch.randint(0, 20, (2, 8)), torch.randint(0, 30, (2, 8))
    other = item.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 20
    before, after = net.hidden(item, gap, gap), net.hidden(other, gap, gap)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_what_comes_from_an_instant_on_changes_no_weight(world: World) -> None:
    log = Interactions.of(world.interactions)
    first, second = microseconds(world.day(40)), microseconds(world.day(50))
    rewritten = log.item_ids.copy()
    late = log.rated_at >= second
    rewritten[late] = np.random.default_rng(1).permutation(rewritten[late])
    changed = Interactions(log.user_ids, rewritten, log.rated_at)
    assert equal(grown(log, first, second), grown(changed, first, second, items=log.catalogue()))
    later = second + 1
    assert not equal(grown(log, first, later + 10**12), grown(changed, first, later + 10**12, items=log.catalogue()))


def test_it_learns_and_gives_finite_scores_to_whoever_asks(world: World) -> None:
    log = Interactions.of(world.interactions)
    at = microseconds(world.day(70))
    model = grown(log, microseconds(world.day(40)), microseconds(world.day(55)), at)
    assert model.losses[2] < model.losses[0]
    users = np.unique(log.before(at).user_ids)[:3]
    histories = Histories.before(log, np.append(users, 10_001), at)
    items = np.append(log.catalogue(), 999)
    scores = model.scores(histories, items)
    assert scores.shape == (4, len(items))
    assert np.isfinite(scores).all()
    assert (scores[:, -1] == 0).all(), "an item it does not know"
    assert (scores[-1] == 0).all(), "a user without history"
    assert (np.ptp(scores[:3, :-1], axis=1) > 0).all()


def test_a_warm_start_begins_before_the_first_anchor_and_refuses_what_knows_more(world: World) -> None:
    log = Interactions.of(world.interactions)
    instants = [microseconds(world.day(day)) for day in (40, 50, 60)]
    yesterday = grown(log.before(instants[2]), *instants[:2], items=log.catalogue()[:-5])
    tonight = SequenceModel(TINY, log.catalogue())
    assert not tonight.adopt(yesterday, instants[0] - 1), "its stem has seen what came after that"
    fresh = tonight.net.state_dict()["item.weight"].clone()
    assert tonight.adopt(yesterday, instants[0])
    assert tonight.until == instants[0]
    weights = tonight.net.state_dict()["item.weight"]
    assert torch.equal(weights[:-6], yesterday.stem["item.weight"][:-1]), "items keep their rows"
    assert torch.equal(weights[-6:-1], fresh[-6:-1]), "new items begin anew"
    other = SequenceModel(TINY.model_copy(update={"length": 4}), log.catalogue())
    assert not other.adopt(yesterday, instants[0]), "another size"


def test_a_recommender_with_it_is_repeated_stored_and_scored_alike(world: World, tmp_path: Path) -> None:
    config = world.config.model_copy(update={"sequence": TINY, "epochs": 2})
    model, again = (fit(world.interactions, world.training_set, config=config) for _ in range(2))
    assert model.save(tmp_path / "one") == again.save(tmp_path / "two")
    read = Recommender.load(tmp_path / "one")
    from tests.models.test_recommender import query

    asked = query(world, 1, 2, 3, 10_001)
    np.testing.assert_array_equal(read.scores(asked), model.scores(asked))
    without = fit(world.interactions, world.training_set, config=config.model_copy(update={"sequence": None}))
    assert np.abs(without.scores(asked)[0] - model.scores(asked)[0]).max() > 1e-4
    warm = fit(world.interactions, world.training_set, config=config, warm_start=read)
    assert warm.sequence is not None and warm.sequence.stem_until == model.sequence.stem_until  # type: ignore[union-attr]


def test_a_model_without_its_transformer_is_refused(world: World, tmp_path: Path) -> None:
    from models import artifact

    config = world.config.model_copy(update={"sequence": TINY, "epochs": 1})
    fit(world.interactions, world.training_set, config=config).save(tmp_path / "whole")
    tensors, described = artifact.read(tmp_path / "whole")
    kept = {name: value for name, value in tensors.items() if name != "sequence.net.bias"}
    artifact.write(tmp_path / "part", kept, described)
    with pytest.raises(ArtifactError, match="do not fit together"):
        Recommender.load(tmp_path / "part")


def test_time_is_told_in_powers_of_two_of_seconds() -> None:
    passed = np.array([-5, 0, 999_999, 1_000_000, 3_000_000, 86_400_000_000, 10**18])
    assert bucket(passed).tolist() == [0, 0, 0, 1, 2, 16, 31]
