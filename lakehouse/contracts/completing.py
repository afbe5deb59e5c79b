"""What do rows of before a column was declared hold in it? The row model's default, or nothing where it is optional."""

from __future__ import annotations

import pyarrow as pa
from pydantic import TypeAdapter

from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Table
from lakehouse.errors import ContractMismatchError

_DUMP: TypeAdapter[object] = TypeAdapter(object)


def has_default(row_model: type[Table], column: str) -> bool:
    """Whether the row model says what a row without the column holds there."""
    field = row_model.model_fields.get(column)
    return field is not None and not field.is_required()


def default_of(row_model: type[Table], column: str) -> object:
    """The column's default as a stored value; None where it has none."""
    value = row_model.model_fields[column].get_default(call_default_factory=True, validated_data={})
    return _DUMP.dump_python(value) if has_default(row_model, column) else None


def filled(row_model: type[Table], field: pa.Field, rows: int) -> pa.Array:
    """A column that the stored rows lack, as many times as there are rows."""
    value = None if field.nullable else default_of(row_model, field.name)
    return pa.array([value] * rows, field.type)


def completed(rows: pa.Table, row_model: type[Table], version: int) -> pa.Table:
    """Stored rows in the row model's form: columns that they lack are filled in, those declared no more left out.

    Raises:
        ContractMismatchError: a required column without a default is missing.
    """
    schema = pa.schema([field.remove_metadata() for field in arrow_schema(row_model.contract)])
    lacking = [f for f in schema if f.name not in rows.column_names]
    missing = [f.name for f in lacking if not f.nullable and not has_default(row_model, f.name)]
    if missing:
        differences = [f"column {name} is declared and missing" for name in missing]
        raise ContractMismatchError.between(row_model.contract.table, version, differences)
    columns = [
        filled(row_model, field, rows.num_rows) if field in lacking else rows[field.name].cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
