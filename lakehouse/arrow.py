"""What is a contract in Arrow? Its schema, and rows as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lakehouse.table import ColumnType, Contract, Table

_SCALARS = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "str": pa.string(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us", tz="UTC"),
}


def arrow_type(column_type: ColumnType) -> pa.DataType:
    """The Arrow type of a logical column type."""
    if column_type.kind == "list":
        assert column_type.item is not None
        return pa.list_(pa.field("element", arrow_type(column_type.item)))
    if column_type.kind == "decimal":
        return pa.decimal128(column_type.precision, column_type.scale)
    return _SCALARS[column_type.kind]


def arrow_schema(contract: Contract) -> pa.Schema:
    """The contract's Arrow schema, descriptions as ``comment`` metadata (Delta shows them as column comments)."""
    return pa.schema(
        [
            pa.field(
                column.name,
                arrow_type(column.type),
                nullable=column.nullable,
                metadata={"comment": column.description} if column.description else None,
            )
            for column in contract.columns
        ]
    )


def to_arrow(row_model: type[Table], rows: Sequence[Table]) -> pa.Table:
    """Rows of one model as an Arrow table in the contract's schema."""
    return pa.Table.from_pylist([row.model_dump() for row in rows], schema=arrow_schema(row_model.contract))
