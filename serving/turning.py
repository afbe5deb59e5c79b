"""How is a log kept from growing? Two files of bounded size take turns: when one is full, the older one goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Size from which the other file is begun, bytes.
FILE_BYTES = 32 * 2**20


class TurningLog:
    """Lines, oldest first. It is not synced, and a full disk loses lines: only what may be lost belongs here.

    Args:
        path: the newer file; the older one has ``.1`` behind its name. The folder must be there.
        file_bytes: size from which the files turn.
    """

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES) -> None:
        self._path, self._file_bytes = path, file_bytes
        self._open()

    def add(self, line: bytes) -> None:
        """Keep a line."""
        with suppress(OSError):
            self._file.write(line + b"\n")
            self._size += len(line) + 1
            if self._size >= self._file_bytes:
                self._file.close()
                self._path.replace(_older(self._path))
                self._open()

    def flush(self) -> None:
        """Let other processes read what was added."""
        with suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        """Write what is buffered."""
        with suppress(OSError):
            self._file.close()

    def _open(self) -> None:
        self._file = self._path.open("ab")
        self._size = self._file.tell()


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of both files, the last one of each perhaps cut short; none if there is no such log."""
    for one in (_older(path), path):
        if one.is_file():
            with one.open("rb") as file:
                yield from file


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
