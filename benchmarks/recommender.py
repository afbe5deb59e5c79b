"""How good is the recommender, and what does each part of it bring? Under three protocols, beside every baseline.

    make demo && make benchmark WHAT=recommender [OPTIONS="--protocols replay next split last --windows 8 --days 14"]
    make benchmark WHAT=recommender OPTIONS="--data interactions.parquet"
    make benchmark WHAT=recommender OPTIONS="--protocols staleness"

Replay: train on all before a day, rank the whole catalogue for everybody who met something new in the days after, roll
on. Next: the same windows and models, but each user is asked once in the midst of a window, with the history of that
instant, what comes next. Split: one split by time, 80 to 20. Last: leave each user's last item out. Staleness, which is
run only when it is named: the windows of replay and next, by models made of what there was 1 to 90 days earlier, with
the histories of now and with those of then.

Without ``--data``, interactions and features are read from the lake that the nightly job made, each feature as it was
known at its instant (Feast, pinned versions); a file has user_id, item_id and rated_at and no features. Values are
means over users (and windows) with 95 % bootstrap intervals; differences are paired. ALS is the library implicit's. The
model's settings were chosen on windows up to 1998-03-20, so the windows after that day are shown apart.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from features.store import EVENT_TIMESTAMP, FeatureStore
from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse, Snapshot, Table
from lakehouse.tables import Movie, MovieCard, Rating, User
from models.baselines import Ease, ItemKnn, Popularity, SequentialRules
from models.evaluation import Float64s, NewestInteractions, interval, ndcg
from models.features import FeatureSpec
from models.interactions import Bools, Float32s, Histories, Int64s, Query, Scorer, microseconds, positions
from models.movielens import ITEM_FEATURES, USER_FEATURES
from models.protocols import leave_last_out, next_items, rolling_replay, time_split
from models.recommender import Recommender, RecommenderConfig, fit
from models.sequence import SequenceConfig

TUNED_UNTIL = datetime(1998, 3, 20, tzinfo=UTC)
PROTOCOLS = ["replay", "next", "split", "last"]
#: Days that a model lags behind in the staleness curve; the first is the one that the others are compared with.
AGES = (0, 1, 7, 30, 90)
LLM = ("movie_cards__mood", "movie_cards__audience")
NOTHING = FeatureSpec()
WITHOUT_LLM = ITEM_FEATURES.model_copy(
    update={"categorical": tuple(c for c in ITEM_FEATURES.categorical if c not in LLM)}
)
#: What the model is compared with: itself, less one part at a time.
VARIANTS: dict[str, dict[str, object]] = {
    "model": {"user_features": USER_FEATURES, "item_features": ITEM_FEATURES},
    "without LLM features": {"user_features": USER_FEATURES, "item_features": WITHOUT_LLM},
    "without user features": {"user_features": NOTHING, "item_features": ITEM_FEATURES},
    "without item features": {"user_features": USER_FEATURES, "item_features": NOTHING},
    "without any features": {"user_features": NOTHING, "item_features": NOTHING},
    "without next-item questions": {"user_features": USER_FEATURES, "item_features": ITEM_FEATURES, "next_items": 0},
    "with the transformer": {
        "user_features": USER_FEATURES,
        "item_features": ITEM_FEATURES,
        "sequence": SequenceConfig(),
    },
    "untrained weights": {"user_features": NOTHING, "item_features": NOTHING, "epochs": 1, "learning_rate": 1e-9},
}


#: Models by contender, cutoff and rows of training: two protocols ask the same ones.
Fitted = dict[tuple[str, datetime, int], Recommender]


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


class BareWorld:
    """A file's interactions, with no features."""

    def __init__(self, file: Path) -> None:
        read = pq.read_table(file) if file.suffix == ".parquet" else csv.read_csv(file)
        self.interactions = read.select(["user_id", "item_id", "rated_at"])

    def query(self, test: NewestInteractions) -> Query:
        items = np.unique(self.interactions["item_id"].to_numpy())
        return test.query(pa.table({"user_id": test.histories.user_ids}), pa.table({"item_id": items}))


@dataclass(frozen=True)
class Als:
    """Matrix factors by alternating least squares, older ratings counting less (Hu et al., 2008), by implicit."""

    items: Int64s
    item_factors: Float32s
    users: Int64s
    user_factors: Float32s

    @classmethod
    def fit(cls, interactions: pa.Table, *, factors: int = 64, half_life_days: float = 60.0) -> Als:
        from implicit.als import AlternatingLeastSquares
        from scipy.sparse import coo_matrix
        from threadpoolctl import threadpool_limits

        users, row = np.unique(interactions["user_id"].to_numpy(), return_inverse=True)
        items, column = np.unique(interactions["item_id"].to_numpy(), return_inverse=True)
        times = interactions["rated_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
        weight = 0.5 ** ((times.max() - times) / 86_400e6 / half_life_days)
        matrix = coo_matrix((weight.astype(np.float32), (row, column)), (len(users), len(items))).tocsr()
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(factors=factors, regularization=0.05, alpha=10.0, random_state=0)
            model.fit(matrix, show_progress=False)
        return cls(items, np.asarray(model.item_factors), users, np.asarray(model.user_factors))

    def scores(self, query: Query) -> Float32s:
        """float32 [users, items]; 0 for who or what was not met."""
        user, item = positions(self.users, query.histories.user_ids), positions(self.items, query.item_ids())
        scores = self.user_factors[user] @ self.item_factors[item].T
        return np.where((user >= 0)[:, None] & (item >= 0)[None, :], scores, np.float32(0)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocols", nargs="+", choices=[*PROTOCOLS, "staleness"], default=PROTOCOLS)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--data", type=Path, help="Parquet or CSV with user_id, item_id, rated_at")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        world = BareWorld(options.data) if options.data else World(Path(folder))
        variants: dict[str, dict[str, object]] = {"model": {}} if options.data else VARIANTS
        fitted: Fitted = {}
        if "replay" in options.protocols:
            tests = rolling_replay(world.interactions, windows=options.windows, days=options.days)
            found, late = judged(world, tests, variants, fitted)
            table(f"Rolling replay, {options.windows} windows of {options.days} days", found)
            if not options.data:
                table("Of these, windows from 1998-03-20 on", {name: values[late] for name, values in found.items()})
        if "next" in options.protocols:
            tests = next_items(world.interactions, windows=options.windows, days=options.days)
            found, late = judged(world, tests, variants, fitted)
            table("Next item, at an instant of each window", found)
            if not options.data:
                table("Of these, windows from 1998-03-20 on", {name: values[late] for name, values in found.items()})
        if "split" in options.protocols:
            table("One split by time, 80 to 20", judged(world, [time_split(world.interactions)], variants, fitted)[0])
        if "last" in options.protocols:
            table("Leave the last out", judged(world, [leave_last_out(world.interactions)], variants, fitted)[0])
        if "staleness" in options.protocols:
            models: dict[tuple[datetime, int], Recommender] = {}
            for title, protocol in (("Staleness, replay", rolling_replay), ("Staleness, next item", next_items)):
                tests = protocol(world.interactions, windows=options.windows, days=options.days)
                curve(title, aged(world, tests, variants["model"], models))


def judged(
    world: World | BareWorld,
    tests: Iterable[NewestInteractions],
    variants: dict[str, dict[str, object]],
    fitted: Fitted,
) -> tuple[dict[str, Float64s], Bools]:
    """NDCG@10 of every contender for every user of every test, and which of these come after the tuning."""
    per_user: dict[str, list[Float64s]] = defaultdict(list)
    late: list[Bools] = []
    for test in tests:
        query = world.query(test)
        items = query.item_ids()
        contenders: dict[str, Scorer] = {
            "popularity": Popularity.fit(test.train),
            "popularity of 7 days": Popularity.fit(test.train, last_days=7),
            "item-kNN": ItemKnn.fit(test.train),
            "EASE": Ease.fit(test.train),
            "sequential rules": SequentialRules.fit(test.train),
            "ALS": Als.fit(test.train),
        }
        for name, changes in variants.items():
            key = (name, test.cutoff, test.train.num_rows)
            if key not in fitted:
                fitted[key] = fit(test.train, test.train, config=RecommenderConfig.model_validate(changes))
            contenders[name] = fitted[key]
        for name, contender in contenders.items():
            per_user[name].append(ndcg(contender.scores(query), test, items))
        users = len(test.histories)
        late.append(np.full(users, test.cutoff >= TUNED_UNTIL))
        shown = ", ".join(f"{name} {per_user[name][-1].mean():.3f}" for name in contenders)
        print(f"{test.cutoff.date()}: {users} users; {shown}", file=sys.stderr, flush=True)
    return {name: np.concatenate(values) for name, values in per_user.items()}, np.concatenate(late)


def table(title: str, per_user: dict[str, Float64s]) -> None:
    model = per_user["model"]
    print(f"\n{title}: {len(model)} user and window pairs\n")
    print("| | NDCG@10 | 95 % interval | model minus this, paired |\n|---|---:|---:|---:|")
    for name, values in per_user.items():
        own, gap = interval(values, metric=""), interval(model - values, metric="")
        difference = "" if name == "model" else f"{gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        print(f"| {name} | {own.value:.4f} | {own.low:.4f} to {own.high:.4f} | {difference} |")


def aged(
    world: World | BareWorld,
    tests: Iterable[NewestInteractions],
    changes: dict[str, object],
    models: dict[tuple[datetime, int], Recommender],
) -> dict[tuple[int, str], Float64s]:
    """NDCG@10 for every user of every test, by the model's age in days and by whose history it is told: that of now
    ("fresh"), or that of then ("old"). Features and what counts as met already are those of now."""
    per_user: dict[tuple[int, str], list[Float64s]] = defaultdict(list)
    for test in tests:
        query = world.query(test)
        items = query.item_ids()
        for age in AGES:
            then = test.cutoff - timedelta(days=age)
            if (test.cutoff, age) not in models:
                known = test.train.filter(pc.less(test.train["rated_at"], then))
                models[test.cutoff, age] = fit(known, known, config=RecommenderConfig.model_validate(changes))
            model = models[test.cutoff, age]
            old = _until(query.histories, microseconds(then))
            for histories, asked in (("fresh", query), ("old", replace(query, histories=old))):
                per_user[age, histories].append(ndcg(model.scores(asked), test, items))
        shown = ", ".join(f"{age} days {per_user[age, 'fresh'][-1].mean():.3f}" for age in AGES)
        print(f"{test.cutoff.date()}: {len(test.histories)} users; {shown}", file=sys.stderr, flush=True)
    return {key: np.concatenate(values) for key, values in per_user.items()}


def _until(histories: Histories, at: int) -> Histories:
    kept = histories.rated_at < at
    return replace(
        histories,
        rows=histories.rows[kept],
        item_ids=histories.item_ids[kept],
        rated_at=histories.rated_at[kept],
    )


def curve(title: str, per_user: dict[tuple[int, str], Float64s]) -> None:
    best = per_user[AGES[0], "fresh"]
    print(f"\n{title}: {len(best)} user and window pairs\n")
    print("| model, days old | history | NDCG@10 | 95 % interval | minus the newest model with the history of now |")
    print("|---:|---|---:|---:|---:|")
    for (age, histories), values in per_user.items():
        own, gap = interval(values, metric=""), interval(values - best, metric="")
        lost = f"{gap.value:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        words = "of now" if histories == "fresh" else "of then"
        print(f"| {age} | {words} | {own.value:.4f} | {own.low:.4f} to {own.high:.4f} | {lost} |")


if __name__ == "__main__":
    main()
