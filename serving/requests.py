"""What was asked last? A ring of requests with what was answered: feedback is joined to it, shadows replay it.

It is also a file, so that a restart knows what was shown before it: two files take turns, each of bounded size. It is
not synced: what a power cut takes from it costs a replay some requests, and an event the place it was shown at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.schemas import RecommendRequest, SlotName

#: Answers that are remembered.
REMEMBERED = 50_000
#: Size from which the other file is begun, bytes.
FILE_BYTES = 32 * 2**20


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
        folder: where the two files are kept; made if it is not there.
    """

    def __init__(self, folder: Path, *, remembered: int = REMEMBERED, file_bytes: int = FILE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = (folder / "answers.log", folder / "answers.log.1")
        self._remembered, self._file_bytes = remembered, file_bytes
        self._ring: OrderedDict[str, Answered] = OrderedDict()
        for path in reversed(self._files):
            for answered in _read(path):
                self._keep(answered)
        self._open()

    def add(self, answered: Answered) -> None:
        """Remember an answer."""
        self._keep(answered)
        line = answered.model_dump_json(exclude_defaults=True).encode() + b"\n"
        with suppress(OSError):  # a full disk stops feedback, which says so; answers go on
            self._file.write(line)
            self._size += len(line)
            if self._size >= self._file_bytes:
                self._file.close()
                self._files[0].replace(self._files[1])
                self._open()

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
        with suppress(OSError):
            self._file.close()

    def _keep(self, answered: Answered) -> None:
        self._ring[answered.request_id] = answered
        if len(self._ring) > self._remembered:
            self._ring.popitem(last=False)

    def _open(self) -> None:
        self._file = self._files[0].open("ab")
        self._size = self._file.tell()


def _read(path: Path) -> Iterator[Answered]:
    """The whole lines of a file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            with suppress(ValidationError):
                yield Answered.model_validate_json(line)
