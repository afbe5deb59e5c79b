"""What was a model trained on? A TrainingSet: a value that says how it was made, and is made again to the same bytes.

Its recipe names everything that its rows depend on: the entities' snapshot or SQL, the version and contract of each
view's table, the features, and at which instant each row asks. Its digest is that of the files. Rows are sorted and the
Parquet writer's settings are fixed, so the same recipe gives the same files. They are a cache: where they are gone they
are made again, and refused if they differ. As a Delta table of the lake it is kept only where that is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from features.errors import TrainingSetError
from features.views import feature_columns
from lakehouse.contracts.table import Table, declared_tables
from lakehouse.snapshot import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

    from features.store import FeatureStore
    from lakehouse.lake import Lakehouse

_ROW_GROUP = 1 << 17


class Pin(BaseModel):
    """A table at one version.

    Attributes:
        table: its name.
        version: its Delta version.
        table_id: Delta's own id of the table, which another table at the same place does not have.
        fingerprint: of its row model's contract; empty where it has none.
        uri: where it lies.
    """

    model_config = ConfigDict(frozen=True)

    table: str
    version: int
    table_id: str
    fingerprint: str
    uri: str

    @classmethod
    def of(cls, snapshot: Snapshot[Table]) -> Self:
        """The pin of a snapshot."""
        return cls(
            table=snapshot.name,
            version=snapshot.version,
            table_id=snapshot.table_id,
            fingerprint="" if snapshot.row is Table else snapshot.row.contract.fingerprint,
            uri=snapshot.uri,
        )

    @property
    def reference(self) -> str:
        """``table@version``."""
        return f"{self.table}@{self.version}"

    def snapshot(self) -> Snapshot[Table]:
        """The version, opened. Raises UnknownVersionError, StorageError, TrainingSetError."""
        row = declared_tables().get(self.table, Table) if self.fingerprint else Table
        found = Snapshot(self.uri, self.version, row)
        if found.table_id != self.table_id:
            raise TrainingSetError.other_table(self.reference)
        return found


class ViewPin(BaseModel):
    """What one view contributes.

    Attributes:
        source: the version that it reads.
        features: its features, in the order of its row model.
    """

    model_config = ConfigDict(frozen=True)

    source: Pin
    features: tuple[str, ...]


class Part(BaseModel):
    """How one table of a training set is made.

    Attributes:
        name: of the part, and of its file.
        entities: the version whose rows ask; None where SQL does.
        query: SQL on the lake for the rows that ask. Name the versions of its tables: others move on.
        lake: root of the lake that the SQL is asked of; None for the one that the settings name.
        columns: of the entities that are kept; empty for all.
        as_of: the instant at which every row asks (UTC); None where each row asks at its own event time.
        views: what is joined to them.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    entities: Pin | None = None
    query: str | None = None
    lake: str | None = None
    columns: tuple[str, ...] = ()
    as_of: AwareDatetime | None = None
    views: tuple[ViewPin, ...]

    @classmethod
    def of(
        cls,
        name: str,
        entities: Snapshot[Table] | str,
        views: Sequence[Snapshot[Table]],
        *,
        columns: Sequence[str] = (),
        as_of: datetime | None = None,
        lake: str | None = None,
    ) -> Self:
        """A part from a snapshot, or SQL, of entities and the snapshots of the views' tables."""
        return cls(
            name=name,
            entities=None if isinstance(entities, str) else Pin.of(entities),
            query=entities if isinstance(entities, str) else None,
            lake=lake,
            columns=tuple(columns),
            as_of=as_of,
            views=tuple(ViewPin(source=Pin.of(view), features=feature_columns(view.row.contract)) for view in views),
        )

    @property
    def sources(self) -> list[str]:
        """The versions that it reads, as table@version; SQL is given as it stands."""
        asked = self.entities.reference if self.entities else str(self.query)
        return [asked, *(view.source.reference for view in self.views)]


class TrainingSet(BaseModel):
    """Point-in-time correct rows to train and test on, with the recipe that they follow from.

    Attributes:
        parts: how each of its tables is made.
        digest: SHA-256 over the parts' digests.
        digests: SHA-256 of each part's file.
        rows: rows of the first part.
        folder: where the files are, ``<part>.parquet``; a cache.
    """

    model_config = ConfigDict(frozen=True)

    parts: tuple[Part, ...] = Field(min_length=1)
    digest: str
    digests: dict[str, str]
    rows: int
    folder: str

    @property
    def sources(self) -> list[str]:
        """The versions that it was made from, as table@version, each once."""
        return list(dict.fromkeys(source for part in self.parts for source in part.sources))

    @property
    def recipe(self) -> str:
        """SHA-256 over all that the rows depend on; where the tables lie is not among it."""
        parts = [part.model_dump(mode="json", exclude={"lake": True}) for part in self.parts]
        for part in parts:
            for pin in (part["entities"], *(view["source"] for view in part["views"])):
                if pin:
                    del pin["uri"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def read(self, part: str) -> pa.Table:
        """The rows of a part; made again where their file is gone. Raises as ``rebuild``."""
        import pyarrow.parquet as pq

        if part not in self.digests:
            raise TrainingSetError.no_part(part, self.digests)
        path = Path(self.folder) / f"{part}.parquet"
        if not path.is_file():
            self.rebuild()
        return pq.read_table(path)

    def rebuild(self) -> None:
        """Make the files again from the recipe, into the same folder.

        Raises:
            TrainingSetError: they are not the same as before; the folder is left as it was.
            UnknownVersionError, StorageError: a version is gone.
        """
        again = build(self.parts, Path(self.folder).parent)
        for part, digest in self.digests.items():
            if again.digests[part] != digest:
                raise TrainingSetError.differs(part, digest, again.digests[part])

    def save(self, lake: Lakehouse, part: str, table: str) -> Snapshot[Table]:
        """Keep a part as a version of a Delta table of the lake, where history, SQL and pins see it.

        A part that is there already is not written again, also not after a kill between its two steps.

        Args:
            lake: where the table is made.
            part: which part.
            table: name of the table; no row model may declare it.

        Returns:
            The published version.
        """
        from features.saved_training_set import save

        return save(lake, table, self.read(part), digest=self.digests[part], inputs=self.sources)


def build(parts: Sequence[Part], parent: Path) -> TrainingSet:
    """Make a training set; its files lie in a folder of ``parent`` that is named by their digest.

    Raises:
        EntityColumnsError: a key column or the instant is missing from the entities.
        NaiveTimestampError: an instant has no time zone.
        TrainingSetError: the parts don't go together, or a source has changed.
        UnknownVersionError: a pinned version is gone.
        StorageError: a file can't be read or written.
    """
    from features.store import FeatureStore

    parent.mkdir(parents=True, exist_ok=True)
    digests = {}
    rows = []
    with TemporaryDirectory(dir=parent) as scratch:
        # A registry of its own: what another run pins at the same time can't reach this one.
        store = FeatureStore(Path(scratch) / "registry")
        files = Path(scratch) / "files"
        files.mkdir()
        applied: dict[str, Pin] = {}
        for part in parts:
            wanted = {view.source.table: view.source for view in part.views}
            store.apply([pin.snapshot() for name, pin in wanted.items() if applied.get(name) != pin])
            applied |= wanted
            table = _rows(store, part)
            path = files / f"{part.name}.parquet"
            _write(path, table)
            digests[part.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(table.num_rows)
        digest = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        folder = parent / digest[:32]
        if not folder.exists():
            files.rename(folder)
    return TrainingSet(parts=tuple(parts), digest=digest, digests=digests, rows=rows[0], folder=str(folder))


def _rows(store: FeatureStore, part: Part) -> pa.Table:
    import pyarrow as pa

    from features.entity_frame import EVENT_TIMESTAMP

    entities, time = _entities(part)
    if part.as_of is not None:
        if EVENT_TIMESTAMP in entities.column_names:
            entities = entities.drop_columns([EVENT_TIMESTAMP])
        instants = pa.array([part.as_of] * entities.num_rows, pa.timestamp("us", tz="UTC"))
    elif time == EVENT_TIMESTAMP:
        return store.training_set(entities, _features(part))
    else:
        instants = entities[time]
    found = store.training_set(entities.append_column(EVENT_TIMESTAMP, instants), _features(part))
    return found.drop_columns([EVENT_TIMESTAMP])


def _features(part: Part) -> list[str]:
    return [f"{view.source.table}:{feature}" for view in part.views for feature in view.features]


def _entities(part: Part) -> tuple[pa.Table, str]:
    """The rows that ask, in their order: by instant where that is their own, then by key; and the time's column."""
    import pyarrow as pa

    from features.entity_frame import EntityFrame, time_of

    key: tuple[str, ...] = ()
    if part.entities is None:
        frame = EntityFrame.of(str(part.query), part.lake)
        entities, time = pa.Table.from_batches(frame.batches(), frame.schema), frame.time
    else:
        snapshot = part.entities.snapshot()
        entities = snapshot.arrow(list(part.columns) or None)
        if snapshot.row is not Table:
            key = snapshot.row.contract.key
        time = "" if part.as_of else time_of(entities.schema, snapshot.row)
    if part.columns:
        entities = entities.select(list(part.columns))
    # Without a key only all columns together say which row comes first; nested ones can't be compared.
    first = [time] if part.as_of is None else []
    rest = key or [field.name for field in entities.schema if not pa.types.is_nested(field.type)]
    order = [name for name in dict.fromkeys([*first, *rest]) if name in entities.column_names]
    return (entities.sort_by([(name, "ascending") for name in order]) if order else entities), time


def _write(path: Path, table: pa.Table) -> None:
    """Write Parquet whose bytes depend on the rows alone, not on how they lie in memory."""
    import pyarrow.parquet as pq

    table = table.cast(_settled(table.schema))
    with pq.ParquetWriter(path, table.schema, version="2.6", compression="zstd", compression_level=3) as writer:
        for start in range(0, table.num_rows, _ROW_GROUP):
            writer.write_table(table.slice(start, _ROW_GROUP).combine_chunks(), row_group_size=_ROW_GROUP)


def _settled(schema: pa.Schema) -> pa.Schema:
    """The schema with each field's metadata in one order: a Delta reader gives them as its hash map has them."""
    import pyarrow as pa

    def ordered(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes] | None:
        return dict(sorted(metadata.items())) if metadata else None

    return pa.schema([f.with_metadata(ordered(f.metadata)) for f in schema], metadata=ordered(schema.metadata))
