"""How does an event become part of what is known? Once: joined with what was shown, logged, counted, remembered.

An id that comes again is recognised by it and by the digest of its content. The same event is a duplicate, and is only
acknowledged when the first one is on the disk; another one under the same id is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from lakehouse.errors import MillraceError
from models.interactions import microseconds
from serving.clock import Clock
from serving.errors import EventConflictError
from serving.history import Histories
from serving.journal import Journal, Record, read, segments
from serving.metrics import Metrics
from serving.requests import Answered, AnsweredRing
from serving.schemas import FeedbackEvent, FeedbackResponse

#: A sender's clock may be ahead of the service's by so much without being mentioned.
TOLERANCE = timedelta(minutes=5)
#: Ids that are remembered beyond what the log's files hold.
_IDS = 2_000_000


class _Known(NamedTuple):
    digest: bytes
    done: Future[None] | None


class Feedback:
    """Takes events: durable before they are acknowledged, and part of the history from then on.

    Args:
        folder: of the log.

    Raises:
        JournalError: another process has the log, or it is damaged.
    """

    def __init__(self, folder: Path, clock: Clock, histories: Histories, ring: AnsweredRing, metrics: Metrics) -> None:
        self._clock, self._histories, self._ring, self._metrics = clock, histories, ring, metrics
        self._ids: OrderedDict[str, _Known] = OrderedDict()
        self.newest = datetime(1970, 1, 1, tzinfo=UTC)
        self.journal = Journal(folder, synced=lambda seconds, _: metrics.sync_seconds.observe(seconds))
        for name in segments(folder):
            for found in read(folder, name):
                self._replay(found.record)

    async def take(self, events: Sequence[FeedbackEvent]) -> FeedbackResponse:
        """Log the events that are new and wait until they and their twins are on the disk.

        Raises EventConflictError (nothing was logged), JournalError (send them again).
        """
        digests = [_digest(event) for event in events]
        conflicts = [
            event.event_id
            for event, digest in zip(events, digests, strict=True)
            if (known := self._ids.get(event.event_id)) is not None and known.digest != digest
        ]
        within = {event.event_id: digest for event, digest in zip(events, digests, strict=True)}
        conflicts += [e.event_id for e, d in zip(events, digests, strict=True) if within[e.event_id] != d]
        if conflicts:
            raise EventConflictError.different(list(dict.fromkeys(conflicts)))
        # Goes on if the caller leaves: what is logged must also be known.
        return await asyncio.shield(asyncio.ensure_future(self._keep(events, digests)))

    async def _keep(self, events: Sequence[FeedbackEvent], digests: Sequence[bytes]) -> FeedbackResponse:
        now = self._clock.now()
        fresh: list[Record] = []
        waiting: list[Future[None]] = []
        for event, digest in zip(events, digests, strict=True):
            known = self._ids.get(event.event_id)
            if known is None:
                fresh.append(self._record(event, now, digest))
                self._remember(event.event_id, _Known(digest, None))
            else:
                self._metrics.feedback.labels(event.kind, "duplicate").inc()
                if known.done is not None and known.done not in waiting:
                    waiting.append(known.done)
        if fresh:
            done = self.journal.append(fresh)
            for record in fresh:
                name = str(record["event_id"])
                self._ids[name] = self._ids[name]._replace(done=done)
            try:
                await asyncio.wrap_future(done)
            except MillraceError:
                for record in fresh:  # they may come again, and are then logged anew
                    self._ids.pop(str(record["event_id"]), None)
                raise
            for record in fresh:
                name = str(record["event_id"])
                self._ids[name] = self._ids[name]._replace(done=None)
                self._metrics.feedback.labels(str(record["kind"]), "accepted").inc()
                self._apply(record)
        for other in waiting:
            await asyncio.wrap_future(other)
        ahead = sum(float(str(record["skew_seconds"])) > TOLERANCE.total_seconds() for record in fresh)
        return FeedbackResponse(accepted=len(fresh), duplicates=len(events) - len(fresh), ahead=ahead)

    def close(self) -> None:
        """Write what waits, and let the log go."""
        self.journal.close()

    def _record(self, event: FeedbackEvent, now: datetime, digest: bytes) -> Record:
        """The event as the lake will have it, with what was shown and by which model."""
        answered = self._ring.get(event.request_id)
        claimed = event.occurred_at.astimezone(UTC) if event.occurred_at is not None else now
        shown = event.shown or (answered.shown if answered is not None else [])
        position = shown.index(event.item_id) + 1 if event.item_id in shown else None
        record: dict[str, JsonValue] = {
            "event_id": event.event_id,
            "kind": event.kind,
            "user_id": event.user_id if event.user_id is not None else _user_of(answered),
            "item_id": event.item_id,
            "rating": event.rating,
            "position": position,
            "shown": list(shown),
            "request_id": event.request_id,
            "model_version": answered.model_version if answered is not None else None,
            "model_digest": answered.model_digest if answered is not None else None,
            "slot": answered.slot if answered is not None else None,
            "canary": answered.canary if answered is not None else None,
            "occurred_at": min(claimed, now).isoformat(),
            "received_at": now.isoformat(),
            "skew_seconds": max(0.0, (claimed - now).total_seconds()),
            "digest": digest.hex(),
        }
        return record

    def _replay(self, record: Record) -> None:
        self._remember(str(record["event_id"]), _Known(bytes.fromhex(str(record["digest"])), None))
        self.newest = max(self.newest, datetime.fromisoformat(str(record["received_at"])))
        self._apply(record)

    def _apply(self, record: Record) -> None:
        """What an event changes: the user's history, and how the model does."""
        kind, user, item = record["kind"], record["user_id"], record["item_id"]
        if kind == "rating" and isinstance(user, int) and isinstance(item, int):
            at = microseconds(datetime.fromisoformat(str(record["occurred_at"])))
            self._histories.add(user, item, at, float(str(record["rating"])))
        request_id, version, position = record["request_id"], record["model_version"], record["position"]
        if isinstance(request_id, str) and isinstance(version, int):
            self._metrics.impression(request_id, version)
            if isinstance(position, int):
                self._metrics.hit(request_id, position)

    def _remember(self, event_id: str, known: _Known) -> None:
        self._ids[event_id] = known
        if len(self._ids) > _IDS:
            self._ids.popitem(last=False)


def _user_of(answered: Answered | None) -> int | None:
    return answered.request.user_id if answered is not None else None


def _digest(event: FeedbackEvent) -> bytes:
    """Of what the sender wrote, whatever the order of its fields."""
    text = json.dumps(event.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).digest()
