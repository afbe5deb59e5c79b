"""What was asked last? A ring of requests with what was answered: feedback is joined to it, shadows replay it.

It is also a log on the disk, so that a restart knows what was shown before it. The log is not synced: what a power cut
takes from it costs a replay some requests, and an event the place it was shown at.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.schemas import RecommendRequest, SlotName
from serving.turning import TurningLog, lines_of

#: Answers that are remembered.
REMEMBERED = 50_000
_NAME = "answers.log"


class Answered(BaseModel):
    """One request with the items of its answer, in order, and which model gave it."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    request: RecommendRequest
    shown: list[int]
    model_version: int
    model_digest: str
    slot: SlotName
    canary: bool


class AnsweredRing:
    """The last answers by request id.

    Args:
        folder: where the log is kept; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ring: OrderedDict[str, Answered] = OrderedDict()
        for line in lines_of(folder / _NAME):
            with suppress(ValidationError):
                self._keep(Answered.model_validate_json(line))
        self._log = TurningLog(folder / _NAME)

    def add(self, answered: Answered) -> None:
        """Remember an answer."""
        self._keep(answered)
        self._log.add(answered.model_dump_json(exclude_defaults=True).encode())

    def get(self, request_id: str | None) -> Answered | None:
        """The answer with that id, if it is still known."""
        return self._ring.get(request_id) if request_id is not None else None

    def last(self, count: int) -> list[Answered]:
        """The newest answers, newest first."""
        found: list[Answered] = []
        for request_id in reversed(self._ring):
            if len(found) == count:
                break
            found.append(self._ring[request_id])
        return found

    def close(self) -> None:
        """Write what is buffered."""
        self._log.close()

    def _keep(self, answered: Answered) -> None:
        self._ring[answered.request_id] = answered
        if len(self._ring) > REMEMBERED:
            self._ring.popitem(last=False)
