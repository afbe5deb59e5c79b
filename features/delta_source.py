"""Where does a feature view read from? A DeltaSource: one table at one version, as Feast's registry keeps it.

A SavedDatasetDeltaStorage is where Feast saves a result: a plain Delta table, because a result has no row model by
which the gate could judge it. Training sets that the lake shall know are saved by ``features.training_set``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from features.errors import OfflineSourceError
from lakehouse.contracts.table import Table, declared_tables
from lakehouse.snapshot import Snapshot, open_delta, schema_of


class DeltaSource(DataSource):
    """A Delta table pinned to a version.

    Attributes:
        table: name of the table; where its row model is declared, each read checks the contract.
        uri: the table's folder.
        version: the Delta version that is read, whatever is written later.
    """

    def __init__(
        self,
        *,
        table: str,
        uri: str,
        version: int,
        timestamp_field: str,
        created_timestamp_column: str = "",
        field_mapping: dict[str, str] | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        super().__init__(
            name=table,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description,
            tags=tags,
            owner=owner,
        )
        self.table = table
        self.uri = uri
        self.version = version

    def snapshot(self) -> Snapshot[Table]:
        """The table at the pinned version."""
        return Snapshot(self.uri, self.version, declared_tables().get(self.table, Table))

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """Feast's name for a source that it does not know itself."""
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> DeltaSource:
        """Read back from the registry."""
        pin = json.loads(data_source.custom_options.configuration)
        return DeltaSource(
            table=data_source.name,
            uri=pin["uri"],
            version=pin["version"],
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        pin = json.dumps({"uri": self.uri, "version": self.version}, sort_keys=True).encode()
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{type(self).__module__}.{type(self).__qualname__}",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=pin),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            field_mapping=self.field_mapping,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DeltaSource)
            and super().__eq__(other)  # type: ignore[no-untyped-call]
            and (self.uri, self.version) == (other.uri, other.version)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.uri, self.version))

    def validate(self, config: RepoConfig) -> None:
        """Open the pinned version. Raises UnknownVersionError, StorageError."""
        self.snapshot().delta()

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """How Feast reads the type names of ``get_table_column_names_and_types``."""
        return pa_to_feast_value_type

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """(name, Arrow type) of each column at the pinned version."""
        return [(field.name, str(field.type)) for field in schema_of(self.snapshot().delta())]

    def get_table_query_string(self) -> str:
        """What messages call the source."""
        return self.snapshot().reference


class SavedDatasetDeltaStorage(SavedDatasetStorage):
    """A Delta table that holds a saved result.

    Attributes:
        uri: the table's folder.
        version: the version that holds the result; None until it is saved.
        timestamp_field: the result's event time.
    """

    _proto_attr_name = "custom_storage"

    def __init__(self, uri: str, version: int | None = None, timestamp_field: str = "event_timestamp") -> None:
        self.uri = uri
        self.version = version
        self.timestamp_field = timestamp_field

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> SavedDatasetDeltaStorage:
        """Read back from the registry."""
        stored = json.loads(storage_proto.custom_storage.configuration)
        return SavedDatasetDeltaStorage(stored["uri"], stored["version"], stored["timestamp_field"])

    def to_proto(self) -> SavedDatasetStorageProto:
        """As the registry keeps it."""
        stored = {"uri": self.uri, "version": self.version, "timestamp_field": self.timestamp_field}
        return self._custom_storage_proto(
            DataSourceProto.CustomSourceOptions(configuration=json.dumps(stored, sort_keys=True).encode())
        )

    def to_data_source(self) -> DeltaSource:
        """The saved version as a source; the newest where it was never saved by this object."""
        version = open_delta(self.uri).version() if self.version is None else self.version
        return DeltaSource(
            table=Path(self.uri).name, uri=self.uri, version=version, timestamp_field=self.timestamp_field
        )

    @staticmethod
    def from_data_source(data_source: DataSource) -> SavedDatasetDeltaStorage:
        """The storage behind a source."""
        if not isinstance(data_source, DeltaSource):
            raise OfflineSourceError.not_delta(data_source.name, type(data_source).__name__)
        return SavedDatasetDeltaStorage(data_source.uri, data_source.version, data_source.timestamp_field)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SavedDatasetDeltaStorage) and (self.uri, self.version) == (other.uri, other.version)

    def __hash__(self) -> int:
        return hash((self.uri, self.version))
