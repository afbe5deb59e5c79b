"""What is a Snapshot to Flyte? A structured dataset with typed columns, pinned to its version.

The one module of this package that imports flytekit. The literal's URI carries the version, its type the contract's
columns, the Delta table's id and the contract's fingerprint. Flyte caches on them: same version, a hit; new version, or
another table at the same place, a rerun.
"""

from __future__ import annotations

from typing import ClassVar, cast, get_args, get_origin

from flytekit import FlyteContext
from flytekit.core.type_engine import TypeEngine, TypeTransformer
from flytekit.models.literals import Literal, Scalar, StructuredDatasetMetadata
from flytekit.models.literals import StructuredDataset as StructuredDatasetLiteral
from flytekit.models.types import LiteralType, SimpleType, StructuredDatasetType
from flytekit.types.structured import StructuredDataset

from lakehouse.contracts.json_schema import json_type
from lakehouse.contracts.table import ColumnType, Table
from lakehouse.errors import WrongTableError
from lakehouse.lake import Lakehouse
from lakehouse.snapshot import Snapshot

#: Marks a structured dataset type as a table's; the name stands in ``external_schema_bytes``.
SCHEMA_TYPE = "millrace-table"


class SnapshotTransformer(TypeTransformer[Snapshot[Table]]):  # type: ignore[misc]  # flytekit publishes no types
    """Registers ``Snapshot[Row]`` as a Flyte type."""

    _SIMPLE: ClassVar[dict[str, int]] = {
        "int": SimpleType.INTEGER,
        "float": SimpleType.FLOAT,
        "decimal": SimpleType.STRING,  # Flyte has no decimal; its text form loses nothing
        "bool": SimpleType.BOOLEAN,
        "str": SimpleType.STRING,
        "date": SimpleType.DATETIME,
        "datetime": SimpleType.DATETIME,
    }

    def __init__(self) -> None:
        super().__init__("snapshot", cast("type[Snapshot[Table]]", Snapshot))

    def get_literal_type(self, t: type[Snapshot[Table]]) -> LiteralType:
        row = row_model_of(t)
        if row is Table:
            return LiteralType(structured_dataset_type=StructuredDatasetType(format="delta"))
        columns = [
            StructuredDatasetType.DatasetColumn(column.name, self._column_type(column.type))
            for column in row.contract.columns
        ]
        return LiteralType(
            structured_dataset_type=StructuredDatasetType(
                columns=columns,
                format="delta",
                external_schema_type=SCHEMA_TYPE,
                external_schema_bytes=row.contract.table.encode(),
            )
        )

    def assert_type(self, t: type[Snapshot[Table]], v: object) -> None:
        """A snapshot, or what the command line makes of text; ``to_literal`` looks closer."""
        if not isinstance(v, (Snapshot, StructuredDataset, str)):
            raise TypeError(f"Expected a snapshot or a reference such as ratings@12, got {type(v).__name__}.")

    def to_literal(
        self,
        ctx: FlyteContext,
        python_val: Snapshot[Table] | StructuredDataset | str,
        python_type: type[Snapshot[Table]],
        expected: LiteralType,
    ) -> Literal:
        row = row_model_of(python_type)
        snapshot = python_val if isinstance(python_val, Snapshot) else _parse(python_val)
        _check_table(snapshot, row)
        fingerprint = "any" if row is Table else row.contract.fingerprint[:16]
        # All of the literal is in the cache key but its hash, which flytekit sets anew after this.
        stored = StructuredDatasetType(
            columns=expected.structured_dataset_type.columns,
            format="delta",
            external_schema_type=SCHEMA_TYPE,
            external_schema_bytes=f"{snapshot.name}/{snapshot.table_id}/{fingerprint}".encode(),
        )
        return Literal(
            scalar=Scalar(
                structured_dataset=StructuredDatasetLiteral(
                    uri=f"{snapshot.uri}@{snapshot.version}", metadata=StructuredDatasetMetadata(stored)
                )
            )
        )

    def to_python_value(
        self, ctx: FlyteContext, lv: Literal, expected_python_type: type[Snapshot[Table]]
    ) -> Snapshot[Table]:
        row = row_model_of(expected_python_type)
        uri, _, version = lv.scalar.structured_dataset.uri.rpartition("@")
        snapshot = Snapshot(uri, int(version), row)
        _check_table(snapshot, row)
        return snapshot

    def _column_type(self, column_type: ColumnType) -> LiteralType:
        if column_type.kind == "list":
            assert column_type.item is not None
            return LiteralType(collection_type=self._column_type(column_type.item))
        if column_type.kind == "struct":
            return LiteralType(simple=SimpleType.STRUCT, metadata=json_type(column_type))
        return LiteralType(simple=self._SIMPLE[column_type.kind])


def row_model_of(t: type[Snapshot[Table]]) -> type[Table]:
    """The ``Row`` of ``Snapshot[Row]``; ``Table`` itself for a bare ``Snapshot``."""
    arguments = get_args(t) if get_origin(t) is Snapshot else ()
    row = arguments[0] if arguments else Table
    return row if isinstance(row, type) and issubclass(row, Table) else Table


def table_of(literal_type: LiteralType) -> str | None:
    """The table that a literal type was made for, or None if it is not a declared table's snapshot."""
    dataset = literal_type.structured_dataset_type
    if dataset is None or dataset.external_schema_type != SCHEMA_TYPE:
        return None
    return str(dataset.external_schema_bytes.decode())


def _check_table(snapshot: Snapshot[Table], row: type[Table]) -> None:
    if row is not Table and snapshot.name != row.contract.table:
        where = f"A parameter of type Snapshot[{row.__name__}]"
        raise WrongTableError.given(where=where, expected=row.contract.table, got=snapshot.name)


def _parse(value: StructuredDataset | str) -> Snapshot[Table]:
    """``ratings``, ``ratings@12`` or ``ratings@1998-03-01``, as typed on the command line."""
    reference = value if isinstance(value, str) else str(value.uri)
    return Lakehouse.open().resolve(reference)


TypeEngine.register(SnapshotTransformer())
