"""How does an event survive a kill? In an append-only log that is on the disk before the event is acknowledged.

A record is one line: the CRC-32 of its text in hex, a space, JSON. Records are written by one thread, which takes all
that wait, writes them at once and syncs once (group commit): a thousand callers share one sync. A line that was cut off
by a kill at the end of the log was never acknowledged and is cut away at the next start; one that is damaged before the
end is an error, because acknowledged events come after it.

The log is a row of segments named by number. Only the last one grows. Readers need no lock: whole lines are whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from serving.errors import JournalError

#: Size from which a new segment is begun, bytes.
SEGMENT_BYTES = 64 * 2**20
_PATTERN = "feedback-*.log"
_PREFIX = 9  # CRC in hex and a space

Record = dict[str, JsonValue]


class Read(NamedTuple):
    """A record and where it ends.

    Attributes:
        segment: the file's name.
        end: offset of the first byte after the record.
        record: what was appended.
    """

    segment: str
    end: int
    record: Record


class Journal:
    """The log in a folder, held by one process for as long as it is open.

    Args:
        folder: made if it is not there.
        segment_bytes: size from which a new segment is begun.
        synced: told the seconds and appends of each sync.

    Raises:
        JournalError: another process holds it, it is damaged, or it can't be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        synced: Callable[[float, int], None] | None = None,
    ) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._synced = synced
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("a")
        except OSError as error:
            raise JournalError.unwritable(str(folder), error.strerror or str(error)) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise JournalError.held(str(folder)) from None
        try:
            names = segments(folder)
            self._file = self._open(names[-1] if names else _name(1))
        except BaseException:
            self._lock.close()
            raise
        self._waiting: list[tuple[bytes, Future[None]]] = []
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="feedback-log", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[Mapping[str, JsonValue]]) -> Future[None]:
        """Append records; the future is done when all are on the disk, and carries a JournalError if they can't be."""
        done: Future[None] = Future()
        lines = b"".join(map(encode, records))
        with self._wake:
            if self._closed:
                done.set_exception(JournalError.unwritable(str(self.folder), "it is closed"))
            else:
                self._waiting.append((lines, done))
                self._wake.notify()
        return done

    def close(self) -> None:
        """Write what waits, then let the log go."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        os.close(self._file)
        self._lock.close()

    def _open(self, name: str) -> int:
        """The segment, opened to be appended to, without a line that a kill cut off."""
        path = self.folder / name
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._size = whole_bytes(path)
            if self._size < os.fstat(file).st_size:
                os.ftruncate(file, self._size)
            os.fsync(file)
            _sync_folder(self.folder)
        except OSError as error:
            raise JournalError.unwritable(str(self.folder), error.strerror or str(error)) from error
        self._name = name
        return file

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                taken, self._waiting = self._waiting, []
                if not taken and self._closed:
                    return
            started = time.perf_counter()
            try:
                if self._size >= self._segment_bytes:
                    file = self._open(_name(_number(self._name) + 1))
                    os.close(self._file)
                    self._file = file
                self._write(b"".join(lines for lines, _ in taken))
            except (OSError, JournalError) as error:
                why = error if isinstance(error, JournalError) else self._undone(error)
                for _, done in taken:
                    done.set_exception(why)
                continue
            if self._synced is not None:
                self._synced(time.perf_counter() - started, len(taken))
            for _, done in taken:
                done.set_result(None)

    def _write(self, lines: bytes) -> None:
        view = memoryview(lines)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self._size += len(lines)

    def _undone(self, error: OSError) -> JournalError:
        """Cut away half a line that a failed write left behind, so that the next record starts on one of its own.

        Whole lines stay, as a reader may have seen them; their senders will send them again under the same ids.
        """
        with suppress(OSError, JournalError):
            self._size = whole_bytes(self.folder / self._name)
            os.ftruncate(self._file, self._size)
        return JournalError.unwritable(str(self.folder), error.strerror or str(error))


def encode(record: Mapping[str, JsonValue]) -> bytes:
    """A record as its line."""
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def segments(folder: Path) -> list[str]:
    """Names of the log's files, oldest first."""
    return sorted(path.name for path in folder.glob(_PATTERN))


def read(folder: Path, name: str, start: int = 0) -> Iterator[Read]:
    """The whole records of a segment from an offset on; it ends before a line that is still being written.

    Raises JournalError where a line is damaged and others follow it.
    """
    path = folder / name
    offset = start
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            record = _decode(line)
            if record is None:
                # A kill in the middle of a write leaves one broken end; whole lines after it mean damage.
                if any(_decode(later) is not None for later in file):
                    raise JournalError.damaged(str(path), offset)
                return
            offset += len(line)
            yield Read(name, offset, record)


def whole_bytes(path: Path) -> int:
    """The size of a segment's whole records. Raises JournalError where it is damaged before its end."""
    size = 0
    for found in read(path.parent, path.name):
        size = found.end
    return size


def _decode(line: bytes) -> Record | None:
    if len(line) <= _PREFIX or not line.endswith(b"\n"):
        return None
    text = line[_PREFIX:-1]
    if line[:_PREFIX] != b"%08x " % zlib.crc32(text):
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only when its folder is."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _name(number: int) -> str:
    return f"feedback-{number:09d}.log"


def _number(name: str) -> int:
    return int(name.removeprefix("feedback-").removesuffix(".log"))
