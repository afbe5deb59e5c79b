"""What odd interactions can do to a model: a poisoned batch moves it little, and thin ones still give numbers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from models.evaluation import NewestInteractions, ndcg, top_k
from models.interactions import Histories, Interactions, Query, microseconds
from models.recommender import Recommender, fit
from models.signals import Signals

if TYPE_CHECKING:
    from tests.models.conftest import World

POISON = 100_000
ATTACKER = 9_000
CUTOFF = 66


@pytest.fixture(scope="module")
def window(world: World) -> NewestInteractions:
    return NewestInteractions.split(world.interactions, world.day(CUTOFF), world.day(80))


def poisoned(rows: pa.Table, world: World) -> pa.Table:
    """The rows, and one user who rated 10^5 times within the last day, mostly two unpopular items in turn."""
    counts = rows.group_by("item_id").aggregate([("item_id", "count")]).sort_by("item_id_count")
    pushed = counts["item_id"].to_pylist()[:2]
    everything = counts["item_id"].to_pylist()
    items = [*everything, *(pushed * POISON)][:POISON]
    start = world.day(CUTOFF - 1)
    batch = {name: [rows[name][0].as_py()] * POISON for name in rows.column_names}
    batch |= {
        "user_id": [ATTACKER] * POISON,
        "item_id": items,
        "rated_at": [start + timedelta(milliseconds=800 * number) for number in range(POISON)],
    }
    return pa.concat_tables([rows, pa.table(batch).cast(rows.schema)])


def test_one_user_with_a_hundred_thousand_ratings_adds_at_most_one_to_a_count(
    world: World, window: NewestInteractions
) -> None:
    at, settings = microseconds(window.cutoff), world.config.signals()
    clean = Signals.learn(Interactions.of(window.train), at, settings)
    dirty = Signals.learn(Interactions.of(poisoned(window.train, world)), at, settings)
    assert np.abs(dirty.day_counts.sum(axis=0) - clean.day_counts.sum(axis=0)).max() == 1
    assert np.abs(dirty.transitions - clean.transitions).max() <= 1
    assert np.abs(dirty.item_to_item - clean.item_to_item).max() < 0.1


def test_what_others_are_recommended_hardly_moves(world: World, window: NewestInteractions) -> None:
    rows = world.training_set.filter(pc.less(world.training_set["rated_at"], window.cutoff))
    clean = fit(rows, rows, config=world.config)
    dirty_rows = poisoned(rows, world)
    dirty = fit(dirty_rows, dirty_rows, config=world.config)
    asked = window.query(world.users, world.items)
    items, seen = asked.item_ids(), window.histories.seen(asked.item_ids())
    found = {name: model.scores(asked) for name, model in (("clean", clean), ("dirty", dirty))}
    before, after = (ndcg(scores, window, items).mean() for scores in found.values())
    assert after > 0.95 * before
    lists = [top_k(scores, seen, 10) for scores in found.values()]
    shared = [len(set(one.tolist()) & set(other.tolist())) for one, other in zip(*lists, strict=True)]
    assert np.mean(shared) > 7


def test_of_one_user_and_item_the_newest_row_stays() -> None:
    table = pa.table(
        {
            "user_id": [1, 1, 2, 1],
            "item_id": [5, 5, 5, 6],
            "rated_at": pa.array([10, 30, 20, 40], pa.timestamp("us", "UTC")),
        }
    )
    newest = Interactions.of(table).newest_of_each()
    assert newest.rated_at.tolist() == [20, 30, 40]
    assert newest.newest_of_each() is newest


def test_users_with_one_interaction_each_give_a_model_of_numbers(world: World) -> None:
    rows = world.training_set.sort_by("rated_at")
    _, first = np.unique(rows["user_id"].to_numpy(), return_index=True)
    alone = rows.take(pa.array(np.sort(first)))
    assert_numbers(fit(alone, alone, config=world.config), world)


def test_a_catalogue_of_two_and_one_item_to_recommend_give_numbers(world: World) -> None:
    items = np.sort(np.unique(world.interactions["item_id"].to_numpy()))[:2]
    rows = world.training_set.filter(pc.is_in(world.training_set["item_id"], pa.array(items)))
    model = fit(rows, rows, config=world.config)
    assert_numbers(model, world)
    at = world.day(80)
    one = Query(Histories.of(world.interactions, np.array([1]), at), world.users, world.items.slice(0, 1), at)
    assert model.scores(one).shape == (1, 1)


def test_a_day_with_ten_times_the_rows_gives_a_model_of_numbers(world: World) -> None:
    """Every user rates everything within an hour of the last day."""
    users, items = (world.users["user_id"].to_pylist(), world.items["item_id"].to_pylist())
    rows = world.training_set
    busy = [
        {name: rows[name][0].as_py() for name in rows.column_names}
        | {"user_id": user, "item_id": item, "rated_at": world.day(79) + timedelta(seconds=place)}
        for user in users
        for place, item in enumerate(items)
    ]
    many = pa.concat_tables([rows, pa.Table.from_pylist(busy, schema=rows.schema)])
    assert_numbers(fit(many, many, config=world.config), world)


def assert_numbers(model: Recommender, world: World) -> None:
    at = world.day(80)
    users = np.array([*world.users["user_id"].to_pylist()[:20], 9_999])
    scores = model.scores(Query(Histories.of(world.interactions, users, at), world.users, world.items, at))
    assert np.isfinite(scores).all()
    assert all(np.isfinite(loss) for loss in model.summary.losses)
