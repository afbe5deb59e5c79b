"""How is a lake opened and asked? ``Lakehouse.open()``, then names and versions become snapshots."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar, cast

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.table import Table
from lakehouse.errors import StorageError, UnknownTableError, first_line
from lakehouse.ledger import LEDGER_FOLDER, SYSTEM_TABLES, Ledger, Publication
from lakehouse.settings import Settings
from lakehouse.snapshot import Snapshot, open_delta
from lakehouse.storage import Storage, storage_of

Row = TypeVar("Row", bound=Table)

_MARKER = "_lake.json"


class TableInfo(BaseModel):
    """One line of ``millrace tables``."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    published: int | None
    version: int
    rows: int
    day: date | None
    system: bool


class TableVersion(BaseModel):
    """One line of ``millrace history``."""

    model_config = ConfigDict(frozen=True)

    version: int
    written_at: datetime
    operation: str
    batch_id: str | None
    day: date | None
    kind: str | None
    published: bool
    withdrawn: bool
    rows: int | None
    tags: list[str]


class Lakehouse:
    """A folder of Delta tables with its ledger.

    Attributes:
        root: absolute path of the lake's folder, or its ``s3://bucket/prefix``.
        storage: the lake's own files.
        id: made when the lake is created; a new lake at the same path has a new id.
        ledger: the system tables.
    """

    def __init__(self, storage: Storage, lake_id: str) -> None:
        self.storage = storage
        self.root = storage.root
        self.id = lake_id
        self.ledger = Ledger(storage)

    @classmethod
    def open(cls, root: Path | str | None = None, *, create: bool = False) -> Lakehouse:
        """Open the lake at ``root`` (default: the settings'); ``create`` makes an empty one if there is none."""
        storage = storage_of(root or Settings().root)
        if not storage.exists(_MARKER):
            if not create:
                raise StorageError(
                    f"There is no lake at {storage.root}.",
                    fix="Run the nightly job first, or set LAKEHOUSE_ROOT to a lake's folder.",
                )
            _create_marker(storage)
        return cls(storage, str(json.loads(storage.read(_MARKER))["id"]))

    def uri(self, name: str) -> str:
        """Path or URL of a table's folder, whether it exists or not."""
        return f"{self.root}/{LEDGER_FOLDER}/{name}" if self.is_system(name) else f"{self.root}/{name}"

    def is_system(self, name: str) -> bool:
        """Whether the table belongs to the ledger."""
        return name in SYSTEM_TABLES or name in self.storage.tables(LEDGER_FOLDER)

    def quarantine_uri(self, name: str) -> str:
        """Path or URL of the quarantine beside a table."""
        return f"{self.root}/_quarantine/{name}"

    def names(self) -> list[str]:
        """Names of the stored tables, system tables last."""
        return self.storage.tables("") + self.storage.tables(LEDGER_FOLDER)

    def resolve(self, reference: str) -> Snapshot[Table]:
        """The snapshot that ``ratings``, ``ratings@12``, ``ratings@1998-03-01`` or ``ratings@golden`` names.

        ``lakehouse.query.references`` has the grammar and the errors.
        """
        from lakehouse.query import references

        return references.resolve(self, reference)

    def latest(self, row: type[Row]) -> Snapshot[Row]:
        """The latest published snapshot of a declared table."""
        return cast("Snapshot[Row]", self.resolve(row.contract.table))

    def publications(self, name: str | None = None) -> list[Publication]:
        """Every decision of the publishing gate, oldest first."""
        return list(self.ledger.read(Publication, [("table_name", "=", name)] if name else []))

    def tables(self) -> list[TableInfo]:
        """What ``millrace tables`` lists."""
        from lakehouse.query.pointer import standing

        last = {p.table_name: p for p in sorted(standing(self.publications()), key=lambda p: p.version)}
        found = []
        for name in self.names():
            delta = open_delta(self.uri(name))
            publication = last.get(name)
            at = open_delta(self.uri(name), publication.version) if publication else delta
            found.append(
                TableInfo(
                    name=name,
                    description=delta.metadata().description or "",
                    published=publication.version if publication else None,
                    version=delta.version(),
                    rows=at.count(),
                    day=publication.day if publication else None,
                    system=self.is_system(name),
                )
            )
        return found

    def history(self, name: str) -> list[TableVersion]:
        """What ``millrace history`` lists, newest first."""
        if name not in self.names():
            raise UnknownTableError.named(name, self.names())
        from lakehouse.query.tags import tags
        from lakehouse.upkeep.restore import withdrawn

        publications = self.publications(name)
        published = {p.version: p for p in publications}
        gone = withdrawn(publications)
        names: dict[int, list[str]] = {}
        for tag in tags(self, name):
            names.setdefault(tag.version, []).append(tag.tag)
        lines = []
        for entry in open_delta(self.uri(name)).history():
            version = int(entry["version"])
            publication = published.get(version)
            lines.append(
                TableVersion(
                    version=version,
                    written_at=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                    operation=str(entry["operation"]),
                    batch_id=publication.batch_id if publication else None,
                    day=publication.day if publication else None,
                    kind=publication.kind if publication else None,
                    published=publication is not None and publication.published,
                    withdrawn=publication is not None and publication.publication_id in gone,
                    rows=publication.rows_total if publication else None,
                    tags=names.get(version, []),
                )
            )
        return lines


def _create_marker(storage: Storage) -> None:
    """Write the lake's id; of two processes that create at once, the first one's id stays."""
    content = json.dumps({"id": str(uuid.uuid4()), "created_at": datetime.now(UTC).isoformat()})
    try:
        storage.write(_MARKER, content.encode())
    except OSError as error:
        raise StorageError(
            f"The lake's folder {storage.root} can't be written: {error.strerror or first_line(error)}.",
            fix="Choose another folder with LAKEHOUSE_ROOT, or mend its permissions or disk space.",
        ) from error
