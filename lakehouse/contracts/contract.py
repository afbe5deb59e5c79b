"""What does a row model say? A contract: columns, types and rules, in a form that every engine's compiler reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from lakehouse.contracts.expectations import Expectation


@dataclass(frozen=True)
class Key:
    """The column is (part of) the primary key: at most one current row for each value."""


@dataclass(frozen=True)
class Subject:
    """The column identifies a person; erasure follows it."""


@dataclass(frozen=True)
class EventTime:
    """The column says when the row's event happened (UTC); of two rows with one key the later wins."""


@dataclass(frozen=True)
class References:
    """Each value must exist in another table's column, written ``table.column``."""

    target: str

    @property
    def table(self) -> str:
        return self.target.partition(".")[0]

    @property
    def column(self) -> str:
        return self.target.partition(".")[2]


Kind = Literal["int", "float", "decimal", "bool", "str", "date", "datetime", "list", "struct"]


@dataclass(frozen=True)
class ColumnType:
    """A column's logical type; each engine's compiler maps it to its own.

    Attributes:
        kind: int is 64-bit, float is IEEE double, datetime is microseconds in UTC.
        item: the element type of a list; no element may be null.
        precision: digits in all, of a decimal.
        scale: digits after the point, of a decimal.
        members: the fields of a struct, which a nested model is.
    """

    kind: Kind
    item: ColumnType | None = None
    precision: int = 0
    scale: int = 0
    members: tuple[Member, ...] = ()

    def __str__(self) -> str:
        if self.kind == "struct":
            return f"{{{', '.join(map(str, self.members))}}}"
        if self.kind == "list":
            return f"list[{self.item}]"
        return f"decimal({self.precision},{self.scale})" if self.kind == "decimal" else self.kind


@dataclass(frozen=True)
class Member:
    """One field of a nested model."""

    name: str
    type: ColumnType
    nullable: bool
    description: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.type}{'?' if self.nullable else ''}"


RuleKind = Literal[
    "type",
    "required",
    "ge",
    "gt",
    "le",
    "lt",
    "multiple_of",
    "min_length",
    "max_length",
    "pattern",
    "one_of",
    "references",
    "known_by",
]


@dataclass(frozen=True)
class Rule:
    """One thing that must hold for a column of every row.

    Attributes:
        column: its name; of a nested field its path, such as ``lines[].price``, where ``[]`` is each element of a list.
        kind: what must hold.
        value: the bound, length (of a str in characters, of a list in elements), pattern or choices. Bounds of decimals
            are text if they are no whole number, so that no digit is lost.
    """

    column: str
    kind: RuleKind
    value: float | int | str | tuple[str, ...] | None = None

    @property
    def top(self) -> str:
        """The column that the rule is about, or about a part of."""
        return self.steps[0]

    @property
    def steps(self) -> tuple[str, ...]:
        """The path, step by step: ``lines[].price`` is ``lines``, ``[]``, ``price``."""
        return tuple(self.column.replace("[]", ".[]").split("."))

    @property
    def name(self) -> str:
        """What reports and quarantine call it, such as ``rating ge 0.5``."""
        if self.value is None:
            return f"{self.column} {self.kind}"
        value = "|".join(self.value) if isinstance(self.value, tuple) else str(self.value)
        return f"{self.column} {self.kind} {value}"


@dataclass(frozen=True)
class Column:
    """One column of a contract."""

    name: str
    type: ColumnType
    nullable: bool
    description: str
    rules: tuple[Rule, ...]
    key: bool = False
    subject: bool = False
    event_time: bool = False
    references: References | None = None


def nested(path: str, column_type: ColumnType) -> Iterator[tuple[str, Member]]:
    """Every nested field below a place, each with its path, in order; those that hold others come before these."""
    while column_type.item is not None:
        path, column_type = f"{path}[]", column_type.item
    for member in column_type.members:
        yield f"{path}.{member.name}", member
        yield from nested(f"{path}.{member.name}", member.type)


@dataclass(frozen=True)
class Contract:
    """What a row model says, read once: name, description, columns in order, layout and what holds for the whole.

    Attributes:
        table: its name.
        description: the row model's docstring.
        columns: in order.
        partition_by: columns whose values name the table's folders.
        cluster_by: columns that maintenance orders the rows by (docs/adr/0009-clustering.md).
        change_feed: whether Delta records the changed rows beside the table, for `diff` (docs/adr/0012-diff.md).
        fresh_within: how old the newest event may be, counted back from the end of the day.
        expectations: what must hold for each version as a whole.
    """

    table: str
    description: str
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...] = ()
    cluster_by: tuple[str, ...] = ()
    change_feed: bool = False
    fresh_within: timedelta | None = None
    expectations: tuple[Expectation, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.key)

    @property
    def event_time(self) -> str | None:
        return next((column.name for column in self.columns if column.event_time), None)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(rule for column in self.columns for rule in column.rules)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what the data must satisfy; descriptions, layout and freshness don't count."""
        content: list[list[object]] = [
            [c.name, str(c.type), c.nullable, [r.name for r in c.rules], c.key, c.subject, c.event_time]
            for c in self.columns
        ]
        whole = [expectation.name for expectation in self.expectations]
        said = [self.table, content, whole] if whole else [self.table, content]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        return next((c for c in self.columns if c.name == name), None) or _no_column(self.table, name)


def _no_column(table: str, name: str) -> Column:
    raise KeyError(f"{table}.{name}")
