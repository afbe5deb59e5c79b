"""Which model answers? Two slots, blue and green, and one pointer that moves at once: switch, canary, roll-back.

A model is staged into the slot that does not answer, loaded and warm, while the other goes on. Before a switch the last
requests are replayed on both. After it the slot before stays loaded, so that going back is moving the pointer; the
service does that by itself when the new slot fails too often or gets slow, and writes the reason into the ledger.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse.errors import MillraceError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Deployment as DeploymentRow
from models.interactions import microseconds
from models.registry import RegisteredVersion
from serving.clock import Clock
from serving.errors import DeploymentError
from serving.history import Histories
from serving.requests import Answered, AnsweredRing
from serving.schemas import DeploymentStatus, RecommendRequest, Shadow, SlotName, SlotStatus
from serving.slot import Slot, session_events
from serving.watch import Bounds, Burn, Watch

#: Requests that a shadow replays.
SHADOWED = 200
#: Seconds of rest after each of them, for the requests that are answered meanwhile.
_REST = 0.01
#: Least overlap of the two slots' lists with which a switch needs no force.
LEAST_OVERLAP = 0.1
#: Users whose lists are compared when nothing was asked yet.
_SAMPLE = 50

log = logging.getLogger("millrace.serving")

Act = Literal["start", "stage", "canary", "switch", "rollback", "automatic rollback"]


class Route(NamedTuple):
    """Where requests go: replaced as a whole, never changed."""

    active: Slot
    other: Slot | None = None
    canary: float = 0.0


class Kept(BaseModel):
    """What a restart goes on with: for good if a verb chose it, else only where the registry does not answer."""

    model_config = ConfigDict(frozen=True)

    active: RegisteredVersion
    slot: SlotName
    chosen: bool = False


class Deployments:
    """The two slots and the verbs on them. Verbs run one at a time; answering never waits for one.

    Args:
        first: the slot that answers from the start.
        make: loads a slot, in a thread.
        lake: whose ledger keeps the acts.
        folder: where a restart finds what answered.
        acted: told of each act.
    """

    def __init__(
        self,
        first: Slot,
        make: Callable[[SlotName, str], Slot],
        *,
        lake: Lakehouse,
        folder: Path,
        clock: Clock,
        histories: Histories,
        ring: AnsweredRing,
        bounds: Bounds,
        acted: Callable[[str], None] = lambda act: None,
    ) -> None:
        self.route = Route(first)
        self.champion: int | None = None
        self._make, self._lake, self._folder = make, lake, folder
        self._clock, self._histories, self._ring, self._bounds = clock, histories, ring, bounds
        self._acted = acted
        self._watches: dict[SlotName, Watch] = {first.name: Watch(bounds)}
        self._verb = asyncio.Lock()
        self._before: SlotName | None = None  # where a roll-back goes, and whether one is still possible
        self._shadow: Shadow | None = None
        self._last = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Write down that the service started."""
        before = kept(self._folder)
        self._keep(chosen=before is not None and before.chosen)
        await self._act("start", self.route.active, None, "The service started.", {})

    def pick(self, who: str) -> tuple[Slot, bool]:
        """The slot that answers somebody, and whether by a canary's share: the same one for the same person."""
        route = self.route
        if route.canary and route.other is not None:
            share = int.from_bytes(hashlib.blake2b(who.encode(), digest_size=4).digest(), "big") / 2**32
            if share < route.canary:
                return route.other, True
        return route.active, False

    def spare(self, slot: Slot) -> Slot | None:
        """The other slot, if it is loaded: it answers what the first could not."""
        route = self.route
        return route.other if slot.name == route.active.name else route.active

    def note(self, slot: Slot, ok: bool, ms: float) -> None:
        """Count an answer of a slot; go back if that breaks a promise and there is something to go back to."""
        burn = self._watches[slot.name].note(ok, ms)
        if burn is not None and self._may_go_back(slot):
            self._go_back(slot, burn)

    async def stage(self, reference: str) -> DeploymentStatus:
        """Load a registered model into the slot that does not answer. Raises what loading raises."""
        async with self._one_verb():
            if self.route.canary:
                raise DeploymentError.busy()
            name: SlotName = "green" if self.route.active.name == "blue" else "blue"
            slot = await asyncio.to_thread(self._make, name, reference)
            self._watches[name] = Watch(self._bounds)
            self._before = None
            self.route = Route(self.route.active, slot)
            self._shadow = await asyncio.to_thread(self.shadow)
            await self._act("stage", slot, None, f"Staged {reference}.", self._shadow_numbers())
        return self.status()

    async def switch(self, *, canary: float | None = None, force: bool = False) -> DeploymentStatus:
        """Let the staged slot answer, wholly or a share. Raises DeploymentError."""
        async with self._one_verb():
            old, new = self.route.active, self.route.other
            if new is None or (self._before == new.name):
                raise DeploymentError.nothing_staged()
            if not self.route.canary:
                self._shadow = await asyncio.to_thread(self.shadow)
                against = self._speaks_against()
                if against is not None and not force:
                    raise DeploymentError.shadow(against)
            self._watches[new.name] = Watch(self._bounds)
            if canary is not None:
                self.route = Route(old, new, canary)
                reason = f"{canary:.0%} of users get version {new.registered.version}."
                await self._act("canary", new, old, reason, self._shadow_numbers())
            else:
                self._before = old.name
                self.route = Route(new, old)
                self._keep()
                reason = f"Version {new.registered.version} answers in place of version {old.registered.version}."
                await self._act("switch", new, old, reason, self._shadow_numbers())
        return self.status()

    async def rollback(self, reason: str) -> DeploymentStatus:
        """Go back to the slot before, or end a canary. Raises DeploymentError."""
        async with self._one_verb():
            route = self.route
            if route.other is None or not (route.canary or self._before == route.other.name):
                raise DeploymentError.nothing_before()
            bad = route.other if route.canary else route.active
            good = self._point_back()
            await self._act("rollback", good, bad, f"Rolled back: {reason}", {})
        return self.status()

    def renew(self, slot: Slot) -> None:
        """Put a slot with newer features in the place of its predecessor."""
        route = self.route
        if route.active.name == slot.name:
            self.route = route._replace(active=slot)
        elif route.other is not None and route.other.name == slot.name:
            self.route = route._replace(other=slot)

    def shadow(self, count: int = SHADOWED) -> Shadow | None:
        """Replay the last requests on both slots, as of now; None if nothing is staged."""
        active, staged = self.route.active, self.route.other
        if staged is None:
            return None
        overlaps: list[float] = []
        by_group: dict[str, list[float]] = {}
        times: tuple[list[float], list[float]] = ([], [])
        failures, k = 0, 0
        asked = self._ring.last(count) or [_invented(user) for user in self._histories.users(_SAMPLE)]
        for answered in asked:
            request, at = answered.request, self._clock.now()
            now = microseconds(at)
            history = self._histories.of(request.user_id, now, session_events(request.history, at))
            lists: list[set[int]] = []
            group = "no account"
            for slot, took in zip((active, staged), times, strict=True):
                user = slot.features.last(request.user_id).values if request.user_id is not None else None
                if user is not None and slot is active:
                    group = str(user.get("users__gender", "account"))
                started = time.perf_counter()
                try:
                    ranked = slot.rank(history, user, request, at)
                    lists.append({int(slot.catalogue.item_ids[place]) for place in ranked.places})
                except Exception:  # whatever a model can't answer is what is looked for here
                    failures += slot is staged
                took.append(1000 * (time.perf_counter() - started))
            if len(lists) == 2 and lists[0]:
                k = max(k, request.k)
                overlaps.append(len(lists[0] & lists[1]) / len(lists[0]))
                by_group.setdefault(group, []).append(overlaps[-1])
            time.sleep(_REST)
        return Shadow(
            requests=len(asked),
            k=k,
            overlap=_mean(overlaps),
            overlap_by_group={name: _mean(found) for name, found in sorted(by_group.items())},
            failures=failures,
            active_p99_ms=float(np.percentile(times[0] or [0.0], 99)),
            staged_p99_ms=float(np.percentile(times[1] or [0.0], 99)),
        )

    def status(self) -> DeploymentStatus:
        """What answers, what waits, and the last comparison."""
        route = self.route
        return DeploymentStatus(
            active=self._slot_status(route.active),
            staged=self._slot_status(route.other) if route.other is not None else None,
            canary=route.canary,
            shadow=self._shadow,
            registry_champion=self.champion,
            last_act=self._last,
        )

    async def settled(self) -> None:
        """Wait until every act is in the ledger."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _slot_status(self, slot: Slot) -> SlotStatus:
        watch = self._watches[slot.name]
        return SlotStatus(
            slot=slot.name,
            model=slot.info(),
            features=slot.features.references,
            answers=watch.answers,
            failures=watch.failures,
            p99_ms=watch.p99(),
        )

    def _may_go_back(self, slot: Slot) -> bool:
        route = self.route
        if route.canary:
            return route.other is not None and slot.name == route.other.name
        return self._before is not None and slot.name == route.active.name

    def _go_back(self, bad: Slot, burn: Burn) -> None:
        good = self._point_back()
        reason = f"Version {bad.registered.version} was taken back: {burn.reason}"
        log.warning(reason)
        task = asyncio.ensure_future(self._act("automatic rollback", good, bad, reason, burn.inputs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _point_back(self) -> Slot:
        route = self.route
        assert route.other is not None
        good = route.active if route.canary else route.other
        self.route = Route(good)  # what was taken back must be staged anew before it answers again
        self._before = None
        self._watches[good.name] = Watch(self._bounds)
        self._keep()
        return good

    def _speaks_against(self) -> str | None:
        shadow = self._shadow
        if shadow is None:
            return None
        if shadow.failures:
            return f"it could not answer {shadow.failures} of the last {shadow.requests} requests"
        if shadow.overlap < LEAST_OVERLAP and shadow.k:
            return f"its lists share {shadow.overlap:.0%} with those of the active one, under {LEAST_OVERLAP:.0%}"
        if shadow.staged_p99_ms > self._bounds.latency_ms:
            return f"its 99th percentile is {shadow.staged_p99_ms:.1f} ms; {self._bounds.latency_ms:g} are allowed"
        return None

    def _shadow_numbers(self) -> dict[str, float]:
        return {} if self._shadow is None else {"overlap": self._shadow.overlap, "p99_ms": self._shadow.staged_p99_ms}

    def _one_verb(self) -> _OneVerb:
        return _OneVerb(self._verb)

    def _keep(self, *, chosen: bool = True) -> None:
        active = self.route.active
        keep(self._folder, Kept(active=active.registered, slot=active.name, chosen=chosen))

    async def _act(self, act: Act, slot: Slot, replaced: Slot | None, reason: str, inputs: Mapping[str, float]) -> None:
        self._last = f"{act}: {reason}"
        self._acted(act)
        at = datetime.now(UTC)  # the wall's time, also in a replay: acts of two starts must not mix
        row = DeploymentRow(
            deployment_id=f"{at.isoformat()}/{act}/{slot.name}",
            act=act,
            slot=slot.name,
            model_version=slot.registered.version,
            model_digest=slot.registered.digest,
            features=slot.features.references,
            replaced=None if replaced is None else replaced.registered.version,
            reason=reason,
            inputs=json.dumps(dict(inputs), sort_keys=True),
            acted_at=at,
        )
        try:
            await asyncio.to_thread(self._lake.ledger.append, [row])
        except MillraceError as error:  # the lake being down must not stop a roll-back
            log.error("The ledger does not have this: %s (%s)", reason, error.message)


class _OneVerb:
    """Holds the verbs' lock; a second verb is refused, not queued."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        if self._lock.locked():
            raise DeploymentError.busy()
        await self._lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self._lock.release()


def keep(folder: Path, kept: Kept) -> None:
    """Write down what answers, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "deployment.json.part"
    part.write_text(kept.model_dump_json())
    part.replace(folder / "deployment.json")


def kept(folder: Path) -> Kept | None:
    """What answered before a restart; None if nothing did or the file can't be read."""
    try:
        return Kept.model_validate_json((folder / "deployment.json").read_text())
    except (OSError, ValidationError):
        return None


def _invented(user_id: int) -> Answered:
    return Answered(
        request_id="",
        request=RecommendRequest(user_id=user_id),
        shown=[],
        model_version=0,
        model_digest="",
        slot="blue",
        canary=False,
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
