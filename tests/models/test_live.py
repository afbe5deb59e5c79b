"""One user scored live gets the scores of the recommender itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from models.interactions import Histories, Interactions, Query, microseconds
from models.live import History, LiveScorer
from models.recommender import Recommender, fit
from tests.models.test_sequence import TINY

AT_DAY = 79.5


@pytest.fixture(scope="module", params=["closed form", "transformer"])
def model(world, request: pytest.FixtureRequest) -> Recommender:
    config = world.config
    if request.param == "transformer":
        config = config.model_copy(update={"sequence": TINY, "epochs": 2})
    return fit(world.interactions, world.training_set, config=config)


def live_history(histories: Histories, row: int) -> History:
    own = histories.rows == row
    return History(histories.item_ids[own], histories.rated_at[own])


@pytest.mark.parametrize("day", [70.0, AT_DAY, 100.0])
def test_live_scores_are_those_of_the_recommender(world, model: Recommender, day: float) -> None:
    # Two items that nobody has met are in the catalogue, and one user of whom nothing is known asks.
    extra = pa.table(
        {
            "item_id": [900, 901],
            "movies__year": [1995.0, None],
            "movies__genres": [["Drama"], []],
            "movie_cards__mood": ["dark", None],
        }
    ).cast(world.items.schema)
    items = pa.concat_tables([world.items, extra])
    users = np.array([*range(1, 40), 999])
    at = world.day(day)
    histories = Histories.of(world.interactions, users, at)
    expected = model.scores(Query(histories, world.users, items, at))
    scorer = LiveScorer(model, items)
    known = {row["user_id"]: row for row in world.users.to_pylist()}
    for row, user in enumerate(users.tolist()):
        history = live_history(histories, row)
        got = scorer.scores(history, known.get(user), at)
        np.testing.assert_allclose(got, expected[row], rtol=2e-4, atol=2e-5)
        assert (scorer.seen(history) == histories.seen(scorer.item_ids)[row]).all()


def test_an_item_met_twice_counts_by_its_newest_event(world, model: Recommender) -> None:
    log = Interactions.of(world.interactions)
    item = int(log.item_ids[0])
    ids = np.array([item, int(log.item_ids[-1]), item])
    at = world.day(AT_DAY)
    times = np.array([1, 2, 3]) + int(log.rated_at[0])
    histories = Histories(np.array([5]), np.zeros(3, dtype=np.int64), ids, times, np.array([microseconds(at)]))
    expected = model.scores(Query(histories, world.users.slice(0, 0), world.items, at))[0]
    got = LiveScorer(model, world.items).scores(History(ids, times), None, at)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


def test_one_row_from_values_is_encoded_as_a_table_is(world, model: Recommender) -> None:
    for encoder, table in ((model.user_encoder, world.users), (model.item_encoder, world.items)):
        encoded = encoder.encode(table)
        for row, values in enumerate(table.to_pylist()):
            np.testing.assert_allclose(encoder.encode_values(values), encoded[row], rtol=1e-6)
