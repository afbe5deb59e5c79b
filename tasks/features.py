"""How do ratings become features, a training set, and rows in the online store?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

from features import training_set
from features.feature_view import FeatureView
from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse, Snapshot, Table
from lakehouse.settings import Settings
from lakehouse.tables import Movie, MovieCard, Rating, User
from tasks.kept import Artifact, Destination
from tasks.lake import Lake
from tasks.show import show
from tasks.typed import task

if TYPE_CHECKING:
    import pyarrow as pa


View = TypeVar("View", bound=FeatureView)


def _online_store() -> str:
    """What names the online store that the settings choose, without its password; empty if its file is not there."""
    from features.settings import OnlineSettings

    url = OnlineSettings().online_store
    if url is not None:
        parts = urlsplit(url.get_secret_value())
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    file = Settings().state / "features" / "online.db"
    return str(file) if file.is_file() else ""


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
        store: the online store; one that is new, or another, is not filled by an answer from the cache.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    reference: str
    written: int
    compared: int
    different: int
    examples: list[str]
    store: Annotated[str, Destination(_online_store)] = ""


class TrainingSet(training_set.TrainingSet):
    """Point-in-time correct rows to train and test on.

    Its parts are ``interactions`` (a row a rating: its columns and each view's features as known just before it),
    ``users`` and ``items`` (every user and item with the features as known at the cutoff).

    Attributes:
        cutoff: ratings from here on are the test.
        until: the end of the day.
    """

    folder: Annotated[str, Artifact()]
    cutoff: datetime
    until: datetime


@task(cpu="2", memory="4Gi")
def compute_features(lake: Lake, ratings: Snapshot[Rating], day: datetime) -> FeatureTables:
    """Compute the days that the feature tables lack, and publish them through the gate."""
    lakehouse = lake.open()
    read = dict.fromkeys([*UserStats.declaration.inputs, *ItemStats.declaration.inputs])
    known = ratings.arrow(list(read))
    return FeatureTables(
        user_stats=_publish_view(lakehouse, UserStats, known, ratings, day),
        item_stats=_publish_view(lakehouse, ItemStats, known, ratings, day),
    )


@task(memory="2Gi", deck=True)
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

    store = FeatureStore.open(Settings().state)
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
                store=_online_store(),
            )
        )
    show("views", [state.model_dump(exclude={"examples"}) for state in states])
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
    from features.store import end_of

    until = end_of(day.date())
    cutoff = until - timedelta(days=holdout_days)
    part = training_set.Part.of
    made = training_set.build(
        [
            part("interactions", ratings, [users, movies, user_stats, item_stats, cards]),
            part("users", users, [users, user_stats], columns=["user_id"], as_of=cutoff),
            part("items", movies, [movies, item_stats, cards], columns=["item_id"], as_of=cutoff),
        ],
        Settings().state / "training_sets",
    )
    return TrainingSet(**made.model_dump(), cutoff=cutoff, until=until)


def _publish_view(
    lake: Lakehouse, view: type[View], rows: pa.Table, source: Snapshot[Rating], day: datetime
) -> Snapshot[View]:
    """Publish what is newer than the last published day; everything, if the view or what computes it has changed."""
    from features.store import end_of
    from lakehouse.gate.publish import publish_rows
    from lakehouse.query.pointer import standing
    from tasks.cache import code_digest

    # The module that declares the view, and with it every one that computes it.
    code = code_digest(view)[:12]
    batch_id = f"{day.date()}.ratings-{source.version}.{code}"
    batches = [p for p in standing(lake.publications(view.contract.table)) if p.kind == "batch"]
    before = [p for p in batches if p.batch_id != batch_id]
    after = end_of(before[-1].day) if before and before[-1].batch_id.endswith(f".{code}") else None
    return publish_rows(
        lake,
        view,
        lambda: view.compute(rows, after=after),
        batch_id=batch_id,
        day=day.date(),
        inputs=[source.reference],
    )
