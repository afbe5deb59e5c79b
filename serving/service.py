"""What does the service do with a request? Everything but HTTP: history, features, slot, log, in that order."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from features.store import FeatureStore
from lakehouse.errors import MillraceError
from lakehouse.lake import Lakehouse
from lakehouse.tables import Rating
from models.errors import RegistryAwayError
from models.interactions import microseconds
from models.live import History
from models.registry import CHAMPION, RegisteredVersion, find
from serving.clock import Clock
from serving.deployment import Deployments, kept
from serving.errors import ExplanationError, NotReadyError
from serving.events import Feedback
from serving.features import UserFeatures
from serving.health import measure_lake
from serving.history import Histories
from serving.journal import segments
from serving.llm import TOLD, Explainer, ToldEvent, ToldItem
from serving.metrics import Metrics
from serving.requests import Answered, AnsweredRing
from serving.schemas import (
    Basis,
    ExplainRequest,
    ExplainResponse,
    FeaturesInfo,
    FeedbackRequest,
    FeedbackResponse,
    Health,
    RecommendRequest,
    RecommendResponse,
    SimilarRequest,
    SimilarResponse,
    SlotName,
)
from serving.served import ServedSample
from serving.settings import ServingSettings
from serving.slot import Ranked, Slot, session_events, shown
from serving.watch import Bounds

#: Seconds between looks at the store, the lake and the registry.
REFRESH_SECONDS = 15.0
#: How often the ledger is read into the metrics; what it says changes by the night and the hour.
MEASURE_SECONDS = 300.0

log = logging.getLogger("millrace.serving")


class Service:
    """One process's state. Make it by ``open``, then ``start`` it inside the event loop.

    Attributes:
        clock: what time it is.
        deployments: the slots.
        feedback: the log of events.
        metrics: what is counted.
    """

    def __init__(
        self,
        lake: Lakehouse,
        store: FeatureStore,
        state: Path,
        settings: ServingSettings,
        clock: Clock,
    ) -> None:
        self.lake, self.clock, self.settings = lake, clock, settings
        self.metrics = Metrics()
        self._store = store
        self._folder = state / "serving"
        ratings = _ratings(lake)
        self._ratings_version = ratings[0]
        self.histories = Histories(ratings[1])
        self.ring = AnsweredRing(self._folder)
        self.served = ServedSample(self._folder, settings.served_share)
        self.feedback = Feedback(self._folder / "feedback", clock, self.histories, self.ring, self.metrics)
        self.explainer = Explainer(settings.llm_url, self.metrics)
        self.registry_down: str | None = None
        try:
            first = self._first()
        except BaseException:
            self.close()
            raise
        bounds = Bounds(settings.slo_error_share, settings.slo_latency_ms, settings.slo_window)
        self.deployments = Deployments(
            first,
            self._load,
            lake=lake,
            folder=self._folder,
            clock=clock,
            histories=self.histories,
            ring=self.ring,
            bounds=bounds,
            acted=lambda act: self.metrics.acts.labels(act).inc(),
        )
        self.ready = False
        self._named: tuple[str, str, str] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    @classmethod
    def open(
        cls, lake: Lakehouse, store: FeatureStore, state: Path, settings: ServingSettings, *, replay: bool = False
    ) -> Service:
        """Load everything; ``replay`` sets the clock to where the lake ends, or where feedback went on from there.

        Raises:
            NotReadyError: no champion, nothing published, or nothing materialized.
            JournalError: another service has the feedback log, or it is damaged.
            RegistryError, ArtifactError: the champion can't be had and no model is kept from before.
        """
        clock = Clock(_end_of_lake(lake, state) if replay else None)
        return cls(lake, store, state, settings, clock)

    async def start(self) -> None:
        """Note the start in the ledger, and begin to look after what changes."""
        await self.deployments.begin()
        self._gauge()
        self._refreshing = asyncio.ensure_future(self._keep_fresh())
        self.ready = True

    async def stop(self) -> None:
        """Let go of everything; events that were taken are on the disk."""
        self.ready = False
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
        await self.deployments.settled()
        await self.explainer.close()
        self.close()

    def close(self) -> None:
        """Close the files."""
        self.feedback.close()
        self.ring.close()
        self.served.close()

    async def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """A ranked list. A slot that fails is stood in for by the other one. Raises RequestRefusedError."""
        at = self.clock.now()
        request_id = secrets.token_hex(8)
        with self.metrics.stage("history"):
            session = session_events(request.history, at)
            history = self.histories.of(request.user_id, microseconds(at), session)
        slot, canary = self.deployments.pick(str(request.user_id or request_id))
        started = time.perf_counter()
        try:
            user, ranked = await self._ranked(slot, history, request, at)
        except MillraceError:
            raise
        except Exception as error:
            self.metrics.slot_failures.labels(slot.name).inc()
            spare = self.deployments.spare(slot)
            self.deployments.note(slot, False, 1000 * (time.perf_counter() - started))
            if spare is None:
                raise
            log.error("Slot %s could not answer (%s); the other one did.", slot.name, type(error).__name__)
            slot, canary = spare, False
            user, ranked = await self._ranked(slot, history, request, at)
        else:
            self.deployments.note(slot, True, 1000 * (time.perf_counter() - started))
        answer = self._answer(request_id, request, at, slot, canary, history, user, ranked)
        with self.metrics.stage("log"):
            self.ring.add(
                Answered.model_construct(
                    request_id=request_id,
                    request=request,
                    shown=[item.item_id for item in answer.items],
                    model_version=slot.registered.version,
                    model_digest=slot.registered.digest,
                    slot=slot.name,
                    canary=canary,
                )
            )
        return answer

    def similar(self, request: SimilarRequest) -> SimilarResponse:
        """Items that go with one. Raises UnknownItemError."""
        slot, _ = self.deployments.pick("")
        ranked, by_weights = slot.similar(request.item_id, request.k)
        return SimilarResponse(
            item_id=request.item_id,
            title=slot.title(request.item_id),
            basis="item-to-item" if by_weights else "features",
            model=slot.info(),
            items=[slot.item(place, score) for place, score in zip(ranked.places, ranked.scores, strict=True)],
        )

    async def explain(self, request: ExplainRequest) -> ExplainResponse:
        """A reason in words. Raises UnknownItemError, ExplanationError."""
        at = self.clock.now()
        slot, _ = self.deployments.pick(str(request.user_id or ""))
        place = slot.place(request.item_id)
        history = self.histories.of(request.user_id, microseconds(at), session_events(request.history, at))
        if not len(history.item_ids):
            raise ExplanationError.no_history()
        catalogue = slot.catalogue
        item = ToldItem(
            item_id=request.item_id,
            title=catalogue.titles[place],
            year=catalogue.years[place],
            genres=catalogue.genres[place],
        )
        user = slot.features.last(request.user_id).values if request.user_id is not None else None
        (moved,) = await asyncio.to_thread(slot.moved, [place], history, user, at)
        stars = await asyncio.to_thread(self._stars, request.user_id)
        # What moved the score comes first, then the newest.
        telling = dict.fromkeys([*(one.item_id for one in moved), *reversed(history.item_ids.tolist())])
        met = [
            ToldEvent(item_id=event, title=slot.title(event), rating=stars.get(event))
            for event in telling
            if event != request.item_id
        ][:TOLD]
        reason = await self.explainer.explain(item, met)
        return ExplainResponse(item_id=request.item_id, reason=reason.reason, cites=reason.cites)

    async def take(self, request: FeedbackRequest) -> FeedbackResponse:
        """Keep events. Raises EventConflictError, JournalError."""
        return await self.feedback.take(request.events)

    def users(self, limit: int) -> list[int]:
        """Some users to pick from."""
        return self.histories.users(limit)

    def health(self) -> Health:
        """What works and what is done instead."""
        slot = self.deployments.route.active
        degraded = []
        if slot.features.down is not None:
            degraded.append(f"Users' features come from the last snapshot: {slot.features.down}")
        if self.registry_down is not None:
            degraded.append(f"The loaded model stays: {self.registry_down}")
        return Health(
            status="degraded" if degraded else "ok", at=self.clock.now(), model=slot.info(), degraded=degraded
        )

    async def refresh(self) -> None:
        """Take what is new in the store, the registry and the lake."""
        for slot in (self.deployments.route.active, self.deployments.route.other):
            if slot is not None and await asyncio.to_thread(slot.features.changed):
                self.deployments.renew(await asyncio.to_thread(self._renewed, slot))
        await asyncio.to_thread(self._look_around)
        self._gauge()

    async def measure(self) -> None:
        """Read the ledger's last words into the metrics: most of what a refresh would cost, so not done at each."""
        await asyncio.to_thread(measure_lake, self.lake, self.metrics, self.clock.now())

    async def _keep_fresh(self) -> None:
        due = 0.0
        while True:
            try:
                await self.refresh()
                if time.monotonic() >= due:
                    await self.measure()
                    due = time.monotonic() + MEASURE_SECONDS
            except MillraceError as error:
                log.error("What is new could not be read: %s", error.message)
            await asyncio.sleep(REFRESH_SECONDS)

    async def _ranked(
        self, slot: Slot, history: History, request: RecommendRequest, at: datetime
    ) -> tuple[UserFeatures, Ranked]:
        user = UserFeatures(None, "online")
        if request.user_id is not None:
            with self.metrics.stage("features"):
                user = await slot.features.user(request.user_id)
            self.metrics.features.labels(user.source).inc()
            if user.answer is not None:
                self.served.note(user.answer, {"user_id": request.user_id}, at)
        with self.metrics.stage("score"):
            ranked = slot.rank(history, user.values, request, at)
        return user, ranked

    def _answer(
        self,
        request_id: str,
        request: RecommendRequest,
        at: datetime,
        slot: Slot,
        canary: bool,
        history: History,
        user: UserFeatures,
        ranked: Ranked,
    ) -> RecommendResponse:
        if request.details:
            with self.metrics.stage("reasons"):
                items = slot.detailed(ranked, history, user.values, at)
        else:
            items = [slot.item(place, score) for place, score in zip(ranked.places, ranked.scores, strict=True)]
        basis: Basis = "history" if len(history.item_ids) else "features" if user.values is not None else "popularity"
        self.metrics.basis.labels(basis).inc()
        if ranked.scores:
            self.metrics.top_score.observe(ranked.scores[0])
        return RecommendResponse.model_construct(
            request_id=request_id,
            user_id=request.user_id,
            at=at,
            basis=basis,
            history_events=len(history.item_ids),
            model=slot.info(canary=canary),
            features=FeaturesInfo.model_construct(
                source=user.source,
                known_at=slot.features.known_at,
                values=shown(user.values) if request.details and user.values is not None else {},
            ),
            items=items,
        )

    def _stars(self, user_id: int | None) -> dict[int, float]:
        """What a user gave, by item."""
        if user_id is None:
            return {}
        rows = self.lake.latest(Rating).arrow(["item_id", "rating"], [("user_id", "=", user_id)])
        given = dict(zip(rows["item_id"].to_pylist(), rows["rating"].to_pylist(), strict=True))
        return {**given, **self.histories.fresh_stars(user_id)}

    def _first(self) -> Slot:
        """The slot to start with: what a verb chose before a restart, else the registry's champion.

        Where the registry does not answer, what answered before.
        """
        before = kept(self._folder)
        if before is not None and before.chosen:
            return self._made(before.slot, before.active)
        try:
            return self._made("blue", find(CHAMPION))
        except RegistryAwayError:
            if before is None:
                raise
            return self._made(before.slot, before.active)

    def _load(self, name: SlotName, reference: str) -> Slot:
        return self._made(name, find(reference))

    def _made(self, name: SlotName, registered: RegisteredVersion) -> Slot:
        deadline = self.settings.features_deadline_ms / 1000
        models = self._folder / "models"
        return Slot.load(name, registered, self._store, models, at=self.clock.now(), deadline=deadline)

    def _renewed(self, slot: Slot) -> Slot:
        deadline = self.settings.features_deadline_ms / 1000
        return Slot.of(
            slot.name, slot.registered, slot.scorer.model, self._store, at=self.clock.now(), deadline=deadline
        )

    def _look_around(self) -> None:
        """In a thread: the registry's champion, and newer ratings."""
        try:
            self.deployments.champion = find(CHAMPION).version
            self.registry_down = None
        except MillraceError as error:
            self.registry_down = error.message
        self.metrics.up.labels("registry").set(self.registry_down is None)
        version = self.lake.latest(Rating).version
        if version != self._ratings_version:
            self.histories.rebase(_ratings(self.lake)[1])
            self._ratings_version = version

    def _gauge(self) -> None:
        """What is known without asking anybody."""
        metrics, now = self.metrics, self.clock.now()
        slot = self.deployments.route.active
        for view, known_at in slot.features.known_at.items():
            metrics.feature_age.labels(view).set(max(0.0, (now - known_at).total_seconds()))
        metrics.up.labels("online store").set(slot.features.down is None)
        metrics.model_age.set(max(0.0, (now - slot.scorer.model.summary.until).total_seconds()))
        names = (slot.name, str(slot.registered.version), slot.registered.digest[:12])
        if self._named is not None and self._named != names:
            metrics.model_info.remove(*self._named)
        metrics.model_info.labels(*names).set(1)
        self._named = names
        champion = self.deployments.champion
        metrics.champion_behind.set(champion is not None and champion != slot.registered.version)
        usage = shutil.disk_usage(self._folder)
        metrics.disk_free.set(usage.free / usage.total)
        folder = self.feedback.journal.folder
        metrics.unlanded.set(sum((folder / name).stat().st_size for name in segments(folder)))


def _ratings(lake: Lakehouse) -> tuple[int, pa.Table]:
    """The published ratings and their version. Raises NotReadyError."""
    try:
        snapshot = lake.latest(Rating)
    except MillraceError as error:
        raise NotReadyError.because(error.message) from error
    return snapshot.version, snapshot.arrow(["user_id", "item_id", "rated_at"])


def _end_of_lake(lake: Lakehouse, state: Path) -> datetime:
    """The end of the newest published day, or later where feedback was taken after it."""
    from features.store import end_of
    from serving.journal import read

    days = [p.day for p in lake.publications(Rating.contract.table) if p.published]
    if not days:
        raise NotReadyError.because("No ratings are published.")
    end = end_of(max(days))
    folder = state / "serving" / "feedback"
    for name in segments(folder)[-1:]:
        for found in read(folder, name):
            end = max(end, datetime.fromisoformat(str(found.record["received_at"])))
    return end
