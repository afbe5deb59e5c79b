"""Where does a feature view read from? A DeltaSource: one table at one version, as Feast's registry keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from lakehouse.snapshot import Snapshot, schema_of
from lakehouse.table import Table, declared_tables


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
