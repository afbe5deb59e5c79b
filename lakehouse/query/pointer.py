"""Which version of each table do readers get? The latest published one, kept in one small file beside the ledger.

The file says which version of ``publications`` it was made from, so that it is never believed when it is old: then the
ledger is asked. Whoever adds publications writes it anew; readers write nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from lakehouse.ledger import LEDGER_FOLDER, Ledger, Publication
from lakehouse.storage import Storage

_FILE = f"{LEDGER_FOLDER}/_published.json"
_LOG = f"{LEDGER_FOLDER}/{Publication.contract.table}/_delta_log"


def latest(storage: Storage) -> dict[str, int]:
    """The latest published version by table; tables without one are left out."""
    try:
        kept = json.loads(storage.read(_FILE))
        version = int(kept["publications"])
        # Delta numbers its commits without a gap: without the next one, this is the newest.
        if storage.exists(_commit(version)) and not storage.exists(_commit(version + 1)):
            return {str(name): int(number) for name, number in kept["latest"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return _asked(storage)[1]


def refresh(storage: Storage) -> None:
    """Write the file anew; a lake that can't be written keeps the old one, which nobody believes."""
    version, found = _asked(storage)
    content = json.dumps({"publications": version, "latest": found}, sort_keys=True)
    try:
        storage.write(_FILE, content.encode(), overwrite=True)
    except OSError:
        return


def standing(publications: Iterable[Publication]) -> list[Publication]:
    """Those that readers may get: published, and not withdrawn by a later restore."""
    from lakehouse.upkeep.restore import withdrawn

    every = list(publications)
    gone = withdrawn(every)
    return [p for p in every if p.published and p.publication_id not in gone]


def newest(publications: Iterable[Publication]) -> Publication:
    """By version first, as a batch that was interrupted may be published after its successor."""
    return max(publications, key=lambda p: (p.version, p.published_at))


def _commit(version: int) -> str:
    return f"{_LOG}/{version:020d}.json"


def _asked(storage: Storage) -> tuple[int, dict[str, int]]:
    """The version of ``publications`` and what its rows say."""
    version, rows = Ledger(storage).read_at(Publication)
    found: dict[str, int] = {}
    for publication in standing(rows):
        found[publication.table_name] = max(publication.version, found.get(publication.table_name, -1))
    return version, found
