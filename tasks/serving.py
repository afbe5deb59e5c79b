"""What does a workflow do with the service? Land its feedback, and put a promoted model in front of users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from tasks.lake import Lake
from tasks.typed import task

if TYPE_CHECKING:
    from serving.schemas import DeploymentStatus


class Landing(BaseModel):
    """What a landing brought into the lake; see serving.landing.Landed."""

    model_config = ConfigDict(frozen=True)

    batches: list[str]
    events: int
    ratings: int
    quarantined: int
    feedback: str
    ratings_version: str


class Deployed(BaseModel):
    """What answers after a deployment.

    Attributes:
        version: registry version of the active slot's model.
        slot: blue or green.
        last_act: what was done last, and why.
        overlap: share of the lists that the two models have in common; -1 where nothing was compared.
    """

    model_config = ConfigDict(frozen=True)

    version: int
    slot: str
    last_act: str
    overlap: float


@task(cached=False, cpu="2", memory="4Gi")
def land_feedback(lake: Lake) -> Landing:
    """Publish the service's logged events through the gate, each once; every run does it anew."""
    from lakehouse.settings import Settings
    from serving.landing import land

    landed = land(lake.open(), Settings().state / "serving" / "feedback")
    return Landing(**landed.model_dump(exclude={"removed"}))


@task(cached=False, retries=0, memory="1Gi")
def deploy(model: str = "champion", canary: float = 0.0, force: bool = False) -> Deployed:
    """Stage a registered model in the running service and switch to it, wholly or for a share of the users.

    The service is the one that MILLRACE_SERVING_URL names; MILLRACE_ADMIN_KEY (a Flyte secret, mounted as a file:
    MILLRACE_ADMIN_KEY_FILE) opens it. A model that is already active is left as it is.

    Args:
        model: registry version or alias.
        canary: share of the users; 0 for all.
        force: also if the replay of the last requests speaks against it.
    """
    from serving.client import Client

    with Client() as client:
        status = client.status()
        staged = client.stage(model)
        assert staged.staged is not None
        if staged.staged.model.digest != status.active.model.digest:
            status = client.switch(canary=canary or None, force=force)
    return _deployed(status)


@task(cached=False, retries=0, memory="1Gi")
def roll_back(reason: str = "asked for") -> Deployed:
    """Go back to the model before, in the running service.

    Args:
        reason: why; the ledger keeps it.
    """
    from serving.client import Client

    with Client() as client:
        return _deployed(client.rollback(reason))


def _deployed(status: DeploymentStatus) -> Deployed:
    return Deployed(
        version=status.active.model.version,
        slot=status.active.slot,
        last_act=status.last_act,
        overlap=status.shadow.overlap if status.shadow is not None else -1.0,
    )
