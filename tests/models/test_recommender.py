"""The recommender learns, repeats itself bit for bit, looks at no future, and serves whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from models import artifact
from models.anchors import training_batches
from models.baselines import Popularity
from models.errors import (
    ArtifactError,
    FeatureColumnError,
    FeatureValueError,
    InteractionsError,
    TrainingDivergedError,
)
from models.evaluation import NewestInteractions, evaluate
from models.features import Encoder, FeatureSpec
from models.interactions import DAY_US, Histories, Interactions, Query
from models.ranker import Batch, deterministic
from models.recommender import Recommender, RecommenderConfig, fit
from models.sequence import SequenceModel
from tests.models.test_sequence import TINY

if TYPE_CHECKING:
    from tests.models.conftest import World


@pytest.fixture(scope="module")
def test_window(world: World) -> NewestInteractions:
    return NewestInteractions.split(world.interactions, world.day(66), world.day(80))


@pytest.fixture(scope="module")
def model(world: World, test_window: NewestInteractions) -> Recommender:
    return fit(test_window.train, before(world.training_set, world, 66), config=world.config)


def before(table: pa.Table, world: World, day: float) -> pa.Table:
    return table.filter(pc.less(table.column("rated_at"), pa.scalar(world.day(day), pa.timestamp("us", "UTC"))))


def batches(
    table: pa.Table,
    *encoders: Encoder,
    config: RecommenderConfig,
    anchors: int,
    next_items: int,
    sequence: bool = False,
) -> list[Batch]:
    """The training queries, drawn as `fit` draws them."""
    log = Interactions.of(table)
    with deterministic(0, 1):
        return training_batches(
            log,
            table,
            *encoders,
            config.signals(),
            anchors=anchors,
            horizon_days=config.horizon_days,
            next_items=next_items,
            rng=np.random.default_rng(0),
            sequence=SequenceModel(TINY, np.arange(100, 160)) if sequence else None,
        )


def query(world: World, *users: int, day: float = 80, items: pa.Table | None = None) -> Query:
    at = world.day(day)
    histories = Histories.of(world.interactions, np.array(users), at)
    return Query(histories, world.users, world.items if items is None else items, at)


def test_the_golden_run_gives_the_same_losses_and_metric(
    model: Recommender, world: World, test_window: NewestInteractions
) -> None:
    asked = test_window.query(world.users, world.items)
    ndcg, recall, _ = evaluate(model.scores(asked), test_window, asked.item_ids())
    losses = (3.6080, 3.2890, 3.1664, 3.1027, 3.0665, 3.0489, 3.0376, 3.0325, 3.0295, 3.0284, 3.0268, 3.0265)
    assert model.summary.losses == pytest.approx(losses, rel=1e-3)
    assert ndcg.value == pytest.approx(0.5380, abs=0.01)
    assert recall.value == pytest.approx(0.6033, abs=0.02)


def test_training_lowers_the_loss_and_beats_popularity(
    model: Recommender, world: World, test_window: NewestInteractions
) -> None:
    asked = test_window.query(world.users, world.items)
    ours, *_ = evaluate(model.scores(asked), test_window, asked.item_ids())
    popular, *_ = evaluate(Popularity.fit(test_window.train).scores(asked), test_window, asked.item_ids())
    assert model.summary.losses[-1] < model.summary.losses[0] - 0.05
    assert ours.value > popular.value * 1.2


def test_the_same_rows_in_any_order_give_the_same_digest(world: World, model: Recommender, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).permutation(before(world.interactions, world, 66).num_rows)
    again = fit(
        before(world.interactions, world, 66).take(rows),
        before(world.training_set, world, 66).take(rows[::-1].copy()),
        config=world.config,
    )
    assert again.save(tmp_path / "again") == model.save(tmp_path / "model")


def test_another_seed_gives_another_model_and_the_global_generator_is_left_alone(
    world: World, model: Recommender, tmp_path: Path
) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    config = world.config.model_copy(update={"seed": 99, "epochs": 1})
    other = fit(world.interactions, world.training_set, config=config)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert other.save(tmp_path / "other") != model.save(tmp_path / "model")


def test_a_saved_model_scores_the_same_and_an_edited_one_is_refused(
    world: World, model: Recommender, tmp_path: Path
) -> None:
    digest = model.save(tmp_path)
    loaded = Recommender.load(tmp_path, digest=digest)
    asked = query(world, 1, 2, 500)
    np.testing.assert_array_equal(loaded.scores(asked), model.scores(asked))
    assert loaded.config == model.config
    assert loaded.summary == model.summary
    with pytest.raises(ArtifactError, match="digest"):
        Recommender.load(tmp_path, digest="0" * 64)
    file = tmp_path / artifact.TENSORS
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="cut off or edited"):
        Recommender.load(tmp_path)


def test_a_model_of_another_format_or_with_parts_missing_is_refused(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path)
    tensors, description = artifact.read(tmp_path)
    artifact.write(tmp_path, tensors, description | {"format": 99})
    with pytest.raises(ArtifactError, match="format is 99"):
        Recommender.load(tmp_path)
    tensors.pop("ranker.item_tower.weight")
    artifact.write(tmp_path, tensors, description)
    with pytest.raises(ArtifactError, match="do not fit together"):
        Recommender.load(tmp_path)


def test_items_a_user_has_met_are_never_recommended(world: World, model: Recommender) -> None:
    users = world.users.column("user_id").to_numpy()
    asked = query(world, *users)
    catalogue = asked.item_ids()
    met = asked.histories.seen(catalogue)
    for row, best in enumerate(model.recommend(asked, k=len(catalogue))):
        items = [item for item, _ in best]
        assert set(items) == set(catalogue[~met[row]].tolist())
        assert [score for _, score in best] == sorted((score for _, score in best), reverse=True)


def test_a_new_user_gets_what_is_popular_of_late(world: World, model: Recommender) -> None:
    asked = query(world, 10_001, day=66)  # no history, and no row of features either
    best = {item for item, _ in model.recommend(asked, k=10)[0]}
    recent = Popularity.fit(before(world.interactions, world, 66), last_days=14).scores(asked)[0]
    popular = set(asked.item_ids()[np.argsort(-recent)[:15]].tolist())
    assert len(best & popular) >= 7


def test_a_new_item_gets_a_finite_score_and_does_not_move_the_others(world: World, model: Recommender) -> None:
    row = {name: world.items.column(name)[0].as_py() for name in world.items.column_names} | {"item_id": 9_999}
    more = pa.concat_tables([pa.Table.from_pylist([row], schema=world.items.schema), world.items])
    old, new = model.scores(query(world, 1, 2)), model.scores(query(world, 1, 2, items=more))
    np.testing.assert_allclose(new[:, 1:], old, rtol=1e-5)
    assert np.isfinite(new[:, 0]).all()
    assert (new[:, 0] < old.max(axis=1)).all()


def test_features_change_the_scores(world: World, model: Recommender) -> None:
    asked = query(world, 1, 2)
    moods = pa.array(["light"] * world.items.num_rows)
    other = world.items.set_column(world.items.column_names.index("movie_cards__mood"), "movie_cards__mood", moods)
    assert np.abs(model.scores(asked) - model.scores(query(world, 1, 2, items=other))).max() > 1e-4


def test_what_happens_after_a_target_does_not_change_its_training_query(world: World) -> None:
    """Rewrite everything from day 60 on: the queries whose targets end before stay as they were, bit for bit.

    Both kinds of question, the transformer's signal included.
    """
    end = world.interactions.num_rows - 1
    newest = pc.sort_indices(world.interactions, sort_keys=[("rated_at", "ascending")])[end].as_py()
    late = pc.greater_equal(world.training_set.column("rated_at"), pa.scalar(world.day(60), pa.timestamp("us", "UTC")))
    late = pa.array([flag and row != newest for row, flag in enumerate(late.to_pylist())])
    rng = np.random.default_rng(5)
    changed = world.training_set
    for name, values in (
        ("item_id", rng.integers(100, 160, end + 1)),
        ("users__age", rng.integers(1, 99, end + 1)),
        ("movies__year", rng.uniform(1900, 1999, end + 1)),
    ):
        column = pc.if_else(late, pa.array(values, changed.schema.field(name).type), changed.column(name))
        changed = changed.set_column(changed.column_names.index(name), name, column)
    config = world.config
    encoders = (
        Encoder.learn(config.user_features, world.training_set, "users"),
        Encoder.learn(config.item_features, world.training_set, "items"),
    )
    original, rewritten = (
        batches(table, *encoders, config=config, anchors=7, next_items=1, sequence=True)
        for table in (world.training_set, changed)
    )
    assert len(original) == len(rewritten) == 14
    for one, other in zip(original[:8], rewritten[:8], strict=True):  # anchors up to day 50: targets end by day 60
        for name in ("signals", "user", "item", "target", "seen"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert not torch.equal(original[-1].target.sum(0), rewritten[-1].target.sum(0))


def test_signals_and_item_features_of_a_training_query_end_strictly_before_it(world: World) -> None:
    """Rewrite everything from an anchor on, its own targets included: only the targets may change."""
    times = world.training_set.column("rated_at").cast(pa.int64()).to_numpy()
    config = world.config
    anchor = int(times.max()) + 1 - int(config.horizon_days * DAY_US)
    late = (times >= anchor) & (times < times.max())
    rng = np.random.default_rng(5)
    changed = world.training_set
    for name, values in (
        ("item_id", rng.integers(100, 160, len(times))),
        ("movies__year", rng.uniform(0, 9, len(times))),
    ):
        place = changed.column_names.index(name)
        changed = changed.set_column(place, name, pc.if_else(pa.array(late), pa.array(values), changed.column(name)))
    encoder = Encoder.learn(config.item_features, world.training_set, "items")
    nobody = Encoder.learn(FeatureSpec(), world.training_set, "users")
    (one,), (other,) = (
        batches(table, nobody, encoder, config=config, anchors=1, next_items=0, sequence=True)
        for table in (world.training_set, changed)
    )
    assert torch.equal(one.item, other.item)
    assert torch.equal(one.signals, other.signals)
    assert not torch.equal(one.target, other.target)


def test_a_warm_start_begins_where_the_last_model_ended(world: World, model: Recommender) -> None:
    warm = fit(world.interactions, world.training_set, config=world.config, warm_start=model)
    cold = fit(world.interactions, world.training_set, config=world.config.model_copy(update={"epochs": 3}))
    assert warm.summary.warm_start
    assert len(warm.summary.losses) == world.config.warm_epochs
    assert warm.summary.losses[0] < cold.summary.losses[0]


def test_a_warm_start_of_another_size_is_a_cold_start(world: World, model: Recommender) -> None:
    config = world.config.model_copy(update={"hidden": 3, "epochs": 1})
    assert not fit(world.interactions, world.training_set, config=config, warm_start=model).summary.warm_start


def test_a_warm_start_survives_a_column_more(world: World, model: Recommender) -> None:
    features = world.config.item_features.model_copy(update={"lists": ()})
    config = world.config.model_copy(update={"item_features": features})
    assert fit(world.interactions, world.training_set, config=config, warm_start=model).summary.warm_start


def test_progress_is_told_each_epoch(world: World) -> None:
    told: list[tuple[int, int]] = []
    config = world.config.model_copy(update={"epochs": 2})
    fit(world.interactions, world.training_set, config=config, progress=lambda epoch, of, _: told.append((epoch, of)))
    assert told == [(1, 2), (2, 2)]


def test_without_time_to_learn_from_the_untrained_model_ranks_by_its_signals(world: World) -> None:
    same = pa.array([world.day(1)] * world.interactions.num_rows, pa.timestamp("us", "UTC"))
    flat = [table.set_column(3, "rated_at", same) for table in (world.interactions, world.training_set)]
    model = fit(*flat, config=world.config)
    assert model.summary.queries == 0
    scores = model.scores(query(world, 10_001, day=2))[0]
    counts = Popularity.fit(flat[0]).scores(query(world, 10_001, day=2))[0]
    assert counts[np.argmax(scores)] == counts.max()


def test_models_without_any_feature_column_train_too(world: World) -> None:
    config = world.config.model_copy(
        update={"user_features": FeatureSpec(), "item_features": FeatureSpec(), "epochs": 1}
    )
    assert np.isfinite(fit(world.interactions, world.training_set, config=config).scores(query(world, 1))).all()


def test_nothing_to_learn_from_is_a_typed_error(world: World) -> None:
    with pytest.raises(InteractionsError, match="no interaction"):
        fit(world.interactions.slice(0, 0), world.training_set, config=world.config)
    one = world.interactions.filter(pc.equal(world.interactions.column("item_id"), 110))
    with pytest.raises(InteractionsError, match="1 item"):
        fit(one, world.training_set, config=world.config)


def test_nan_and_missing_features_are_typed_errors_in_training_and_scoring(world: World, model: Recommender) -> None:
    years = np.where(np.arange(world.training_set.num_rows) == 4, np.nan, 1995.0)
    place = world.training_set.column_names.index("movies__year")
    broken = world.training_set.set_column(place, "movies__year", pa.array(years))
    with pytest.raises(FeatureValueError, match="movies__year"):
        fit(world.interactions, broken, config=world.config)
    with pytest.raises(FeatureColumnError, match="movies__year"):
        model.scores(query(world, 1, items=world.items.drop_columns(["movies__year"])))


def test_a_run_that_diverges_leaves_no_model(world: World) -> None:
    config = world.config.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingDivergedError, match="epoch"):
        fit(world.interactions, world.training_set, config=config)


def test_an_unknown_hyper_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="layers"):
        RecommenderConfig.model_validate({"layers": 3})
