"""What does a Delta table keep of its contract? Its schema, with what no type can say in the columns' metadata.

Delta takes any key in a column's metadata, and Spark and delta-rs carry it from version to version; properties of the
whole table that are not its own it refuses. So key, event time, clustering and rules stand with their columns, and a
later declaration can be compared with the one that the table was made by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.table import Column, Contract, Rule

#: Where a column's metadata keeps it.
METADATA_KEY = "millrace.column"

#: Rules that a column's type and nullability say already, or that hold for a batch and not for a row.
_ELSEWHERE = ("type", "required", "known_by")


class StoredColumn(BaseModel):
    """What a column's metadata says beside its comment.

    Attributes:
        key: part of the primary key.
        event_time: decides which of two rows with one key is the newer.
        subject: identifies a person.
        cluster: place among the columns that maintenance clusters by, from 0.
        rules: column, kind and value of each rule.
    """

    model_config = ConfigDict(frozen=True)

    key: bool = False
    event_time: bool = False
    subject: bool = False
    cluster: int | None = None
    rules: tuple[tuple[str, str, int | float | str | tuple[str, ...] | None], ...] = ()

    def stored(self) -> str:
        """As the metadata keeps it; ``{}`` where there is nothing to say."""
        return self.model_dump_json(exclude_defaults=True)


def stored_schema(contract: Contract) -> pa.Schema:
    """The schema that a contract's Delta table is made with."""
    fields = [
        field.with_metadata(column_metadata(contract, column))
        for field, column in zip(arrow_schema(contract), contract.columns, strict=True)
    ]
    return pa.schema(fields)


def column_metadata(contract: Contract, column: Column) -> dict[str, str]:
    """A column's metadata in Delta: its comment, and what ``StoredColumn`` reads back."""
    comment = {"comment": column.description} if column.description else {}
    return comment | {METADATA_KEY: declared_column(contract, column).stored()}


def declared_column(contract: Contract, column: Column) -> StoredColumn:
    """What the contract says of a column, in the words that the table keeps."""
    return StoredColumn(
        key=column.key,
        event_time=column.event_time,
        subject=column.subject,
        cluster=contract.cluster_by.index(column.name) if column.name in contract.cluster_by else None,
        rules=tuple(
            (r.column, r.kind, r.value) for r in column.rules if r.kind not in _ELSEWHERE or r.column != column.name
        ),
    )


def stored_column(metadata: Mapping[bytes, bytes] | None) -> StoredColumn | None:
    """What a stored column's metadata says; None if it was made without."""
    text = (metadata or {}).get(METADATA_KEY.encode())
    return StoredColumn.model_validate(json.loads(text)) if text else None


def rule_of(stored: tuple[str, str, int | float | str | tuple[str, ...] | None]) -> Rule:
    """A rule as the contract has it."""
    column, kind, value = stored
    return Rule(column, kind, value)  # type: ignore[arg-type]  # its kind was a contract's
