"""Why does the model recommend what it does? What moves its scores in general, and in a few worked examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from lakehouse import Snapshot
from lakehouse.tables import Movie
from tasks.decide import Champion
from tasks.features import TrainingSet
from tasks.promote import Outcome
from tasks.show import show
from tasks.train import EXAMPLE_USERS, Score
from tasks.typed import task

if TYPE_CHECKING:
    from models.explain import Explanation

#: Users of the test whose recommendations are explained, drawn where there are more; and how many of each.
EXPLAINED_USERS = 200
EXPLAINED_ITEMS = 10
#: Contributions that a worked example names; the others are added up.
NAMED = 8
#: The inputs that are told item by item of the history.
FROM_HISTORY = ("item_to_item", "transitions")


class Contribution(BaseModel):
    """What one thing adds to a score: an item of the history, by title, or an input, by name."""

    model_config = ConfigDict(frozen=True)

    what: str
    history: bool
    value: float


class WorkedExample(BaseModel):
    """Why one user would be recommended one film.

    Attributes:
        margin: its score less that of the average film of the catalogue, for this user.
        contributions: the largest, first; with `rest` they add up to the margin.
        rest: what all others add.
    """

    model_config = ConfigDict(frozen=True)

    user_id: int
    title: str
    margin: float
    contributions: list[Contribution]
    rest: float


class Explanations(BaseModel):
    """Integrated gradients of the model's recommendations (models.explain).

    Attributes:
        model: "challenger" or "champion".
        importances: for each input the mean size of its contributions to a user's recommendations, over users, with
            the 95 % bootstrap interval; the largest first.
        faithful: what the first recommendation's score loses without the history item named first ("named"), without
            another of the newest ones ("random"), and the difference, paired by user; empty where no user has two.
        examples: a few users' first recommendations.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    importances: list[Score]
    faithful: list[Score]
    examples: list[WorkedExample]


@task(cpu="2", memory="4Gi", deck=True)
def explain(training_set: TrainingSet, movies: Snapshot[Movie], outcome: Outcome, champion: Champion) -> Explanations:
    """Explain what the challenger (without one, the champion) would recommend to the users of the test."""
    import numpy as np

    from models.evaluation import NewestInteractions, interval
    from models.explain import explain as explained
    from models.explain import faithfulness, input_names
    from models.interactions import Histories, Query
    from models.recommender import Recommender

    told = outcome.model or champion
    model = Recommender.load(Path(told.path), digest=told.digest)
    interactions = training_set.read("interactions")
    newest = NewestInteractions.split(interactions, training_set.cutoff, training_set.until)
    users = np.random.default_rng(0).permutation(newest.histories.user_ids)[:EXPLAINED_USERS]
    query = Query(
        Histories.of(interactions, users, training_set.cutoff),
        training_set.read("users"),
        training_set.read("items"),
        training_set.cutoff,
    )
    found = [one for one in explained(model, query, EXPLAINED_ITEMS) if len(one.items)]
    names = input_names(model)
    sizes = np.array([np.abs(one.inputs).mean(axis=0) for one in found])
    measured = [interval(sizes[:, place], metric=name) for place, name in enumerate(names)]
    importances = [Score(contender=one.metric, **one.model_dump() | {"metric": "importance"}) for one in measured]
    importances.sort(key=lambda score: -score.value)
    show("importance", [score.model_dump() for score in importances])
    lost, by_chance = faithfulness(model, query)
    drops = {"named": lost, "random": by_chance, "difference": lost - by_chance} if len(lost) else {}
    titles = {movie.item_id: movie.title for movie in movies.rows()}
    met = dict(zip(users.tolist(), query.histories.sizes().tolist(), strict=True))
    longest = sorted(found, key=lambda one: (-met[one.user_id], one.user_id))[:EXAMPLE_USERS]
    return Explanations(
        model="challenger" if outcome.model else "champion",
        importances=importances,
        faithful=[
            Score(contender=name, **interval(values, metric="score lost").model_dump())
            for name, values in drops.items()
        ],
        examples=[worked(one, names, titles) for one in longest],
    )


def worked(found: Explanation, names: list[str], titles: dict[int, str]) -> WorkedExample:
    """The first of the explained items, with what moved its score most."""
    parts = [
        Contribution(what=titles[int(item)], history=True, value=float(value))
        for item, value in zip(found.met, found.history[0], strict=True)
    ]
    parts += [
        Contribution(what=name, history=False, value=float(value))
        for name, value in zip(names, found.inputs[0], strict=True)
        if name not in FROM_HISTORY
    ]
    parts.sort(key=lambda part: -abs(part.value))
    return WorkedExample(
        user_id=found.user_id,
        title=titles[int(found.items[0])],
        margin=float(found.margins[0]),
        contributions=parts[:NAMED],
        rest=sum(part.value for part in parts[NAMED:]),
    )
