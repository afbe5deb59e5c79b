"""How is a challenger made and measured? Trained up to the cutoff, judged on what happened after it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict

from lakehouse import Snapshot
from lakehouse.settings import Settings
from lakehouse.tables import Movie
from models.beyond_accuracy import ListQuality
from models.fairness import Disparity, GroupScore
from tasks.decide import Champion
from tasks.features import TrainingSet
from tasks.kept import Artifact
from tasks.progress import bar
from tasks.show import show
from tasks.typed import task

if TYPE_CHECKING:
    import pyarrow as pa

    from models.evaluation import Float64s, NewestInteractions
    from models.interactions import Query, Scorer

#: What comes next in the midst of the window: each user is asked at an instant of it, with the history of that instant.
NEXT_ITEM = "next item NDCG@10"
#: Users shown in the report with what they would be recommended.
EXAMPLE_USERS = 3
#: Where the groups by age, in years, and by ratings given begin.
AGE_BANDS = (25, 40)
ACTIVITY_BANDS = (20, 100)


class Model(BaseModel):
    """A trained model on disk.

    Attributes:
        path: folder of model.safetensors and model.json.
        digest: SHA-256 over both; the same inputs give the same digest.
        trained_until: time of the newest interaction it was trained on.
        losses: mean loss of each epoch.
        warm_start: whether its weights began as the champion's.
    """

    model_config = ConfigDict(frozen=True)

    path: Annotated[str, Artifact()]
    digest: str
    interactions: int
    users: int
    items: int
    trained_until: datetime
    losses: list[float]
    warm_start: bool


class Score(BaseModel):
    """One metric of one contender: mean over users, with the 95 % bootstrap interval."""

    model_config = ConfigDict(frozen=True)

    contender: str
    metric: str
    value: float
    low: float
    high: float
    users: int


class Recommended(BaseModel):
    """What one user would get, for people to look at."""

    model_config = ConfigDict(frozen=True)

    user_id: int
    ratings: int
    history: list[str]
    recommended: list[str]


class Comparison(BaseModel):
    """Everybody on the same newest interactions.

    Attributes:
        window_from, window_to: the test's interval.
        targets: interactions to find.
        scores: a row a contender and metric; ``challenger``, ``champion`` (if there is one) and the baselines.
        against_champion: challenger minus champion, paired by user, in NDCG@10 and then in that of the next item;
            empty without a champion.
        groups: NDCG@10 of the challenger (of the champion where nothing was trained) by group of users.
        disparities: how far the groups of each attribute lie apart.
        lists: what each contender's lists are like beside accurate, by contender.
        examples: a few users' recommendations.
    """

    model_config = ConfigDict(frozen=True)

    window_from: datetime
    window_to: datetime
    targets: int
    scores: list[Score]
    against_champion: list[Score]
    groups: list[GroupScore]
    disparities: list[Disparity]
    lists: dict[str, ListQuality]
    examples: list[Recommended]


@task(cpu="2", memory="4Gi", deck=True)
def train(training_set: TrainingSet, champion: Champion, seed: int) -> Model:
    """Train on what was known at the cutoff, starting from the champion's weights where they fit."""
    import pyarrow.compute as pc

    from models.movielens import movielens_config
    from models.recommender import Recommender, fit

    rows = training_set.read("interactions")
    known = rows.filter(pc.less(rows["rated_at"], training_set.cutoff))
    previous = Recommender.load(Path(champion.path), digest=champion.digest) if champion.digest else None
    epochs = bar("epochs")
    model = fit(
        known,
        known,
        config=movielens_config(seed),
        warm_start=previous,
        progress=lambda epoch, of, loss: epochs(epoch, of),
    )
    parent = Settings().state / "models"
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent) as scratch:
        made = Path(scratch) / "model"
        digest = model.save(made)
        folder = parent / digest[:32]
        if not folder.exists():
            made.rename(folder)
    show("losses", [{"epoch": n, "mean loss": loss} for n, loss in enumerate(model.summary.losses, 1)])
    return Model(
        path=str(folder),
        digest=digest,
        interactions=model.summary.interactions,
        users=model.summary.users,
        items=model.summary.items,
        trained_until=model.summary.until,
        losses=list(model.summary.losses),
        warm_start=model.summary.warm_start,
    )


@task(cpu="2", memory="4Gi", deck=True)
def compare(training_set: TrainingSet, movies: Snapshot[Movie], model: Model, champion: Champion) -> Comparison:
    """Score challenger, champion and the baselines on the interactions since the cutoff."""
    from models.recommender import Recommender

    contenders: dict[str, Scorer] = {"challenger": Recommender.load(Path(model.path), digest=model.digest)}
    if champion.digest:
        contenders["champion"] = Recommender.load(Path(champion.path), digest=champion.digest)
    return _compare(training_set, movies, contenders)


@task(cpu="2", memory="4Gi", deck=True)
def watch_champion(training_set: TrainingSet, movies: Snapshot[Movie], champion: Champion) -> Comparison:
    """Score the champion and the baselines on the interactions since the cutoff: a night without training."""
    from models.recommender import Recommender

    kept = Recommender.load(Path(champion.path), digest=champion.digest)
    return _compare(training_set, movies, {"champion": kept})


class _Test(NamedTuple):
    newest: NewestInteractions
    query: Query


def _compare(training_set: TrainingSet, movies: Snapshot[Movie], models: Mapping[str, Scorer]) -> Comparison:
    rows, users, items = (training_set.read(part) for part in ("interactions", "users", "items"))
    window = training_set.cutoff, training_set.until
    found = contest(rows, users, items, window, models, {movie.item_id: movie.title for movie in movies.rows()})
    show("scores", [row.model_dump() for row in found.scores])
    return found


def contest(
    interactions: pa.Table,
    users: pa.Table,
    items: pa.Table,
    window: tuple[datetime, datetime],
    models: Mapping[str, Scorer],
    titles: Mapping[int, str],
) -> Comparison:
    """Models and baselines on the interactions of a window.

    Args:
        interactions: all that is known at the window's end.
        users, items: with their features as known at its beginning.
        window: the test's interval.
        models: ``challenger``, ``champion``, or both.
        titles: of the items, for the examples.
    """
    from models.baselines import Ease, ItemKnn, Popularity, SequentialRules
    from models.beyond_accuracy import list_quality
    from models.evaluation import NewestInteractions, evaluate, interval, ndcg
    from models.fairness import by_group
    from models.protocols import next_item

    newest = NewestInteractions.split(interactions, *window)
    test = _Test(newest, newest.query(users, items))
    contenders: dict[str, Scorer] = {
        **models,
        "recent popularity": Popularity.fit(newest.train, last_days=7),
        "item-kNN": ItemKnn.fit(newest.train),
        "EASE": Ease.fit(newest.train),
        "sequential rules": SequentialRules.fit(newest.train),
        "popularity": Popularity.fit(newest.train),
    }
    item_ids = test.query.item_ids()
    scores = {name: contender.scores(test.query) for name, contender in contenders.items()}
    rows = [
        Score(contender=name, metric=e.metric, value=e.value, low=e.low, high=e.high, users=e.users)
        for name, matrix in scores.items()
        for e in evaluate(matrix, newest, item_ids)
    ]
    per_user = {name: ndcg(scores[name], newest, item_ids) for name in models}
    paired = _paired("NDCG@10", per_user)
    midst = next_item(interactions, newest, window[1])
    if midst is not None:
        asked = midst.query(users, items)
        next_up = {name: ndcg(contender.scores(asked), midst, item_ids) for name, contender in contenders.items()}
        rows += [
            Score(contender=name, **interval(values, metric=NEXT_ITEM).model_dump()) for name, values in next_up.items()
        ]
        paired += _paired(NEXT_ITEM, next_up)
    best = "challenger" if "challenger" in models else "champion"
    genres = [row or [] for row in items["movies__genres"].to_pylist()]
    groups, disparities = by_group(per_user[best], _attributes(test.query))
    return Comparison(
        window_from=window[0],
        window_to=window[1],
        targets=len(newest.target_items),
        scores=rows,
        against_champion=paired,
        groups=groups,
        disparities=disparities,
        lists={name: list_quality(matrix, newest, item_ids, genres) for name, matrix in scores.items()},
        examples=_examples(models[best], test, titles),
    )


def _paired(metric: str, per_user: dict[str, Float64s]) -> list[Score]:
    """Challenger minus champion, where there are both."""
    from models.evaluation import interval

    if not {"challenger", "champion"} <= per_user.keys():
        return []
    difference = interval(per_user["challenger"] - per_user["champion"], metric=f"{metric} difference")
    return [Score(contender="challenger", **difference.model_dump())]


def _attributes(query: Query) -> dict[str, list[str | None]]:
    """The group of each user of the query, by attribute; None where nothing was known of the user at the cutoff."""
    from models.fairness import band

    known = {row["user_id"]: row for row in query.users.select(["user_id", "users__gender", "users__age"]).to_pylist()}
    found = [known.get(int(user), {}) for user in query.histories.user_ids]
    return {
        "gender": [row.get("users__gender") for row in found],
        "age": [band(row.get("users__age"), AGE_BANDS) for row in found],
        # New users have more to find than others, and it is easier: they are shown and not compared.
        "ratings before": [band(size or None, ACTIVITY_BANDS) for size in query.histories.sizes().tolist()],
    }


def _examples(model: Scorer, test: _Test, titles: Mapping[int, str]) -> list[Recommended]:
    """The users with the longest histories that still have something to find."""
    from models.evaluation import top_k

    histories = test.query.histories
    items = test.query.item_ids()
    best = top_k(model.scores(test.query), histories.seen(items), 10)
    shown = []
    sizes = histories.sizes()
    for row in sorted(range(len(histories)), key=lambda row: (-sizes[row], row))[:EXAMPLE_USERS]:
        newest_first = histories.item_ids[histories.rows == row][::-1][:8]
        shown.append(
            Recommended(
                user_id=int(histories.user_ids[row]),
                ratings=int(sizes[row]),
                history=[titles[int(item)] for item in newest_first],
                recommended=[titles[int(items[column])] for column in best[row]],
            )
        )
    return shown
