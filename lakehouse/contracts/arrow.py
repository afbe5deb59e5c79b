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
    if column_type.kind == "struct":
        # Nullable all of them: Delta keeps no requirement within a list, and the gate keeps every one.
        return pa.struct([_commented(m.name, arrow_type(m.type), True, m.description) for m in column_type.members])
    if column_type.kind == "decimal":
        return pa.decimal128(column_type.precision, column_type.scale)
    return _SCALARS[column_type.kind]


def arrow_schema(contract: Contract) -> pa.Schema:
    """The contract's Arrow schema, descriptions as ``comment`` metadata (Delta shows them as column comments)."""
    return pa.schema(
        [
            _commented(column.name, arrow_type(column.type), column.nullable, column.description)
            for column in contract.columns
        ]
    )


def _commented(name: str, kind: pa.DataType, nullable: bool, description: str) -> pa.Field:
    return pa.field(name, kind, nullable, {"comment": description} if description else None)


def is_list(arrow: pa.DataType) -> bool:
    """Whether values are lists, in whichever of Arrow's layouts."""
    types = pa.types
    return bool(types.is_list(arrow) or types.is_large_list(arrow) or types.is_list_view(arrow))


def as_type(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Values in a wider type, or as text; fields of nested models that they lack are null."""
    if pa.types.is_struct(wanted) and pa.types.is_struct(values.type):
        present = dict(zip((field.name for field in values.type), values.flatten(), strict=True))
        fields = [
            as_type(present[f.name], f.type) if f.name in present else pa.nulls(len(values), f.type) for f in wanted
        ]
        return pa.StructArray.from_arrays(fields, fields=list(wanted), mask=values.is_null())
    if pa.types.is_list(wanted) and pa.types.is_list(values.type):
        lengths = values.value_lengths().fill_null(0)
        ends = pa.compute.cumulative_sum(pa.concat_arrays([pa.array([0], pa.int32()), lengths]))
        mask = values.is_null() if values.null_count else None
        return pa.ListArray.from_arrays(ends, as_type(values.flatten(), wanted.value_type), type=wanted, mask=mask)
    if pa.types.is_struct(values.type):  # one without fields, which Arrow can't write out
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], wanted)
    return values.cast(wanted)


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
