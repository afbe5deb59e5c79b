"""How is a document kept honest? Each value is cited from a ledger row, and checked against it before it is shown.

A fact can only be made from a row (`cite`), but a document is also a value that may come from anywhere. So `check`
looks every fact up again, and refuses numbers in the text beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from features.drift import DriftRow
from lakehouse.contracts.table import Table
from lakehouse.ledger import SYSTEM_TABLES, Ledger
from tasks.errors import UnsourcedError

Value = bool | int | float | str | None

#: The row models that can be cited, by table name.
CITABLE: dict[str, type[Table]] = {**SYSTEM_TABLES, DriftRow.contract.table: DriftRow}


class Part(BaseModel):
    """Base of a document's parts: frozen, and strict about field names and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(Part):
    """Where a value stands in the ledger.

    Attributes:
        table: name of the system table.
        key: the row's key; of several key columns, joined by /.
        field: the column; of a JSON object in it, as column/name.
    """

    table: str
    key: str
    field: str

    def __str__(self) -> str:
        return f"{self.table}[{self.key}].{self.field}"


class Fact(Part):
    """One value of a document, with what it is called and where it comes from."""

    label: str
    value: Value
    source: Source | None


class Section(Part):
    """A heading, what is said in words without numbers, and facts."""

    heading: str
    text: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()


class Document(Part):
    """A model card or a technical file.

    Attributes:
        kind: which of the two.
        title: what is described; the version is a fact.
        sections: in order.
    """

    kind: Literal["model card", "technical file"]
    title: str
    sections: tuple[Section, ...]

    def facts(self) -> list[Fact]:
        return [fact for section in self.sections for fact in section.facts]


def cite(row: Table, *fields: str, label: str = "") -> Fact:
    """The value of a row's column, or of a name in its JSON object.

    Args:
        row: a row of a system table.
        fields: the column, and the name in it if it holds a JSON object.
        label: what to call it; default: the last of the fields, in words.
    """
    source = Source(table=row.contract.table, key=key_of(row), field="/".join(fields))
    value = value_at(row, source.field)
    assert not isinstance(value, _Absent), str(source)
    return Fact(label=label or fields[-1].replace("_", " "), value=value, source=source)


def check(document: Document, ledger: Ledger) -> Document:
    """The document itself, if everything that it says stands in the ledger.

    Raises:
        UnsourcedError: a value has no source, its row or column is not there or says something else, or a text or
            label holds a number that is not its source's.
    """
    rows: dict[str, dict[str, Table]] = {}
    for text in (document.title, *(part for s in document.sections for part in (s.heading, *s.text))):
        if _numbers(text):
            raise UnsourcedError.prose(text)
    for fact in document.facts():
        if fact.source is None:
            raise UnsourcedError.no_source(fact.label, fact.value)
        source = fact.source
        if source.table not in CITABLE:
            raise UnsourcedError.no_row(fact.label, str(source))
        if source.table not in rows:
            rows[source.table] = {key_of(row): row for row in ledger.read(CITABLE[source.table])}
        row = rows[source.table].get(source.key)
        stored = value_at(row, source.field) if row is not None else _Absent()
        if isinstance(stored, _Absent):
            raise UnsourcedError.no_row(fact.label, str(source))
        if type(stored) is not type(fact.value) or stored != fact.value:
            raise UnsourcedError.differs(fact.label, str(source), fact.value, stored)
        if not set(_numbers(fact.label)) <= set(_numbers(f"{source.key} {source.field}")):
            raise UnsourcedError.prose(fact.label)
    return document


def key_of(row: Table) -> str:
    """A row's key as text."""
    return "/".join(str(getattr(row, name)) for name in row.contract.key)


class _Absent:
    """Stands for a column or name that is not there; a null is a value."""


def value_at(row: Table, field: str) -> Value | _Absent:
    """A row's value as a document writes it: times as ISO 8601, lists joined by commas."""
    column, _, name = field.partition("/")
    if column not in row.contract.names:
        return _Absent()
    value = getattr(row, column)
    if name:
        found = json.loads(value) if isinstance(value, str) and value.startswith("{") else {}
        if name not in found or not isinstance(found[name], (bool, int, float, str)):
            return _Absent()
        value = found[name]
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def names_in(row: Table, column: str) -> list[str]:
    """The names of a column's JSON object whose values can be cited, in its order."""
    found = json.loads(getattr(row, column))
    return [name for name in found if not isinstance(value_at(row, f"{column}/{name}"), _Absent)]


def cited(row: Table, columns: Iterable[str], prefix: str = "") -> list[Fact]:
    """A fact for each of a row's columns."""
    return [cite(row, column, label=f"{prefix}{column.replace('_', ' ')}") for column in columns]


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)
