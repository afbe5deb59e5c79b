"""Which models are there? One a cutoff, trained when the first policy asks for it and shared with all others."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from tasks.simulation.incidents import relabelled
from tasks.simulation.world import World

if TYPE_CHECKING:
    from models.recommender import Recommender, RecommenderConfig


class Key(NamedTuple):
    """What a model is named by.

    Attributes:
        cutoff: it learned of what was given before.
        spoiled: whether from ratings with another catalogue's numbers.
    """

    cutoff: datetime
    spoiled: bool = False


class Trained(NamedTuple):
    """A model and the CPU seconds of its training."""

    model: Recommender
    cpu_seconds: float


class Trainings:
    """The nightly job's training, without its warm start: the model then depends on the cutoff alone."""

    def __init__(self, world: World, config: RecommenderConfig) -> None:
        self._world, self._config = world, config
        self._made: dict[Key, Trained] = {}

    def of(self, key: Key) -> Trained:
        """The model of a cutoff."""
        if key not in self._made:
            from models.recommender import fit

            rows = self._world.happened(key.cutoff)
            if key.spoiled:
                rows = relabelled(rows, self._config.seed)
            begun = time.process_time()
            model = fit(rows, rows, config=self._config)
            self._made[key] = Trained(model, time.process_time() - begun)
        return self._made[key]

    def keep(self, wanted: Collection[Key]) -> None:
        """Let go of all other models."""
        self._made = {key: made for key, made in self._made.items() if key in wanted}


def lighter(config: RecommenderConfig) -> RecommenderConfig:
    """The configuration without the features that a language model answers."""
    items = config.item_features
    kept = tuple(name for name in items.categorical if not name.startswith("movie_cards__"))
    return config.model_copy(update={"item_features": items.model_copy(update={"categorical": kept})})
