"""What is one model ready to answer? A slot: model, features and catalogue, loaded together and never changed.

Whatever is new (a model, a night's features) makes a new slot; the service's pointer then moves to it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.encoding import OnlineValue
from features.store import FeatureStore
from models.interactions import Bools, Float32s, Int64s, Query, microseconds
from models.interactions import Histories as QueryHistories
from models.live import History, LiveScorer
from models.recommender import Recommender
from models.registry import RegisteredVersion, fetch
from serving.errors import RequestRefusedError, UnknownItemError
from serving.features import OnlineFeatures, Values
from serving.schemas import Met, ModelInfo, Moved, RecommendedItem, RecommendRequest, SlotName

#: What the page and the answers show of an item.
SHOWN = ("movies__title", "movies__year", "movies__genres")
#: The newest history items that are tried as reasons.
_TRIED = 20
#: Reasons given for one item.
REASONS = 3


class Ranked(NamedTuple):
    """Places of the catalogue, best first, and their scores."""

    places: list[int]
    scores: list[float]


@dataclass(frozen=True)
class Catalogue:
    """The items by place, and masks to filter by."""

    item_ids: Int64s
    titles: list[str]
    years: list[int | None]
    genres: list[list[str]]
    year_of: Int64s
    by_genre: dict[str, Bools]

    @classmethod
    def of(cls, features: OnlineFeatures) -> Catalogue:
        columns = features.items.columns
        titles = [str(title) for title in columns["movies__title"]]
        years = [value if isinstance(value, int) else None for value in columns["movies__year"]]
        genres = [[str(one) for one in value] if isinstance(value, list) else [] for value in columns["movies__genres"]]
        names = sorted({name for each in genres for name in each})
        return cls(
            np.array(columns["item_id"], dtype=np.int64),
            titles,
            years,
            genres,
            np.array([year or 0 for year in years], dtype=np.int64),
            {name: np.array([name in each for each in genres], dtype=np.bool_) for name in names},
        )

    def allowed(self, request: RecommendRequest) -> Bools | None:
        """Which items the request's filters leave; None if it has none. Raises RequestRefusedError."""
        if not request.genres and request.year_from is None and request.year_to is None:
            return None
        unknown = [name for name in request.genres if name not in self.by_genre]
        if unknown:
            raise RequestRefusedError.genres(unknown, list(self.by_genre))
        mask = np.ones(len(self.item_ids), dtype=np.bool_)
        if request.genres:
            mask &= np.any([self.by_genre[name] for name in request.genres], axis=0)
        if request.year_from is not None:
            mask &= self.year_of >= request.year_from
        if request.year_to is not None:
            mask &= (self.year_of <= request.year_to) & (self.year_of > 0)
        return mask


@dataclass(frozen=True)
class Slot:
    """One of the two that can answer."""

    name: SlotName
    registered: RegisteredVersion
    scorer: LiveScorer
    features: OnlineFeatures
    catalogue: Catalogue

    @classmethod
    def load(
        cls,
        name: SlotName,
        registered: RegisteredVersion,
        store: FeatureStore,
        models: Path,
        *,
        at: datetime,
        deadline: float,
    ) -> Slot:
        """Fetch, check and load a registered model, read its features, and answer once to be warm.

        Raises RegistryError, ArtifactError (the files are not those that were registered), NotReadyError,
        FeatureColumnError, FeatureValueError.
        """
        model = Recommender.load(fetch(registered, models), digest=registered.digest)
        return cls.of(name, registered, model, store, at=at, deadline=deadline)

    @classmethod
    def of(
        cls,
        name: SlotName,
        registered: RegisteredVersion,
        model: Recommender,
        store: FeatureStore,
        *,
        at: datetime,
        deadline: float,
    ) -> Slot:
        """A loaded model with its features as they are now."""
        features = OnlineFeatures(
            store,
            model.config.user_features.columns(),
            model.config.item_features.columns(),
            extra_item_columns=SHOWN,
            deadline=deadline,
        )
        features.load(at)
        slot = cls(name, registered, LiveScorer(model, features.item_table), features, Catalogue.of(features))
        nobody = History(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        slot.rank(nobody, None, RecommendRequest(), at)
        return slot

    def info(self, *, canary: bool = False) -> ModelInfo:
        """How answers name it."""
        return ModelInfo(
            version=self.registered.version,
            digest=self.registered.digest,
            slot=self.name,
            canary=canary,
            trained_until=self.scorer.model.summary.until,
        )

    def rank(self, history: History, user: Values | None, request: RecommendRequest, at: datetime) -> Ranked:
        """The best items that the history does not hold and the request allows.

        Raises ArithmeticError where the model gives what is no number.
        """
        scores = self.scorer.scores(history, user, at)
        if not np.isfinite(scores).all():
            raise ArithmeticError("a score is not a number")
        mask = self.catalogue.allowed(request)
        blocked = self.scorer.seen(history)
        if mask is not None:
            blocked |= ~mask
        places = [self.scorer.column(item) for item in request.exclude]
        blocked[[place for place in places if place is not None]] = True
        return _top(np.where(blocked, -np.inf, scores), request.k)

    def similar(self, item_id: int, k: int) -> tuple[Ranked, bool]:
        """Items that go with one; whether by item-to-item weights (else by features). Raises UnknownItemError."""
        place = self.place(item_id)
        weights = self.scorer.similar(item_id)
        by_weights = weights is not None
        if weights is None:
            encoded = self.scorer.model.item_encoder.encode(self.features.item_table)
            length = np.maximum(np.linalg.norm(encoded, axis=1), 1e-9)
            weights = (encoded @ encoded[place]) / (length * length[place])
        masked = np.asarray(weights, dtype=np.float64)
        masked[place] = -np.inf
        return _top(masked, k), by_weights

    def place(self, item_id: int) -> int:
        """Where an item stands. Raises UnknownItemError."""
        place = self.scorer.column(item_id)
        if place is None:
            raise UnknownItemError.numbered(item_id, len(self.catalogue.item_ids))
        return place

    def item(self, place: int, score: float) -> RecommendedItem:
        """An item as answers show it."""
        catalogue = self.catalogue
        return RecommendedItem.model_construct(
            item_id=int(catalogue.item_ids[place]),
            title=catalogue.titles[place],
            year=catalogue.years[place],
            genres=catalogue.genres[place],
            score=score,
            because=[],
            features={},
        )

    def detailed(self, ranked: Ranked, history: History, user: Values | None, at: datetime) -> list[RecommendedItem]:
        """The ranked items with the history items that moved each score, and the features that were read."""
        moved = self.moved(ranked.places, history, user, at)
        names = self.scorer.model.config.item_features.columns()
        return [
            self.item(place, score).model_copy(
                update={"because": because, "features": shown(self.features.items.values(place, names))}
            )
            for place, score, because in zip(ranked.places, ranked.scores, moved, strict=True)
        ]

    def moved(self, places: Sequence[int], history: History, user: Values | None, at: datetime) -> list[list[Moved]]:
        """For each place the history items without which its score would be lower, the most first.

        Each of the newest history items is left out in turn and the model asked again: what it answers then is the
        reason itself, not an estimate.
        """
        events = len(history.item_ids)
        tried = range(max(0, events - _TRIED), events)
        if not events or not places:
            return [[] for _ in places]
        without = [np.delete(np.arange(events), left_out) for left_out in tried]
        rows = [np.arange(events), *without]
        ids = np.full(len(rows), 1, dtype=np.int64)
        histories = QueryHistories(
            ids + np.arange(len(rows)),
            np.repeat(np.arange(len(rows)), [len(kept) for kept in rows]),
            np.concatenate([history.item_ids[kept] for kept in rows]),
            np.concatenate([history.rated_at[kept] for kept in rows]),
            np.full(len(rows), microseconds(at), dtype=np.int64),
        )
        scores = self._query_scores(histories, places, user, at)
        drop = scores[0] - scores[1:]
        found = []
        for column in range(len(places)):
            best = np.argsort(-drop[:, column], kind="stable")[:REASONS]
            found.append(
                [
                    Moved(item_id=item, title=self.title(item), change=float(drop[row, column]))
                    for row in best.tolist()
                    if drop[row, column] > 0
                    for item in [int(history.item_ids[tried[row]])]
                ]
            )
        return found

    def _query_scores(
        self, histories: QueryHistories, places: Sequence[int], user: Values | None, at: datetime
    ) -> Float32s:
        import pyarrow as pa

        names = self.scorer.model.config.user_features.columns()
        schema = self.features.user_schema
        values = {} if user is None else {name: user[name] for name in names}
        asked = [] if user is None else histories.user_ids.tolist()
        rows = [{"user_id": number, **values} for number in asked]
        users = pa.Table.from_pylist(rows, schema=schema)
        items = self.features.item_table.take(pa.array(places, pa.int64()))
        return self.scorer.model.scores(Query(histories, users, items, at))

    def title(self, item_id: int) -> str:
        """An item's title; its number where it has left the catalogue."""
        place = self.scorer.column(item_id)
        return f"item {item_id}" if place is None else self.catalogue.titles[place]


def shown(values: Values) -> dict[str, int | float | bool | str | list[str] | None]:
    """Features as an answer shows them."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: OnlineValue) -> int | float | bool | str | list[str] | None:
    if isinstance(value, list):
        return [str(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _top(scores: np.ndarray[tuple[int], np.dtype[np.float64]] | Float32s, k: int) -> Ranked:
    """The k highest finite scores, best first, ties in the catalogue's order."""
    k = min(k, len(scores))
    if 4 * k < len(scores):
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        within = np.flatnonzero(scores >= edge)
    else:
        within = np.arange(len(scores))
    order = within[np.argsort(-scores[within], kind="stable")][:k]
    values = scores[order]
    kept = values > -np.inf
    return Ranked(order[kept].tolist(), values[kept].tolist())


def session_events(session: Sequence[Met], at: datetime) -> list[tuple[int, int]]:
    """A session's items with their times; those without one are taken as just now, in the order of the list."""
    now = microseconds(at)
    return [
        (met.item_id, now - (len(session) - place) if met.at is None else min(microseconds(met.at), now - 1))
        for place, met in enumerate(session)
    ]
