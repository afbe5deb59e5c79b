"""What becomes of a bad model that somebody releases past the gates? The real slots say: shadow, switch, roll-back.

The service's own parts on a lake and an online store that are thrown away; only its HTTP and its registry are left out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from features.tables import ItemStats, UserStats
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Deployment
from lakehouse.tables import Movie, Rating, User
from models.interactions import microseconds
from models.registry import RegisteredVersion
from serving.clock import VirtualClock
from tasks.simulation.model import Incident

if TYPE_CHECKING:
    from models.recommender import Recommender
    from serving.schemas import SlotName
    from serving.slot import Slot

#: Requests that the new model is sent after the switch.
REQUESTS = 200


class Released(NamedTuple):
    """How a release went.

    Attributes:
        refusal: what spoke against the switch; empty if nothing did, and nobody had to force it.
        answered, failed: requests that the new model was sent, and those of them that it could not answer.
        taken_back: why it was taken back; empty if it answers still.
    """

    refusal: str
    answered: int
    failed: int
    taken_back: str

    def told(self, incident: Incident, day: date) -> Incident:
        """The incident with what was said of it."""
        if not self.refusal and not self.taken_back:
            return incident
        said = [f"shadow replay: {self.refusal}"] * bool(self.refusal) + [self.taken_back] * bool(self.taken_back)
        after = f"Forced all the same, it could not answer {self.failed} of {self.answered} requests" + (
            "; then the model before answered again." if self.taken_back else "."
        )
        parts = ["the shadow replay"] * bool(self.refusal) + ["the automatic roll-back"] * bool(self.taken_back)
        return incident.model_copy(
            update={"noticed_on": day, "noticed_by": " and ".join(parts), "said": said, "after": after}
        )


def damaged(model: Recommender) -> Recommender:
    """A model whose first number of a user is divided by zero: it can't answer whoever has that number."""
    encoder = model.user_encoder
    broken = encoder.model_copy(update={"spreads": (0.0, *encoder.spreads[1:])})
    return dataclasses.replace(model, user_encoder=broken)


def release(
    lake: Lakehouse, folder: Path, day: date, good: Recommender, new: Recommender, clock: VirtualClock
) -> Released:
    """Serve one model, and release another beside it for everybody.

    Args:
        lake: users, movies and ratings up to the end of the day.
        folder: for the online store and the service's own files.
        day: the day.
        good, new: the model that answers, and the one that shall.
        clock: what time it is.
    """
    from features.store import FeatureStore
    from lakehouse.gate.publish import publish_rows

    ratings = lake.latest(Rating)
    known = ratings.arrow()
    for view in (UserStats, ItemStats):
        computed = partial(view.compute, known)
        publish_rows(lake, view, computed, batch_id=day.isoformat(), day=day, inputs=[ratings.reference])
    store = FeatureStore(folder / "features")
    store.apply([lake.latest(row) for row in (User, Movie, UserStats, ItemStats)])
    store.materialize(day)
    models = {"good": _registered(1, day), "new": _registered(2, day)}

    def load(name: SlotName, reference: str) -> Slot:
        from serving.slot import Slot

        return Slot.of(
            name, models[reference], good if reference == "good" else new, store, at=clock.now(), deadline=1.0
        )

    return asyncio.run(_released(lake, folder / "serving", known, load, clock))


async def _released(
    lake: Lakehouse, folder: Path, known: pa.Table, load: Callable[[SlotName, str], Slot], clock: VirtualClock
) -> Released:
    from serving.deployment import Deployments
    from serving.errors import DeploymentError
    from serving.history import Histories
    from serving.requests import AnsweredRing
    from serving.schemas import RecommendRequest
    from serving.settings import ServingSettings
    from serving.watch import Bounds

    promised = ServingSettings()
    histories = Histories(known)
    deployments = Deployments(
        load("blue", "good"),
        load,
        lake=lake,
        folder=folder,
        clock=clock,
        histories=histories,
        ring=AnsweredRing(folder),
        # Under a clock that stands still nothing takes any time.
        bounds=Bounds(promised.slo_error_share, math.inf, promised.slo_window),
    )
    await deployments.begin()
    await deployments.stage("new")
    refusal = ""
    try:
        await deployments.switch()
    except DeploymentError as error:
        refusal = error.message
        await deployments.switch(force=True)
    new = deployments.route.active
    answered = failed = 0
    users = histories.users(REQUESTS)
    for number in range(REQUESTS):
        user = users[number % len(users)]
        slot, _ = deployments.pick(str(user))
        if slot is not new:
            break
        at = clock.now()
        answered += 1
        try:
            slot.rank(
                histories.of(user, microseconds(at)),
                slot.features.last(user).values,
                RecommendRequest(user_id=user),
                at,
            )
            ok = True
        except Exception:  # as in the service: whatever the model can't do is a failed answer
            ok = False
        failed += not ok
        deployments.note(slot, ok, 0.0)
    await deployments.settled()
    acts = [row for row in lake.ledger.read(Deployment) if row.act == "automatic rollback"]
    return Released(refusal, answered, failed, acts[-1].reason if acts else "")


def _registered(version: int, day: date) -> RegisteredVersion:
    """What the registry would say of it; its files are never asked for."""
    return RegisteredVersion(version=version, digest=f"simulated-{version}", day=day.isoformat(), source="")
