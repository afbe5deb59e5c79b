"""How fast does a model grow old? What the champions of earlier nights would have scored today."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import MillraceError
from tasks.decide import files_of
from tasks.features import TrainingSet
from tasks.lake import Lake
from tasks.promote import METRIC
from tasks.show import show
from tasks.train import NEXT_ITEM, Score
from tasks.typed import task

if TYPE_CHECKING:
    from lakehouse.ledger import Promotion

#: The champions of so many nights ago are asked: enough for a curve, and few enough to stay within seconds.
NIGHTS_AGO = (1, 2, 4, 7, 14, 30, 60, 90)


class FormerChampion(BaseModel):
    """One champion of earlier nights on today's newest interactions.

    Attributes:
        nights_ago: nights since it was promoted.
        promoted: the night that promoted it.
        registry_version: version in the model registry.
        trained_until: time of the newest interaction it was trained on.
        scores: NDCG@10 in the days after the cutoff, and at the next item, with 95 % bootstrap intervals.
    """

    model_config = ConfigDict(frozen=True)

    nights_ago: int
    promoted: date
    registry_version: int
    trained_until: datetime
    scores: list[Score]


class Staleness(BaseModel):
    """The champions of earlier nights, the newest first.

    Attributes:
        left_out: those that can't be asked, each with the reason.
    """

    model_config = ConfigDict(frozen=True)

    champions: list[FormerChampion]
    left_out: list[str]


@task(cpu="2", memory="4Gi", deck=True)
def look_back(lake: Lake, training_set: TrainingSet, day: datetime) -> Staleness:
    """Score the champions of earlier nights as tonight's models are: today's histories, features and targets."""
    from lakehouse.ledger import Promotion
    from models.evaluation import NewestInteractions, interval, ndcg
    from models.protocols import next_item
    from models.recommender import Recommender

    asked = champions_of(list(lake.open().ledger.read(Promotion)), day.date())
    if not asked:
        return Staleness(champions=[], left_out=[])
    interactions = training_set.read("interactions")
    newest = NewestInteractions.split(interactions, training_set.cutoff, training_set.until)
    users, items = training_set.read("users"), training_set.read("items")
    tests = {METRIC: newest, NEXT_ITEM: next_item(interactions, newest, training_set.until)}
    queries = {metric: (test, test.query(users, items)) for metric, test in tests.items() if test is not None}
    champions, left_out = [], []
    for promotion in asked:
        name = f"version {promotion.registry_version}"
        if promotion.trained_until >= training_set.cutoff:
            left_out.append(f"{name}: it has learned of days that it would be asked about")
            continue
        scores = []
        try:
            model = Recommender.load(files_of(promotion), digest=promotion.model_digest)
            for metric, (test, query) in queries.items():
                found = interval(ndcg(model.scores(query), test, query.item_ids()), metric=metric)
                scores.append(Score(contender=name, **found.model_dump()))
        except MillraceError as error:
            left_out.append(f"{name}: {error.message.rstrip('.')}")
            continue
        champions.append(
            FormerChampion(
                nights_ago=(day.date() - promotion.day).days,
                promoted=promotion.day,
                registry_version=promotion.registry_version,
                trained_until=promotion.trained_until,
                scores=scores,
            )
        )
    show("former champions", [score.model_dump() for champion in champions for score in champion.scores])
    return Staleness(champions=champions, left_out=left_out)


def champions_of(promotions: list[Promotion], day: date) -> list[Promotion]:
    """Who was champion `NIGHTS_AGO`, each once, the newest first."""
    in_order = sorted(promotions, key=lambda promotion: (promotion.day, promotion.promoted_at))
    found: dict[str, Promotion] = {}
    for nights in NIGHTS_AGO:
        then = [one for one in in_order if one.day <= day - timedelta(days=nights)]
        if then:
            found.setdefault(then[-1].promotion_id, then[-1])
    return list(found.values())
