"""Which file of a table is at fault? Asked only after an engine failed, so that the error can name it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from lakehouse.errors import MillraceError, StorageError, UnknownVersionError, UnreadableFeatureError, first_line
from lakehouse.query.reading import file_system

if TYPE_CHECKING:
    from deltalake import DeltaTable

_LOG = "_delta_log"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet")
_FEATURES = re.compile(r"Unsupported table features? required: \[(?P<names>.+?)\]")


def unopened(uri: str, version: int | None, error: Exception) -> MillraceError:
    """Why a table can't be opened at a version: the feature, the version or the file that is the reason."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    name = uri.rstrip("/").rpartition("/")[2]
    features = _FEATURES.search(str(error))
    if features:
        return UnreadableFeatureError.of(name, version, features["names"])
    if "permission" in str(error).lower() or "access denied" in str(error).lower():
        return _forbidden(name, error)
    found = damaged_log(uri, version)
    if found is not None:
        at = "" if version is None else f" at version {version}"
        return StorageError(
            f"Table {name!r} can't be opened{at}: {found}.", fix="Restore that file from a backup of the lake."
        )
    try:
        if version is not None and DeltaTable.is_deltatable(uri):
            latest = DeltaTable(uri).version()
            if version > latest or version < 0:
                return UnknownVersionError.numbered(name, version, latest)
            return UnknownVersionError.vacuumed(name, version)
    except (DeltaError, OSError):
        pass
    return StorageError(
        f"Table {name!r} can't be opened: {first_line(error)}.", fix="Check that its folder is there and readable."
    )


def unreadable(reference: str, table: DeltaTable, error: Exception) -> MillraceError:
    """Why an opened version can't be read: the data file that is gone or damaged, else what the engine says."""
    if isinstance(error, pa.ArrowNotImplementedError):
        return StorageError(
            f"{reference} can't be read: {first_line(error)}.", fix="Read the version with Spark, or write it anew."
        )
    features = _FEATURES.search(str(error))
    if features:
        name, _, version = reference.rpartition("@")
        return UnreadableFeatureError.of(name, int(version), features["names"])
    found = _damaged_file(table)
    return StorageError(
        f"{reference} can't be read: {found or first_line(error)}.",
        fix="A file of the table is damaged or gone; restore it or read another version.",
    )


def damaged_log(uri: str, version: int | None = None) -> str | None:
    """What is wrong with the log up to a version, in a clause that names the file; None if nothing is seen.

    Engines pass over a commit that is empty, as a power cut may leave it; this does not.
    """
    filesystem, folder = _log_folder(uri)
    try:
        files = {info.base_name: info for info in filesystem.get_file_info(pafs.FileSelector(folder))}
    except (OSError, pa.ArrowInvalid):
        return None
    commits = {int(match[1]) for name in files if (match := _COMMIT.fullmatch(name))}
    checkpoints = {int(match[1]): name for name in files if (match := _CHECKPOINT.fullmatch(name))}
    last = max([*commits, *checkpoints], default=-1)
    wanted = last if version is None else version
    if wanted > last or wanted < 0:
        return None  # no such version
    hinted = _hinted_checkpoint(filesystem, folder)
    if hinted is not None and hinted <= wanted and hinted not in checkpoints:
        return f"its checkpoint {_LOG}/{hinted:020d}.checkpoint.parquet is missing"
    start = max((at for at in checkpoints if at <= wanted), default=-1)
    if start >= 0:
        try:
            with filesystem.open_input_file(f"{folder}/{checkpoints[start]}") as file:
                pq.read_table(file)
        except (OSError, pa.ArrowException) as damage:
            return f"its checkpoint {_LOG}/{checkpoints[start]} is damaged ({first_line(damage)})"
    elif min(commits) > wanted:
        return None  # the log's beginning was cleaned up, and the version with it
    for number in range(start + 1, wanted + 1):
        name = f"{number:020d}.json"
        if number not in commits:
            return f"its log has a hole, commit {_LOG}/{name} is missing"
        if files[name].type == pafs.FileType.Directory:
            return f"{_LOG}/{name} is a folder and not a file"
        try:
            with filesystem.open_input_file(f"{folder}/{name}") as file:
                lines = file.read().splitlines()
            if not lines:
                return f"its commit {_LOG}/{name} is empty"
            for line in lines:
                json.loads(line)
        except (OSError, ValueError) as damage:
            return f"its commit {_LOG}/{name} is damaged ({first_line(damage)})"
    return None


def _forbidden(name: str, error: Exception) -> StorageError:
    return StorageError(
        f"Table {name!r} can't be opened: {first_line(error)}.",
        fix="This user may not read the table's folder; ask for permission.",
    )


def _hinted_checkpoint(filesystem: pafs.FileSystem, folder: str) -> int | None:
    """The checkpoint that Delta wrote down as its last one."""
    try:
        with filesystem.open_input_file(f"{folder}/_last_checkpoint") as file:
            return int(json.loads(file.read())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _log_folder(uri: str) -> tuple[pafs.FileSystem, str]:
    if "://" in uri:
        from deltalake.fs import DeltaStorageHandler

        return pafs.PyFileSystem(DeltaStorageHandler(uri)), _LOG
    return pafs.LocalFileSystem(), f"{uri}/{_LOG}"


def _damaged_file(table: DeltaTable) -> str | None:
    """What is wrong with the first bad data file, in a clause that names it; reads all of them until then."""
    filesystem = file_system(table)
    actions = pa.table(table.get_add_actions())
    for path, size in zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True):
        name = unquote(path)
        try:
            info = filesystem.get_file_info(name)
            if info.type == pafs.FileType.NotFound:
                return f"its file {name} is gone"
            if info.type == pafs.FileType.Directory:
                return f"its file {name} is a folder"
            if info.size != size:
                return f"its file {name} has {info.size} bytes where the log says {size}"
            with filesystem.open_input_file(name) as file:
                for _ in pq.ParquetFile(file).iter_batches():
                    pass
        except (OSError, pa.ArrowException) as damage:
            return f"its file {name} is damaged ({first_line(damage)})"
    return None
