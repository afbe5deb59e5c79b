"""How do ratings become features, a training set, and rows in the online store?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse, Snapshot, Table
from lakehouse.settings import Settings
from lakehouse.tables import Movie, MovieCard, Rating, User
from tasks.lake import Lake
from tasks.typed import task

if TYPE_CHECKING:
    import pyarrow as pa


Stats = TypeVar("Stats", UserStats, ItemStats)


class FeatureTables(NamedTuple):
    """Features computed from ratings."""

    user_stats: Snapshot[UserStats]
    item_stats: Snapshot[ItemStats]


class ViewState(BaseModel):
    """One view in the online store: what it stands for and whether it agrees with the offline path.

    Attributes:
        view: name of the view.
        reference: the version its rows come from, as table@version.
        written: entities written.
        compared: values compared between the online and the offline path.
        different: values that differ.
        examples: at most five differences.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    reference: str
    written: int
    compared: int
    different: int
    examples: list[str]


class TrainingSet(BaseModel):
    """Point-in-time correct rows to train and test on, as files named by their content.

    Attributes:
        folder: holds interactions.parquet (a row a rating: its columns and each view's features as known just before
            it), users.parquet and items.parquet (every user and item with the features as known at the cutoff).
        digest: SHA-256 over the files.
        rows: ratings.
        cutoff: ratings from here on are the test.
        until: the end of the day.
        sources: the versions it was made from, as table@version.
    """

    model_config = ConfigDict(frozen=True)

    folder: str
    digest: str
    rows: int
    cutoff: datetime
    until: datetime
    sources: list[str]

    def read(self, name: str) -> pa.Table:
        """``interactions``, ``users`` or ``items``."""
        import pyarrow.parquet as pq

        return pq.read_table(Path(self.folder) / f"{name}.parquet")


@task(cpu="2", memory="4Gi")
def compute_features(lake: Lake, ratings: Snapshot[Rating], day: datetime) -> FeatureTables:
    """Compute the days that the feature tables lack, and publish them through the gate."""
    from features import compute

    lakehouse = lake.open()
    known = ratings.arrow()
    return FeatureTables(
        user_stats=_publish_stats(lakehouse, UserStats, compute.user_stats, known, ratings, day),
        item_stats=_publish_stats(lakehouse, ItemStats, compute.item_stats, known, ratings, day),
    )


@task(memory="2Gi")
def materialize(
    users: Snapshot[User],
    movies: Snapshot[Movie],
    user_stats: Snapshot[UserStats],
    item_stats: Snapshot[ItemStats],
    cards: Snapshot[MovieCard],
    day: datetime,
) -> list[ViewState]:
    """Bring the online store to the end of the day, and compare every value with the offline path."""
    from features.parity import check_parity
    from features.store import FeatureStore
    from features.views import join_keys

    store = FeatureStore(Settings().state / "features")
    pins: list[Snapshot[Table]] = [users, movies, user_stats, item_stats, cards]
    store.apply(pins)
    states = []
    for done in store.materialize(day.date()):
        pin = next(pin for pin in pins if pin.name == done.view)
        keys = join_keys(pin.row.contract)
        parity = check_parity(store, done.view, pin.arrow(keys).group_by(keys).aggregate([]))
        states.append(
            ViewState(
                view=done.view,
                reference=done.reference,
                written=done.written,
                compared=parity.compared,
                different=parity.different,
                examples=list(parity.examples),
            )
        )
    return states


@task(cpu="2", memory="4Gi")
def build_training_set(
    ratings: Snapshot[Rating],
    users: Snapshot[User],
    movies: Snapshot[Movie],
    user_stats: Snapshot[UserStats],
    item_stats: Snapshot[ItemStats],
    cards: Snapshot[MovieCard],
    day: datetime,
    holdout_days: int,
) -> TrainingSet:
    """Join every rating with the features as they were known just before it (Feast, pinned versions)."""
    import pyarrow as pa

    from features.store import EVENT_TIMESTAMP, FeatureStore, end_of

    until = end_of(day.date())
    cutoff = until - timedelta(days=holdout_days)
    pins: list[Snapshot[Table]] = [users, movies, user_stats, item_stats, cards]
    clock = Rating.contract.event_time
    assert clock is not None
    with TemporaryDirectory() as scratch:
        # A registry of its own: what another run pins at the same time can't reach this one.
        store = FeatureStore(Path(scratch))
        store.apply(pins)
        rows = ratings.arrow().sort_by([(clock, "ascending"), ("user_id", "ascending"), ("item_id", "ascending")])
        entities = rows.append_column(EVENT_TIMESTAMP, rows[clock])
        interactions = store.training_set(entities, [pin.name for pin in pins]).drop_columns([EVENT_TIMESTAMP])

        def at_cutoff(snapshot: Snapshot[Table], key: str, views: list[str]) -> pa.Table:
            known = snapshot.arrow([key]).sort_by(key)
            instants = pa.array([cutoff] * known.num_rows, pa.timestamp("us", tz="UTC"))
            found = store.training_set(known.append_column(EVENT_TIMESTAMP, instants), views)
            return found.drop_columns([EVENT_TIMESTAMP])

        tables = {
            "interactions": interactions,
            "users": at_cutoff(users, "user_id", ["users", "user_stats"]),
            "items": at_cutoff(movies, "item_id", ["movies", "item_stats", "movie_cards"]),
        }
    folder, digest = _write_by_content(Settings().state / "training_sets", tables)
    return TrainingSet(
        folder=str(folder),
        digest=digest,
        rows=interactions.num_rows,
        cutoff=cutoff,
        until=until,
        sources=[ratings.reference, *(pin.reference for pin in pins)],
    )


def _publish_stats(
    lake: Lakehouse,
    row_model: type[Stats],
    compute: Callable[[pa.Table, datetime | None], pa.Table],
    ratings: pa.Table,
    source: Snapshot[Rating],
    day: datetime,
) -> Snapshot[Stats]:
    """Publish what is newer than the last published day; everything, if the code that computes has changed."""
    from features.store import end_of
    from lakehouse.publish import publish_rows
    from tasks.cache import code_digest

    code = code_digest(compute)[:12]
    batch_id = f"{day.date()}.ratings-{source.version}.{code}"
    before = [p for p in lake.publications(row_model.contract.table) if p.published and p.batch_id != batch_id]
    after = end_of(before[-1].day) if before and before[-1].batch_id.endswith(f".{code}") else None
    return publish_rows(lake, row_model, lambda: compute(ratings, after), batch_id=batch_id, day=day.date())


def _write_by_content(parent: Path, tables: dict[str, pa.Table]) -> tuple[Path, str]:
    """Write tables as Parquet into a folder named by the digest of their bytes; whole, or not at all."""
    import pyarrow.parquet as pq

    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent) as scratch:
        digest = hashlib.sha256()
        for name, table in tables.items():
            path = Path(scratch) / f"{name}.parquet"
            pq.write_table(table, path)
            digest.update(path.read_bytes())
        folder = parent / digest.hexdigest()[:32]
        if not folder.exists():
            files = Path(scratch) / "files"
            files.mkdir()
            for name in tables:
                (Path(scratch) / f"{name}.parquet").rename(files / f"{name}.parquet")
            files.rename(folder)
    return folder, digest.hexdigest()
