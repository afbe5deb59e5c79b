"""What became of an old version? It is there, vacuum removed it, or a redacted twin stands in for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lakehouse.storage import LocalStorage, storage_of

#: A file in the table's folder; Delta's readers pass over names that start so.
FATES_FILE = "_versions.json"


class Fates(BaseModel):
    """The versions of one table that are not as they were written.

    Attributes:
        removed: first and last of each run of versions whose files are gone.
        twins: folder of the redacted twin, in ``_redacted/<table>/``, by version.
    """

    model_config = ConfigDict(frozen=True)

    removed: tuple[tuple[int, int], ...] = ()
    twins: dict[int, str] = {}

    def is_removed(self, version: int) -> bool:
        """Whether that version's files are gone."""
        return any(first <= version <= last for first, last in self.removed)

    def without(self, versions: Iterable[int]) -> Fates:
        """These versions are removed as well, and so are their twins."""
        gone = {*versions, *(v for first, last in self.removed for v in range(first, last + 1))}
        runs: list[tuple[int, int]] = []
        for version in sorted(gone):
            if runs and runs[-1][1] == version - 1:
                runs[-1] = (runs[-1][0], version)
            else:
                runs.append((version, version))
        return Fates(removed=tuple(runs), twins={v: twin for v, twin in self.twins.items() if v not in gone})

    def with_twins(self, twins: dict[int, str]) -> Fates:
        """These versions are read from redacted twins."""
        return Fates(removed=self.removed, twins={**self.twins, **twins})


def fates(uri: str) -> Fates:
    """What is known of the table in that folder; a table that was never vacuumed has no such file."""
    # A folder's path is whole already; resolving it again would cost a fifth of opening a small table.
    storage = storage_of(uri) if "://" in uri else LocalStorage(Path(uri))
    try:
        return Fates.model_validate_json(storage.read(FATES_FILE))
    except FileNotFoundError:
        return Fates()


def write_fates(uri: str, changed: Fates) -> None:
    """Make them known to every reader, at once and whole."""
    storage_of(uri).write(FATES_FILE, changed.model_dump_json().encode(), overwrite=True)


def twin_uri(uri: str, twin: str) -> str:
    """Path or URL of a redacted twin of the table in that folder."""
    folder, _, name = uri.rpartition("/")
    return f"{folder}/_redacted/{name}/{twin}"
