"""Which files does each version of a table need? Read from its log, commit by commit."""

from __future__ import annotations

import json
import re
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from lakehouse.errors import StorageError, first_line
from lakehouse.storage import StoredFile, storage_of

_COMMIT = re.compile(r"_delta_log/(\d{20})\.json")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint\b.*")
_DELETION_VECTOR = re.compile(r"deletion_vector_[0-9a-f-]+\.bin")
#: Z85, in which Delta's log writes the ids of deletion vectors.
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


@dataclass(frozen=True)
class Span:
    """The versions in which one file is part of the table.

    Attributes:
        path: relative to the table's folder, as it lies there.
        first: the version that added it.
        last: the last one that needs it; None if the newest does.
        size: bytes; 0 for deletion vectors and change data.
    """

    path: str
    first: int
    last: int | None
    size: int


@dataclass(frozen=True)
class TableFiles:
    """A table's files through its history.

    Attributes:
        uri: the table's folder.
        first: the oldest version that the log still tells of.
        newest: the newest version.
        spans: which files when; a file that was restored has two.
        replaced_at: when each version but the newest stopped being the newest (UTC).
        acts: what each commit did, such as MERGE or OPTIMIZE.
    """

    uri: str
    first: int
    newest: int
    spans: tuple[Span, ...]
    replaced_at: Mapping[int, datetime]
    acts: Mapping[int, str]

    def needed(self, versions: Iterable[int]) -> set[str]:
        """Paths of the files that these versions need, deletion vectors and their own change data included."""
        wanted = sorted(versions)
        found = set()
        for span in self.spans:
            place = bisect_left(wanted, span.first)  # the first wanted version that may need the file
            if place < len(wanted) and (span.last is None or wanted[place] <= span.last):
                found.add(span.path)
        return found

    def tracked(self) -> set[str]:
        """Paths of every file that the log tells of."""
        return {span.path for span in self.spans}

    def versions_with(self, paths: set[str]) -> set[int]:
        """The versions that need any of these files."""
        spans = [span for span in self.spans if span.path in paths]
        return {v for span in spans for v in range(span.first, (self.newest if span.last is None else span.last) + 1)}


def stored_files(uri: str) -> dict[str, StoredFile]:
    """The table's files as they lie in its folder, log and marks of this project left out, by path."""
    found = {}
    for file in storage_of(uri).listing(""):
        top = file.key.partition("/")[0]
        if not top.startswith("_") or top == "_change_data":
            found[file.key] = file
    return found


def table_files(uri: str) -> TableFiles:
    """Read the whole log; StorageError if a commit of it is missing or damaged."""
    storage = storage_of(uri)
    keys = list(storage.keys("_delta_log"))
    commits = sorted(int(match[1]) for key in keys if (match := _COMMIT.fullmatch(key)))
    checkpoints = sorted({int(match[1]) for key in keys if (match := _CHECKPOINT.fullmatch(key))})
    if not commits:
        raise StorageError(f"The log of table {_name(uri)!r} has no commit.", fix="Restore its _delta_log folder.")
    newest, start = commits[-1], commits[0]
    open_spans: dict[str, list[Span]] = {}
    closed: list[Span] = []
    if start:
        usable = [version for version in checkpoints if version >= start - 1]
        if not usable:
            raise _hole(uri, start - 1)
        start = usable[0] + 1
        open_spans = {span.path: [span] for span in _at(uri, usable[0])}
    first = start - 1 if commits[0] else 0
    times: dict[int, datetime] = {}
    acts: dict[int, str] = {}
    for version in range(start, newest + 1):
        added, removed = [], []
        for action in actions(uri, version):
            if "add" in action:
                added.append(action["add"])
            elif "remove" in action:
                removed.append(action["remove"])
            elif "cdc" in action:
                closed.append(Span(unquote(action["cdc"]["path"]), version, version, 0))
            elif "commitInfo" in action:
                acts[version] = str(action["commitInfo"].get("operation", ""))
                times[version] = datetime.fromtimestamp(action["commitInfo"]["timestamp"] / 1000, UTC)
        for action in removed:
            for span in open_spans.pop(unquote(action["path"]), ()):
                closed.append(Span(span.path, span.first, version - 1, span.size))
        for action in added:
            path = unquote(action["path"])
            spans = [Span(path, version, None, int(action.get("size") or 0))]
            vector = _vector(action.get("deletionVector"))
            if vector is not None:
                spans.append(Span(vector, version, None, 0))
            open_spans[path] = spans
    closed.extend(span for spans in open_spans.values() for span in spans)
    replaced = {version - 1: moment for version, moment in times.items()}
    return TableFiles(uri, first, newest, tuple(closed), replaced, acts)


def commit_info(uri: str, version: int) -> dict[str, Any]:
    """What a commit says of itself; empty where it says nothing or its file is gone.

    Read by number, not by delta-rs's ``history()``: that is off by one for each commit made since the table was opened.
    """
    key = f"_delta_log/{version:020d}.json"
    if not storage_of(uri).exists(key):
        return {}
    return next((action["commitInfo"] for action in actions(uri, version) if "commitInfo" in action), {})


def actions(uri: str, version: int) -> Iterator[dict[str, Any]]:
    """What a commit says, line by line; StorageError if its file is missing or damaged."""
    key = f"_delta_log/{version:020d}.json"
    try:
        for line in storage_of(uri).read(key).decode().splitlines():
            if line.strip():
                yield json.loads(line)
    except FileNotFoundError:
        raise _hole(uri, version) from None
    except ValueError as error:
        raise StorageError(
            f"Commit {version} in the log of table {_name(uri)!r} is damaged: {key}.", fix="Restore that file."
        ) from error


def _at(uri: str, version: int) -> Iterator[Span]:
    """The files at a version whose commits are gone; without these, any deletion vector may be needed."""
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:  # as it stands in the log, whatever readers are told of that version
        actions = pa.table(DeltaTable(uri, version=version).get_add_actions())
    except (DeltaError, OSError) as error:
        raise StorageError(
            f"The checkpoint of version {version} of table {_name(uri)!r} can't be read: {first_line(error)}.",
            fix="Restore the files of its _delta_log folder.",
        ) from error
    for path, size in zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True):
        yield Span(unquote(path), version, None, int(size))
    for path in stored_files(uri):
        if _DELETION_VECTOR.fullmatch(path.rpartition("/")[2]):
            yield Span(path, version, None, 0)


def _vector(descriptor: dict[str, Any] | None) -> str | None:
    """Path of a deletion vector's file; None if there is none or it lies in the log itself."""
    if not descriptor or descriptor["storageType"] != "u":
        return None
    text = str(descriptor["pathOrInlineDv"])
    folder, encoded = text[:-20], text[-20:]
    number = b""
    for start in range(0, 20, 5):
        value = 0
        for character in encoded[start : start + 5]:
            value = value * 85 + _Z85.index(character)
        number += value.to_bytes(4, "big")
    name = f"deletion_vector_{uuid.UUID(bytes=number)}.bin"
    return f"{folder}/{name}" if folder else name


def _hole(uri: str, version: int) -> StorageError:
    return StorageError(
        f"The log of table {_name(uri)!r} has a hole: commit {version} is missing.", fix="Restore that file."
    )


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
