"""Contributions add up to what they explain, name what matters, and know of every input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.evaluation import Float64s
from models.explain import Explanation, explain, faithfulness, input_names
from models.interactions import Histories, Query, microseconds
from models.recommender import Recommender, fit
from tests.models.test_sequence import TINY

if TYPE_CHECKING:
    from tests.models.conftest import World

AT_DAY = 79.5
K = 5
#: A test that calls explanations faithful although they name films by chance does so once in so many times.
FALSE_ALARM = 1e-3


@pytest.fixture(scope="module", params=["closed form", "transformer"])
def model(world: World, request: pytest.FixtureRequest) -> Recommender:
    config = world.config
    if request.param == "transformer":
        config = config.model_copy(update={"sequence": TINY, "epochs": 2})
    return fit(world.interactions, world.training_set, config=config)


def question(world: World) -> Query:
    """All users, two new ones, and of these one of whom nothing is known."""
    users = np.array([*world.users["user_id"].to_pylist(), 900])
    at = world.day(AT_DAY)
    return Query(Histories.of(world.interactions, users, at), world.users, world.items, at)


@pytest.fixture(scope="module")
def found(world: World, model: Recommender) -> list[Explanation]:
    return list(explain(model, question(world), K))


def test_the_items_explained_are_those_recommended(world: World, model: Recommender, found: list[Explanation]) -> None:
    for one, recommended in zip(found, model.recommend(question(world), K), strict=True):
        assert one.items.tolist() == [item for item, _ in recommended]


def test_contributions_add_up_to_the_margin_over_the_average_item(
    world: World, model: Recommender, found: list[Explanation]
) -> None:
    asked = question(world)
    scores = model.scores(asked)
    (given,) = [*model.inputs(Query(asked.histories.slice(0, 64), asked.users, asked.items, asked.at))]
    average = model.ranker(given.signals.mean(1, keepdim=True), given.user, given.item.mean(0, keepdim=True))
    place = {int(item): column for column, item in enumerate(asked.item_ids())}
    for row, one in enumerate(found[:64]):
        columns = [place[int(item)] for item in one.items]
        np.testing.assert_allclose(one.margins, scores[row, columns] - average[row].item(), atol=1e-4)
    margins = np.concatenate([one.margins for one in found])
    sums = np.concatenate([one.inputs.sum(axis=1) for one in found])
    assert np.abs(margins).max() > 1
    assert np.abs(sums - margins).max() < 0.01 * np.abs(margins).max()


def test_what_the_history_contributes_adds_up_to_the_signals_that_come_from_it(
    model: Recommender, found: list[Explanation]
) -> None:
    names = input_names(model)
    for one in found:
        signals = one.inputs[:, [names.index("item_to_item"), names.index("transitions")]].sum(axis=1)
        np.testing.assert_allclose(one.history.sum(axis=1), signals, atol=1e-4)


def test_a_user_without_history_is_explained_by_the_rest(model: Recommender, found: list[Explanation]) -> None:
    nobody = found[-1]
    names = input_names(model)
    assert (len(nobody.items), len(nobody.met)) == (K, 0)
    assert not nobody.inputs[:, [names.index("item_to_item"), names.index("users__age")]].any()
    assert nobody.inputs[:, names.index("popularity")].any()


def test_every_column_that_the_model_reads_is_named_once(world: World, model: Recommender) -> None:
    names = input_names(model)
    assert len(names) == len(set(names))
    assert {*world.config.signals().names(), *world.users.column_names[1:], *world.items.column_names[1:]} <= {*names}
    assert ("sequence" in names) is (model.sequence is not None)


def test_the_parts_of_a_history_are_the_signals(world: World, model: Recommender) -> None:
    asked = question(world)
    settings, items = world.config.signals(), np.append(asked.item_ids(), 9_999)
    whole = model.signals.of(asked.histories, items, microseconds(asked.at), settings)
    for row in range(len(asked.histories)):
        met, alike, after = model.signals.by_history(asked.histories.slice(row, row + 1), items, settings)
        assert set(met.tolist()) <= set(asked.histories.item_ids[asked.histories.rows == row].tolist())
        for part, name in ((alike, "item_to_item"), (after, "transitions")):
            np.testing.assert_allclose(part.sum(axis=0), whole[row, :, settings.names().index(name)], atol=1e-5)


def test_without_the_film_named_first_the_score_falls_more_than_without_another(
    world: World, model: Recommender
) -> None:
    """A sign-flip test: were the named film no better than another one, their drops could as well be exchanged."""
    named, other = faithfulness(model, question(world))
    assert len(named) > 80
    assert chance(named - other) < FALSE_ALARM
    assert named.mean() > 1.5 * max(other.mean(), 0.0)


def test_the_test_of_faithfulness_raises_no_alarm_where_films_are_named_by_chance(
    world: World, model: Recommender
) -> None:
    """The two drops of each pair exchanged at random, 200 times over: the chances then lie evenly from 0 to 1."""
    named, other = faithfulness(model, question(world))
    rng = np.random.default_rng(0)
    flips = [chance((named - other) * rng.choice([-1, 1], len(named)), seed, draws=200) for seed in range(200)]
    assert float(np.mean(np.array(flips) < 0.05)) < 0.12
    assert 0.4 < float(np.mean(flips)) < 0.6


def chance(differences: Float64s, seed: int = 0, draws: int = 5_000) -> float:
    """How often a mean so large comes of exchanging the two of each pair at random."""
    signs = 2 * np.random.default_rng(seed).integers(0, 2, size=(draws, len(differences))) - 1
    return float((1 + ((signs * differences).mean(axis=1) >= differences.mean()).sum()) / (1 + draws))
