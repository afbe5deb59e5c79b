"""What the champions of earlier nights would have scored today, and what is said of those that can't be asked."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.training_set import Part, Pin
from lakehouse import Lakehouse
from lakehouse.ledger import Promotion
from models import artifact
from models.recommender import Recommender, RecommenderConfig, fit
from tasks import train
from tasks.features import TrainingSet
from tasks.lake import Lake
from tasks.staleness import champions_of, look_back
from tasks.train import Comparison

DAY = datetime(1998, 4, 20)
UNTIL = datetime(1998, 4, 21, tzinfo=UTC)
CUTOFF = UNTIL - timedelta(days=14)


def promotion(nights_ago: int, folder: Path, digest: str = "d", trained_until: datetime | None = None) -> Promotion:
    return Promotion(
        promotion_id=f"{nights_ago}/{digest}",
        day=DAY.date() - timedelta(days=nights_ago),
        model_digest=digest,
        model_path=str(folder),
        registry_version=100 - nights_ago,
        trained_until=trained_until or CUTOFF - timedelta(days=nights_ago),
        promoted_at=UNTIL - timedelta(days=nights_ago),
    )


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """20 users and 30 items over 60 days; what is liked moves on with the days."""
    rng = np.random.default_rng(3)
    days = np.sort(rng.uniform(0, 60, 900))
    items = 1 + (days / 2 + rng.integers(0, 8, 900)).astype(np.int64) % 30
    times = [UNTIL - timedelta(days=60) + timedelta(days=float(day)) for day in days]
    users = rng.integers(1, 21, 900)
    return pa.table({"user_id": users, "item_id": items, "rated_at": pa.array(times, pa.timestamp("us", "UTC"))})


@pytest.fixture(scope="module")
def training_set(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = tmp_path_factory.mktemp("training")
    tables = {
        "interactions": rows,
        "users": pa.table({"user_id": range(1, 21), "users__gender": ["F", "M"] * 10, "users__age": range(21, 41)}),
        "items": pa.table({"item_id": range(1, 31), "movies__genres": [["Drama"]] * 30}),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    pin = Pin(table="ratings", version=2, table_id="id", fingerprint="", uri="ratings")
    parts = tuple(Part(name=name, entities=pin, views=()) for name in tables)
    digests = dict.fromkeys(tables, "d")
    return TrainingSet(
        parts=parts, folder=str(folder), digest="t", digests=digests, rows=900, cutoff=CUTOFF, until=UNTIL
    )


@pytest.fixture(scope="module")
def champions(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Promotion]:
    """Models trained up to 1 and 20 nights before the cutoff, by nights."""
    made = {}
    for nights in (1, 20):
        known = rows.filter(pc.less(rows["rated_at"], CUTOFF - timedelta(days=nights)))
        folder = tmp_path_factory.mktemp("models") / str(nights)
        digest = fit(known, known, config=RecommenderConfig(epochs=2)).save(folder)
        made[nights] = promotion(nights, folder, digest)
    return made


def placed(lake: Lakehouse, promotions: list[Promotion]) -> Lake:
    lake.ledger.append(promotions)
    return Lake(root=lake.root, id=lake.id)


def test_each_is_scored_as_tonights_models_are_on_the_same_targets(
    lake: Lakehouse, training_set: TrainingSet, champions: dict[int, Promotion]
) -> None:
    found = look_back(lake=placed(lake, list(champions.values())), training_set=training_set, day=DAY)
    assert [one.nights_ago for one in found.champions] == [1, 20]
    assert found.left_out == []
    newest, old = found.champions
    assert [score.metric for score in newest.scores] == ["NDCG@10", "next item NDCG@10"]
    assert newest.scores[0].value > old.scores[0].value  # what is liked has moved on
    for champion in found.champions:
        expected = compared(training_set, champions[champion.nights_ago])
        for score in champion.scores:
            theirs = next(s for s in expected.scores if (s.contender, s.metric) == ("champion", score.metric))
            assert (score.value, score.low, score.high, score.users) == pytest.approx(
                (theirs.value, theirs.low, theirs.high, theirs.users)
            )


def compared(training_set: TrainingSet, champion: Promotion) -> Comparison:
    """What a night that keeps this champion measures of it."""
    movies = SimpleNamespace(rows=lambda: [SimpleNamespace(item_id=item, title=str(item)) for item in range(1, 31)])
    model = Recommender.load(Path(champion.model_path), digest=champion.model_digest)
    return train._compare(training_set, movies, {"champion": model})


def test_those_that_cannot_be_asked_are_left_out_with_the_reason(
    lake: Lakehouse, training_set: TrainingSet, champions: dict[int, Promotion], tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(champions[20].model_path, older)
    tensors, described = artifact.read(older)
    digest = artifact.write(older, tensors, described | {"format": 1})
    edited = tmp_path / "edited"
    shutil.copytree(champions[20].model_path, edited)
    (edited / artifact.TENSORS).write_bytes((edited / artifact.TENSORS).read_bytes()[:-8])
    promotions = [
        champions[1],
        promotion(2, tmp_path / "ahead", trained_until=CUTOFF),
        promotion(7, older, digest),
        promotion(14, edited, champions[20].model_digest),
        promotion(30, tmp_path / "gone"),
    ]
    found = look_back(lake=placed(lake, promotions), training_set=training_set, day=DAY)
    assert [one.registry_version for one in found.champions] == [99]
    ahead, other_format, changed, gone = found.left_out
    assert ahead == "version 98: it has learned of days that it would be asked about"
    assert other_format.startswith("version 93: ") and "format is 1" in other_format
    assert changed.startswith("version 86: ") and "cut off or edited" in changed
    assert gone.startswith("version 70: There is no model file")


def test_without_an_earlier_champion_nothing_is_read(lake: Lakehouse, training_set: TrainingSet) -> None:
    own = promotion(0, Path("of this night"))
    missing = training_set.model_copy(update={"digest": "other", "digests": {}})
    found = look_back(lake=placed(lake, [own]), training_set=missing, day=DAY)
    assert (found.champions, found.left_out) == ([], [])


def test_a_year_of_nightly_champions_gives_few_of_them_the_newest_first() -> None:
    every = [promotion(nights, Path()) for nights in range(365)]
    found = champions_of(every, DAY.date())
    assert [(DAY.date() - one.day).days for one in found] == [1, 2, 4, 7, 14, 30, 60, 90]
    two = champions_of([every[10], every[50]], DAY.date())  # champion from 50 nights ago on, and from 10 on
    assert [(DAY.date() - one.day).days for one in two] == [10, 50]
