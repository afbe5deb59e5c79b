"""How good is the recommender, and what does each part of it bring? MovieLens 100K replayed by time.

    make demo && make benchmark WHAT=recommender [OPTIONS="--windows 8 --days 14"]

Rolling replay: train on all before a day, rank the whole catalogue for everybody who met something new in the days
after, roll on. Features are read from the lake that the nightly job made, each as it was known at its instant (Feast,
pinned versions). Values are means over user and window pairs with 95 % bootstrap intervals; differences are paired. The
model's settings were chosen on windows up to 1998-03-20, so the windows after that day are shown apart.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.store import EVENT_TIMESTAMP, FeatureStore
from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse, Snapshot, Table
from lakehouse.tables import Movie, MovieCard, Rating, User
from models.baselines import Ease, ItemKnn, Popularity
from models.evaluation import NewestInteractions, interval, ndcg_and_recall
from models.features import FeatureSpec
from models.interactions import Query, Scorer
from models.movielens import ITEM_FEATURES, USER_FEATURES
from models.recommender import RecommenderConfig, fit

TUNED_UNTIL = datetime(1998, 3, 20, tzinfo=UTC)
LLM = ("movie_cards__mood", "movie_cards__audience")
NOTHING = FeatureSpec()
WITHOUT_LLM = ITEM_FEATURES.model_copy(
    update={"categorical": tuple(c for c in ITEM_FEATURES.categorical if c not in LLM)}
)
#: What the model is compared with: itself, less one part at a time.
VARIANTS = {
    "model": {"user_features": USER_FEATURES, "item_features": ITEM_FEATURES},
    "without LLM features": {"user_features": USER_FEATURES, "item_features": WITHOUT_LLM},
    "without user features": {"user_features": NOTHING, "item_features": ITEM_FEATURES},
    "without item features": {"user_features": USER_FEATURES, "item_features": NOTHING},
    "without any features": {"user_features": NOTHING, "item_features": NOTHING},
    "untrained weights": {"user_features": NOTHING, "item_features": NOTHING, "epochs": 1, "learning_rate": 1e-9},
}


class World:
    """The lake's interactions with the features of their instants, and the store that answers for any other instant."""

    def __init__(self, folder: Path) -> None:
        lake = Lakehouse.open()
        self.pins: list[Snapshot[Table]] = [lake.latest(row) for row in (User, Movie, UserStats, ItemStats, MovieCard)]
        self.store = FeatureStore(folder)
        self.store.apply(self.pins)
        rows = lake.latest(Rating).arrow()
        rows = rows.sort_by([("rated_at", "ascending"), ("user_id", "ascending"), ("item_id", "ascending")])
        asked = rows.append_column(EVENT_TIMESTAMP, rows["rated_at"])
        self.interactions = self.store.training_set(asked, [pin.name for pin in self.pins]).drop_columns(
            [EVENT_TIMESTAMP]
        )

    def query(self, test: NewestInteractions) -> Query:
        """The question as of the test's cutoff."""

        def known(pin: Snapshot[Table], key: str, views: list[str]) -> pa.Table:
            rows = pin.arrow([key]).sort_by(key)
            at = pa.array([test.cutoff] * rows.num_rows, pa.timestamp("us", "UTC"))
            return self.store.training_set(rows.append_column(EVENT_TIMESTAMP, at), views).drop_columns(
                [EVENT_TIMESTAMP]
            )

        users, movies = self.pins[:2]
        return test.query(
            known(users, "user_id", ["users", "user_stats"]),
            known(movies, "item_id", ["movies", "item_stats", "movie_cards"]),
        )


def cutoffs(newest: datetime, windows: int, days: int) -> Iterator[datetime]:
    """Beginnings of the windows, the oldest first; the last window ends with the newest interaction's day."""
    end = datetime(newest.year, newest.month, newest.day, tzinfo=UTC) + timedelta(days=1)
    for back in range(windows, 0, -1):
        yield end - timedelta(days=back * days)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--days", type=int, default=14)
    options = parser.parse_args()
    per_user: dict[str, list[np.ndarray]] = defaultdict(list)
    recent: list[np.ndarray] = []
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        newest = pc.max(world.interactions["rated_at"]).as_py()
        for cutoff in cutoffs(newest, options.windows, options.days):
            test = NewestInteractions.split(world.interactions, cutoff, cutoff + timedelta(days=options.days))
            query = world.query(test)
            items = query.item_ids()
            relevant, seen, counts = test.relevant(items), test.histories.seen(items), test.target_counts()
            contenders: dict[str, Scorer] = {
                "popularity": Popularity.fit(test.train),
                "popularity of 7 days": Popularity.fit(test.train, last_days=7),
                "item-kNN": ItemKnn.fit(test.train),
                "EASE": Ease.fit(test.train),
            }
            known = world.interactions.filter(pc.less(world.interactions["rated_at"], cutoff))
            for name, changes in VARIANTS.items():
                contenders[name] = fit(known, known, config=RecommenderConfig(**changes))
            for name, contender in contenders.items():
                ndcg, _ = ndcg_and_recall(contender.scores(query), relevant, seen, target_counts=counts)
                per_user[name].append(ndcg)
            recent.append(np.full(len(ndcg), cutoff >= TUNED_UNTIL))
            shown = ", ".join(f"{name} {per_user[name][-1].mean():.3f}" for name in contenders)
            print(f"{cutoff.date()}: {len(ndcg)} users; {shown}", file=sys.stderr, flush=True)
    late = np.concatenate(recent)
    table(f"All {options.windows} windows of {options.days} days", {n: np.concatenate(v) for n, v in per_user.items()})
    table("Windows from 1998-03-20 on", {n: np.concatenate(v)[late] for n, v in per_user.items()})


def table(title: str, per_user: dict[str, np.ndarray]) -> None:
    model = per_user["model"]
    print(f"\n{title}: {len(model)} user and window pairs\n")
    print("| | NDCG@10 | 95 % interval | model minus this, paired |\n|---|---:|---:|---:|")
    for name, values in per_user.items():
        own, gap = interval(values, metric=""), interval(model - values, metric="")
        difference = "" if name == "model" else f"{gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        print(f"| {name} | {own.value:.4f} | {own.low:.4f} to {own.high:.4f} | {difference} |")


if __name__ == "__main__":
    main()
