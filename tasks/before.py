"""How did the lake stand before a run? A copy of it, as it was when the run's first rows were written.

Delta never changes a data file, so the copy links those that lie on the same disk. The language model's answers are all
in it: they are kept by digest, and the run would get the same ones.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lakehouse.lake import Lakehouse
from lakehouse.ledger import LEDGER_FOLDER, SYSTEM_TABLES, Cost, Run
from lakehouse.snapshot import open_delta
from tasks.errors import ReplayError

#: What a copy starts without: staged batches, and the pointer to the latest published versions.
_LEFT_OUT = ("_staging", LEDGER_FOLDER)


def copy_before(lake: Lakehouse, run: Run, folder: Path) -> Lakehouse:
    """Make a copy of a lake, in a folder that is not there yet, as it stood before a run.

    Raises:
        ReplayError: the lake is not a local folder.
    """
    root = Path(lake.root)
    if not root.is_dir():
        raise ReplayError.remote(run.run_id, lake.root)
    moment = began(lake, run)
    for part in sorted(root.iterdir()):
        if part.name.startswith("_"):
            if part.name == "_quarantine":
                for table in sorted(part.iterdir()):
                    _copy_table(table, folder / part.name / table.name, moment)
            elif part.name == "_states":
                _copy_states(lake, part, folder / part.name, moment)
            elif part.name not in _LEFT_OUT:
                _copy(part, folder / part.name)
        else:
            _copy_table(part, folder / part.name, moment)
    ledger = root / LEDGER_FOLDER
    for part in sorted(ledger.iterdir()):
        if part.is_dir() and part.name not in SYSTEM_TABLES:
            _copy(part, folder / LEDGER_FOLDER / part.name)
    copied = Lakehouse.open(folder)
    for row_model in SYSTEM_TABLES.values():
        clock = row_model.contract.event_time
        rows = [row for row in lake.ledger.read(row_model) if clock and getattr(row, clock) < moment]
        copied.ledger.append(rows)
    return copied


def began(lake: Lakehouse, run: Run) -> datetime:
    """When a run's work began: its first task, or an earlier attempt's first rows that it found published."""
    moments = [cost.started_at for cost in lake.ledger.read(Cost) if cost.execution == run.execution]
    earlier = [other for other in lake.ledger.read(Run) if other.day < run.day and other.finished_at < run.finished_at]
    stood = (
        dict(_split(reference) for reference in max(earlier, key=lambda r: r.finished_at).outputs) if earlier else {}
    )
    ended = dict(_split(reference) for reference in run.outputs)
    for publication in lake.publications():
        name, version = publication.table_name, publication.version
        if publication.kind == "batch" and stood.get(name, -1) < version <= ended.get(name, -1):
            # A publication is written down after its version's commit.
            committed = open_delta(lake.uri(name)).history()
            at = next((c["timestamp"] for c in committed if c["version"] == version), None)
            moments.append(_instant(at) if at is not None else publication.published_at)
    return min(moments, default=run.finished_at - timedelta(seconds=run.seconds))


def _split(reference: str) -> tuple[str, int]:
    name, _, version = reference.partition("@")
    return name, int(version)


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _version_before(table: Path, moment: datetime) -> int | None:
    """The newest version committed before a moment."""
    versions = [c["version"] for c in open_delta(str(table)).history() if _instant(c["timestamp"]) < moment]
    return max(versions, default=None)


def _copy_table(table: Path, to: Path, moment: datetime) -> None:
    """A Delta table without the commits from a moment on; nothing if it has no earlier one."""
    version = _version_before(table, moment)
    if version is None:
        return
    for file in sorted(table.rglob("*")):
        relative = file.relative_to(table)
        if file.is_dir():
            continue
        if relative.parts[0] == "_delta_log":
            number = relative.name.partition(".")[0]
            if not number.isdigit() or int(number) > version:
                continue  # also the pointer to the last checkpoint: Delta does without
        _link(file, to / relative)


def _copy_states(lake: Lakehouse, states: Path, to: Path, moment: datetime) -> None:
    """Deequ's states of the versions that the copy has."""
    for file in sorted(states.rglob("*")):
        if file.is_file():
            number = "".join(c for c in file.name.partition(".")[0] if c.isdigit())
            table = Path(lake.root) / file.relative_to(states).parts[0]
            before = _version_before(table, moment) if table.is_dir() else None
            if before is not None and number and int(number) <= before:
                _link(file, to / file.relative_to(states))


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != "_last_checkpoint":
                _link(file, to / file.relative_to(path))
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)


def _link(file: Path, to: Path) -> None:
    """Link a data file, which nobody changes; copy any other, and what lies on another disk."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet" and "_delta_log" not in file.parts:
        try:
            os.link(file, to)
        except OSError:
            pass
        else:
            return
    shutil.copy2(file, to)
