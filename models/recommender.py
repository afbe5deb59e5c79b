"""What should each user see next? Item-to-item, recent popularity and features, weighed by a network that is
trained on what users did next at earlier instants of the same interactions.

Two stages. `Signals` turns bare interactions into a few numbers a user and item (closed form, no training). `Ranker`
weighs them together with the features of user and item. To train the ranker without looking ahead, time is cut at
anchors before the end of the interactions: at each, signals and features are taken as they stood, and two questions
are put for each user. What will they meet in the days after? And, at an instant of those days, with the history of
that instant: what next? Then the signals are learned once more from all interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from models import artifact
from models.anchors import USER_STATE, all_signals, encode_keyed, first_anchor, training_batches, user_state
from models.errors import ArtifactError, InteractionsError
from models.evaluation import top_k
from models.features import Encoder, FeatureSpec
from models.interactions import Float32s, Histories, Int64s, Interactions, Query, int64_column, microseconds, positions
from models.ranker import Ranker, deterministic, train
from models.sequence import Growth, SequenceConfig, SequenceModel
from models.signals import Signals, SignalSettings

FORMAT = 2
#: Users scored at once; bounds the memory of users x items x inputs.
USERS_AT_ONCE = 64

Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number, the number of epochs, and the mean loss."""


class RecommenderConfig(BaseModel):
    """All that a training run can be told. The defaults were chosen on windows of MovieLens 100K up to 1998-03-20."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_features: FeatureSpec = FeatureSpec()
    item_features: FeatureSpec = FeatureSpec()
    ridge: float = Field(500.0, gt=0)
    """EASE's L2 penalty."""
    rating_half_life_days: float = Field(20.0, gt=0)
    """Age at which a rating counts half in the item-to-item weights."""
    history_half_life_items: float = Field(5.0, gt=0)
    """Later events of the user after which a history item counts half in the user's item-to-item score."""
    popularity_half_lives_days: tuple[float, ...] = Field((3.0, 7.0, 30.0), min_length=1)
    """Half-lives of the recent-popularity signals; the last one also fades what came since the user's last visit."""
    anchors: int = Field(8, ge=1)
    """Earlier instants at which the ranker learns what users did next."""
    horizon_days: float = Field(14.0, gt=0)
    """Days after an anchor in which targets are looked for, and between anchors."""
    hidden: int = Field(8, ge=1)
    """Hidden units over the signals."""
    factors: int = Field(4, ge=1)
    """Width of the two feature towers."""
    epochs: int = Field(30, ge=1)
    warm_epochs: int = Field(10, ge=1)
    """Epochs when the ranker starts from an earlier one."""
    learning_rate: float = Field(0.01, gt=0)
    weight_decay: float = Field(1.0, ge=0)
    seed: int = 0
    next_items: int = Field(1, ge=0)
    """Questions a user and anchor beside the one at the anchor: what next, in the midst of the days after it?"""
    sequence: SequenceConfig | None = None
    """The transformer over histories; None leaves it out. On MovieLens 100K it costs more than the rest of the
    training, helps the next item a little and the calendar not at all (docs/adr/0016), so it is left out there."""
    threads: int = Field(1, ge=1)
    """CPU threads of the training; one makes the model independent of the machine's cores and, with batches this
    small, is also the fastest on a busy machine. Larger catalogues want more."""

    def signals(self) -> SignalSettings:
        """The part that the signals read."""
        return SignalSettings(
            self.ridge, self.rating_half_life_days, self.history_half_life_items, self.popularity_half_lives_days
        )


class TrainingSummary(BaseModel):
    """What a model was trained on and how that went."""

    model_config = ConfigDict(frozen=True)

    interactions: int
    users: int
    items: int
    until: datetime
    """Time of the newest interaction."""
    queries: int
    """User and anchor pairs the ranker learned from; 0 where the interactions span too little time for one anchor."""
    losses: tuple[float, ...]
    """Mean loss of each epoch."""
    warm_start: bool


class Recommendation(NamedTuple):
    item_id: int
    score: float


class Inputs(NamedTuple):
    """What the ranker is given for some users of a query.

    `signals`: float32 [users, items, signals]; `user`: float32 [users, encoded]; `item`: float32 [items, encoded].
    """

    histories: Histories
    signals: torch.Tensor
    user: torch.Tensor
    item: torch.Tensor


@dataclass(frozen=True)
class Recommender:
    """A trained model; nothing changes it."""

    config: RecommenderConfig
    summary: TrainingSummary
    signals: Signals
    user_encoder: Encoder
    item_encoder: Encoder
    ranker: Ranker
    sequence: SequenceModel | None = None

    @property
    def items(self) -> Int64s:
        """The items met in training, ascending: int64 [catalogue]."""
        return self.signals.items

    def scores(self, query: Query) -> Float32s:
        """How well each item of the query suits each user: float32 [users, items], finite, comparable within a user.

        A user without history is ranked by what is recent and by features; an item never met in training by its
        features alone. Raises FeatureColumnError or FeatureValueError on unusable feature columns.
        """
        parts = []
        for given in self.inputs(query):
            with torch.inference_mode():
                parts.append(self.ranker(given.signals, given.user, given.item).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, query.items.num_rows), dtype=np.float32)

    def inputs(self, query: Query) -> Iterator[Inputs]:
        """What the ranker is given for the query, USERS_AT_ONCE users at a time. Raises as `scores` does."""
        items, at = query.item_ids(), microseconds(query.at)
        item = torch.from_numpy(self.item_encoder.encode(query.items)).clone()
        user = _user_rows(self.user_encoder, query.users, query.histories)
        for start in range(0, len(query.histories), USERS_AT_ONCE):
            histories = query.histories.slice(start, start + USERS_AT_ONCE)
            signals = all_signals(self.signals, self.sequence, histories, items, at, self.config.signals())
            rows = torch.from_numpy(user[start : start + USERS_AT_ONCE]).clone()
            yield Inputs(histories, torch.from_numpy(signals).clone(), rows, item)

    def recommend(self, query: Query, k: int) -> list[list[Recommendation]]:
        """The k best items each user has not met, best first; fewer where the user has met nearly all."""
        items, scores = query.item_ids(), self.scores(query)
        seen = query.histories.seen(items)
        return [
            [Recommendation(int(items[column]), float(scores[row, column])) for column in best if not seen[row, column]]
            for row, best in enumerate(top_k(scores, seen, k))
        ]

    def save(self, folder: Path) -> str:
        """Write model.safetensors and model.json into `folder`; returns the sha256 digest over both, in hex."""
        statistics = {
            "items": self.signals.items,
            "item_to_item": self.signals.item_to_item,
            "day_starts": self.signals.day_starts,
            "day_counts": self.signals.day_counts,
            "first_met": self.signals.first_met,
            "transitions": self.signals.transitions,
        }
        tensors = {f"signals.{name}": torch.from_numpy(value) for name, value in statistics.items()}
        tensors |= {f"ranker.{name}": value for name, value in self.ranker.state_dict().items()}
        if self.sequence is not None:
            tensors |= {f"sequence.{name}": value for name, value in self.sequence.tensors().items()}
        description: dict[str, JsonValue] = {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "summary": self.summary.model_dump(mode="json"),
            "user_encoder": self.user_encoder.model_dump(mode="json"),
            "item_encoder": self.item_encoder.model_dump(mode="json"),
            "sequence": self.sequence.growth().model_dump(mode="json") if self.sequence else None,
        }
        return artifact.write(folder, tensors, description)

    @classmethod
    def load(cls, folder: Path, *, digest: str | None = None) -> Self:
        """Read what `save` wrote. Raises ArtifactError where a file is missing, cut off, edited or not of `digest`."""
        tensors, described = artifact.read(folder, digest=digest)
        if described.get("format") != FORMAT:
            raise ArtifactError.damaged(str(folder), f"its format is {described.get('format')}, not {FORMAT}")
        try:
            config = RecommenderConfig.model_validate(described["config"])
            summary = TrainingSummary.model_validate(described["summary"])
            user, item = (Encoder.model_validate(described[name]) for name in ("user_encoder", "item_encoder"))
            ranker = _ranker(config, user, item)
            ranker.load_state_dict(_part(tensors, "ranker."))
            signals = Signals(**{name: value.numpy() for name, value in _part(tensors, "signals.").items()})
            sequence = None
            if config.sequence is not None:
                growth = Growth.model_validate(described["sequence"])
                sequence = SequenceModel.of(config.sequence, _part(tensors, "sequence."), growth)
        except (ValidationError, KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError.damaged(str(folder), f"its parts do not fit together ({error})") from None
        return cls(config, summary, signals, user, item, ranker.eval(), sequence)


def fit(
    interactions: pa.Table,
    training_set: pa.Table,
    *,
    config: RecommenderConfig,
    warm_start: Recommender | None = None,
    progress: Progress | None = None,
) -> Recommender:
    """Train on all interactions, with the features of `training_set`.

    `interactions`: user_id, item_id int64, rated_at timestamp[us, UTC]; other columns are not read. `training_set`:
    the same columns and those that the config's feature specifications name, a row an interaction (all, or the newer
    ones), each feature as it was known just before. The same rows (in any order), config and warm start give the same
    model, bit for bit, on the same kind of machine. `warm_start` gives the ranker's first weights where its signals
    and size agree; the rest is learned anew.

    Raises InteractionsError (nothing to learn from, fewer than two items), FeatureColumnError, FeatureValueError,
    TrainingDivergedError.
    """
    log = Interactions.of(interactions)
    if not len(log):
        raise InteractionsError.empty("to learn from")
    if len(log.catalogue()) < 2:
        raise InteractionsError.catalogue(len(log.catalogue()))
    user_encoder = Encoder.learn(config.user_features, training_set, "users")
    item_encoder = Encoder.learn(config.item_features, training_set, "items")
    with deterministic(config.seed, config.threads):
        sequence = _sequence(config, log, warm_start)
        batches = training_batches(
            log,
            training_set,
            user_encoder,
            item_encoder,
            config.signals(),
            anchors=config.anchors,
            horizon_days=config.horizon_days,
            sequence=sequence,
            next_items=config.next_items,
            rng=np.random.default_rng(config.seed),
        )
        if sequence is not None:
            sequence.grow(log, int(log.rated_at[-1]) + 1)
        ranker = _ranker(config, user_encoder, item_encoder)
        warm = False
        losses: list[float] = []
        if batches:
            ranker.standardise(batches)
            warm = warm_start is not None and ranker.adopt(warm_start.ranker)
            losses = train(
                ranker,
                batches,
                epochs=config.warm_epochs if warm else config.epochs,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                progress=progress,
            )
        signals = Signals.learn(log, int(log.rated_at[-1]) + 1, config.signals())
    summary = TrainingSummary(
        interactions=len(log),
        users=len(np.unique(log.user_ids)),
        items=len(signals.items),
        until=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(log.rated_at[-1])),
        queries=sum(len(batch.user) for batch in batches),
        losses=tuple(losses),
        warm_start=warm,
    )
    return Recommender(config, summary, signals, user_encoder, item_encoder, ranker.eval(), sequence)


def _sequence(config: RecommenderConfig, log: Interactions, warm_start: Recommender | None) -> SequenceModel | None:
    """The transformer before it has learned of this run's anchors, with the earlier one's stem where that fits."""
    if config.sequence is None:
        return None
    made = SequenceModel(config.sequence, log.catalogue())
    if warm_start is not None and warm_start.sequence is not None:
        made.adopt(warm_start.sequence, first_anchor(log, config.anchors, config.horizon_days))
    return made


def _ranker(config: RecommenderConfig, user: Encoder, item: Encoder) -> Ranker:
    names = config.signals().names() + (["sequence"] if config.sequence else [])
    return Ranker(names, [*user.names(), *USER_STATE], item.names(), hidden=config.hidden, factors=config.factors)


def _user_rows(encoder: Encoder, users: pa.Table, histories: Histories) -> Float32s:
    """Encoded features and state of the histories' users: float32 [users, encoded]."""
    row = positions(int64_column(users, "user_id", "users"), histories.user_ids)
    return np.concatenate([encode_keyed(encoder, users, row), user_state(histories)], axis=1)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
