"""What does a table's log still tell of rows whose file is gone? Smallest and largest values, until they are forgotten.

Delta's log keeps statistics of each file it ever added; those of a file with one row are that row. They are optional:
without them a reader reads a file that it might have skipped, and these files are no more.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.query.files import stored_files
from lakehouse.storage import Storage, storage_of


def forget_statistics(uri: str, paths: frozenset[str]) -> None:
    """Take the statistics of these files, and of all that are gone already, out of commits and checkpoints.

    Each file of the log is replaced whole; what it says of versions and files stays the same.
    """
    storage = storage_of(uri)
    stored = stored_files(uri)

    def is_gone(path: str) -> bool:
        return unquote(path) in paths or unquote(path) not in stored

    for key in sorted(storage.keys("_delta_log")):
        if key.endswith(".json"):
            content = _commit(storage.read(key), is_gone)
        elif key.endswith(".parquet"):
            content = _checkpoint(storage.read(key), is_gone)
        elif key.endswith(".crc"):  # Spark's summary of a version may list every file with its statistics
            storage.delete(key)
            _forget_checksum(storage, key)
            continue
        else:
            continue
        if content is not None:
            _forget_checksum(storage, key)  # Hadoop's, of the content before: Spark would refuse to read on
            storage.write(key, content, overwrite=True)


def _commit(content: bytes, is_gone: Callable[[str], bool]) -> bytes | None:
    """The commit without these statistics; None if it has none of them."""
    lines = content.decode().splitlines()
    changed = False
    for number, line in enumerate(lines):
        action = json.loads(line) if line.strip() else {}
        for kind in ("add", "remove"):
            if kind in action and is_gone(action[kind]["path"]) and _strip(action[kind]):
                lines[number] = json.dumps(action, separators=(",", ":"))
                changed = True
    return ("\n".join(lines) + "\n").encode() if changed else None


def _checkpoint(content: bytes, is_gone: Callable[[str], bool]) -> bytes | None:
    """The checkpoint, or a part of one, without these statistics; None if it has none of them."""
    table = pq.read_table(io.BytesIO(content))
    changed = False
    for kind in ("add", "remove"):
        if kind not in table.schema.names:
            continue
        actions = table[kind].to_pylist()
        stripped = [action is not None and is_gone(action["path"]) and _strip(action) for action in actions]
        if any(stripped):
            place = table.schema.get_field_index(kind)
            table = table.set_column(place, table.schema.field(kind), pa.array(actions, table.schema.field(kind).type))
            changed = True
    if not changed:
        return None
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _strip(action: dict[str, Any]) -> bool:
    """Remove a file's statistics but the number of its rows; whether there were any."""
    found = False
    stats = action.get("stats")
    if stats:
        counted = json.loads(stats)
        left = {name: value for name, value in counted.items() if name == "numRecords"}
        found = left != counted
        action["stats"] = json.dumps(left, separators=(",", ":"))
    if action.get("stats_parsed") is not None:
        action["stats_parsed"] = None
        found = True
    return found


def _forget_checksum(storage: Storage, key: str) -> None:
    folder, _, name = key.rpartition("/")
    storage.delete(f"{folder}/.{name}.crc")
