"""Where do a lake's own files lie? In a folder or an object store, behind five verbs.

Delta tables are read and written by their engines; this is for what lies beside them: the lake's id, staged batches,
small pointers. A file is whole or not there, also after a kill.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StoredFile:
    """One file of a lake.

    Attributes:
        key: as in ``Storage``.
        size: bytes.
        modified: when it was written (UTC).
    """

    key: str
    size: int
    modified: datetime


class Storage(Protocol):
    """The files of one lake, named by keys such as ``_staging/ratings/1998-03-01.parquet``.

    Attributes:
        root: absolute path of the folder, or URL of the bucket and prefix; no slash at its end.
    """

    root: str

    def read(self, key: str) -> bytes:
        """A file's content; FileNotFoundError if there is none, OSError if it can't be read."""
        ...

    def write(self, key: str, content: bytes, *, overwrite: bool = False) -> bool:
        """Write a file whole; False, and nothing written, if it is there and ``overwrite`` is off."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file; nothing happens if it is not there."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of every file below a folder such as ``_staging/ratings``, in no order."""
        ...

    def listing(self, prefix: str) -> Iterator[StoredFile]:
        """Every file below a folder with size and time, in no order; hidden ones are left out."""
        ...

    def tables(self, folder: str) -> list[str]:
        """Names of the Delta tables that lie directly in a folder ("" for the root), sorted."""
        ...


def storage_of(root: str | Path) -> Storage:
    """The storage of a folder's path or of an ``s3://bucket/prefix`` URL."""
    text = str(root)
    if "://" in text:
        from lakehouse.object_storage import ObjectStorage

        return ObjectStorage(text.rstrip("/"))
    return LocalStorage(Path(root).resolve())


class LocalStorage:
    """Files in a folder of this machine.

    What every opening of a version asks (``read``, ``exists``) joins text: pathlib takes longer than the file system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = str(folder)

    def read(self, key: str) -> bytes:
        with open(f"{self.root}/{key}", "rb") as file:  # noqa: PTH123
            return file.read()

    def write(self, key: str, content: bytes, *, overwrite: bool = False) -> bool:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # whole also after a power cut
            if overwrite:
                part.replace(path)
                return True
            try:
                os.link(part, path)  # fails if another process was first
            except FileExistsError:
                return False
            return True
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        return os.path.isfile(f"{self.root}/{key}")  # noqa: PTH113

    def keys(self, prefix: str) -> Iterator[str]:
        for path in (self.folder / prefix).rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self.folder).as_posix()

    def listing(self, prefix: str) -> Iterator[StoredFile]:
        for key in self.keys(prefix):
            with suppress(FileNotFoundError):  # another process removed it meanwhile
                status = (self.folder / key).stat()
                yield StoredFile(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def tables(self, folder: str) -> list[str]:
        return sorted(path.parent.name for path in (self.folder / folder).glob("[a-z]*/_delta_log"))
