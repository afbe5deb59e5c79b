"""What is a contract in Arrow? Its schema, and rows as an Arrow table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC

import pyarrow as pa

from lakehouse.contracts.table import ColumnType, Contract, Table

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


def records(table: pa.Table) -> Iterator[dict[str, object]]:
    """Rows as Python values, some thousands at a time; timestamps finer than microseconds are cut to these.

    Zoned timestamps travel as naive UTC: pyarrow loads pandas (a quarter of a second) for each that has a zone.
    """
    moments = [field for field in table.schema if pa.types.is_timestamp(field.type)]
    zoned = [field.name for field in moments if field.type.tz is not None]
    naive = [field.with_type(pa.timestamp("us")) if field in moments else field for field in table.schema]
    for batch in table.cast(pa.schema(naive), safe=False).to_batches(max_chunksize=10_000):
        for record in batch.to_pylist():
            for name in zoned:
                record[name] = record[name] and record[name].replace(tzinfo=UTC)
            yield record


def to_arrow(row_model: type[Table], rows: Sequence[Table]) -> pa.Table:
    """Rows of one model as an Arrow table in the contract's schema."""
    return pa.Table.from_pylist([row.model_dump() for row in rows], schema=arrow_schema(row_model.contract))
