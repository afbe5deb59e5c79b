"""How is a table declared? As a pydantic row model, from which everything else is derived."""

from __future__ import annotations

import enum
import hashlib
import json
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from lakehouse.errors import ContractError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


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


Kind = Literal["int", "float", "decimal", "bool", "str", "date", "datetime", "list"]


@dataclass(frozen=True)
class ColumnType:
    """A column's logical type; each engine's compiler maps it to its own.

    Attributes:
        kind: int is 64-bit, float is IEEE double, datetime is microseconds in UTC.
        item: the element type of a list.
        precision: digits in all, of a decimal.
        scale: digits after the point, of a decimal.
    """

    kind: Kind
    item: ColumnType | None = None
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        if self.kind == "list":
            return f"list[{self.item}]"
        return f"decimal({self.precision},{self.scale})" if self.kind == "decimal" else self.kind


RuleKind = Literal[
    "type",
    "required",
    "ge",
    "gt",
    "le",
    "lt",
    "min_length",
    "max_length",
    "pattern",
    "one_of",
    "references",
    "known_by",
]


@dataclass(frozen=True)
class Rule:
    """One thing that must hold for a column of every row."""

    column: str
    kind: RuleKind
    value: float | int | str | tuple[str, ...] | None = None

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


@dataclass(frozen=True)
class Contract:
    """What a row model says, read once: name, description, columns in order."""

    table: str
    description: str
    columns: tuple[Column, ...]

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
        """SHA-256 over what the data must satisfy; descriptions don't count."""
        content = [
            [c.name, str(c.type), c.nullable, [r.name for r in c.rules], c.key, c.subject, c.event_time]
            for c in self.columns
        ]
        return hashlib.sha256(json.dumps([self.table, content], sort_keys=True).encode()).hexdigest()

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        return next((c for c in self.columns if c.name == name), None) or _no_column(self.table, name)


def _no_column(table: str, name: str) -> Column:
    raise KeyError(f"{table}.{name}")


class Table(BaseModel):
    """Base of all row models: ``class Rating(Table, name="ratings")``.

    The class docstring describes the table, the markers (``Key``, ``EventTime``, ``References``, ``Subject``) and
    pydantic's field constraints say what every row must satisfy. A type or constraint that can't be enforced in
    Delta and Deequ is a ContractError when the class is made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contract: ClassVar[Contract]
    _registry: ClassVar[dict[str, type[Table]]] = {}

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: object) -> None:
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str | None = None, **kwargs: object) -> None:
        if name is None:
            raise ContractError(
                f"Row model {cls.__name__} names no table.", fix=f'Write class {cls.__name__}(Table, name="…").'
            )
        if not _NAME.fullmatch(name):
            raise ContractError(
                f"{name!r} is not a table name.", fix="Use lower-case letters, digits and underscores, a letter first."
            )
        cls.contract = read_contract(cls, name)
        Table._registry[name] = cls


def declared_tables() -> Mapping[str, type[Table]]:
    """Every row model that has been imported, by table name."""
    return dict(Table._registry)


def read_contract(model: type[BaseModel], table: str) -> Contract:
    """Read a pydantic model's fields into a Contract; ContractError for what no engine can keep."""
    columns = tuple(_column(table, name, field) for name, field in model.model_fields.items())
    if not any(column.key for column in columns):
        raise ContractError(f"Table {table!r} has no key.", fix="Mark the identifying column(s) with Key().")
    if sum(column.event_time for column in columns) > 1:
        raise ContractError(f"Table {table!r} has two event times.", fix="Mark one column with EventTime().")
    description = " ".join((model.__doc__ or "").split())
    return Contract(table=table, description=description, columns=columns)


def _column(table: str, name: str, field: FieldInfo) -> Column:
    where = f"{table}.{name}"
    if not _NAME.fullmatch(name):
        raise ContractError(f"{where!r} is not a column name.", fix="Use lower-case letters, digits and underscores.")
    annotation, nullable = _unwrap_optional(field.annotation)
    markers = list(field.metadata)
    # Annotated inside Optional keeps its metadata on the inner type.
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        for marker in inner:
            markers.extend(marker.metadata if isinstance(marker, FieldInfo) else [marker])
    choices = _choices(annotation)
    column_type = ColumnType("str") if choices else _column_type(annotation, markers, where)

    def has(marker: type) -> bool:
        return any(isinstance(m, marker) for m in markers)

    references = next((m for m in markers if isinstance(m, References)), None)
    rules = [Rule(name, "type", str(column_type))]
    if not nullable:
        rules.append(Rule(name, "required"))
    if choices:
        rules.append(Rule(name, "one_of", choices))
    for marker in markers:
        rules.extend(_rules(marker, name, column_type, where))
    if references:
        rules.append(Rule(name, "references", references.target))
    if has(EventTime):
        if column_type.kind != "datetime":
            raise ContractError(f"{where} is an event time but not a datetime.", fix="Declare it as datetime.")
        rules.append(Rule(name, "known_by"))
    if has(Key) and (nullable or column_type.kind in ("list", "float")):
        raise ContractError(f"{where} can't be a key: keys are required and comparable.", fix="Use int, str or date.")
    return Column(
        name=name,
        type=column_type,
        nullable=nullable,
        description=field.description or "",
        rules=tuple(rules),
        key=has(Key),
        subject=has(Subject),
        event_time=has(EventTime),
        references=references,
    )


def _unwrap_optional(annotation: object) -> tuple[object, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not types.NoneType]
        if len(inner) == 1:
            return inner[0], True
    return annotation, False


def _choices(annotation: object) -> tuple[str, ...]:
    """The values of a Literal of strings or of a string enum, else nothing."""
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        return tuple(values) if all(isinstance(v, str) for v in values) else ()
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return tuple(member.value for member in annotation)
    return ()


_SCALARS: dict[object, Kind] = {
    int: "int",
    float: "float",
    bool: "bool",
    str: "str",
    date: "date",
    datetime: "datetime",
}


def _column_type(annotation: object, markers: list[object], where: str) -> ColumnType:
    if annotation in _SCALARS:
        return ColumnType(_SCALARS[annotation])
    if annotation is AwareDatetime:
        return ColumnType("datetime")
    if annotation is Decimal:
        digits = next((d for m in markers if (d := getattr(m, "max_digits", None))), None)
        places = next((d for m in markers if (d := getattr(m, "decimal_places", None)) is not None), None)
        if digits is None or places is None or digits > 38:
            raise ContractError(
                f"{where} is a decimal without size.",
                fix="Give Field(max_digits=…, decimal_places=…), at most 38 digits.",
            )
        return ColumnType("decimal", precision=digits, scale=places)
    if get_origin(annotation) is list:
        (item,) = get_args(annotation)
        return ColumnType("list", item=_column_type(item, [], f"{where}[]"))
    raise ContractError(
        f"{where} has the type {annotation}, which no engine here can keep.",
        fix="Use int, float, Decimal, bool, str, date, datetime, Literal or StrEnum of strings, a list, or Optional.",
    )


def _rules(marker: object, name: str, column_type: ColumnType, where: str) -> list[Rule]:
    """The rules that one piece of Annotated metadata stands for."""
    bounds: list[Rule] = []
    if isinstance(marker, annotated_types.Interval):
        for kind in ("ge", "gt", "le", "lt"):
            value = getattr(marker, kind)
            if value is not None:
                bounds.append(_bound(name, kind, value, column_type, where))
        return bounds
    for cls, kind in (
        (annotated_types.Ge, "ge"),
        (annotated_types.Gt, "gt"),
        (annotated_types.Le, "le"),
        (annotated_types.Lt, "lt"),
    ):
        if isinstance(marker, cls):
            return [_bound(name, kind, getattr(marker, kind), column_type, where)]
    for length, kind in ((annotated_types.MinLen, "min_length"), (annotated_types.MaxLen, "max_length")):
        if isinstance(marker, length):
            if column_type.kind != "str":
                raise ContractError(f"{where} limits the length of a {column_type}.", fix="Only str has a length rule.")
            return [Rule(name, kind, getattr(marker, kind))]  # type: ignore[arg-type]
    pattern = getattr(marker, "pattern", None)
    if isinstance(pattern, str):
        return [Rule(name, "pattern", pattern)]
    if isinstance(marker, (Key, Subject, EventTime, References)) or hasattr(marker, "max_digits"):
        return []
    raise ContractError(
        f"{where} carries the constraint {marker!r}, which can't be checked in Delta and Deequ.",
        fix="Use ge, gt, le, lt, min_length, max_length, pattern, Literal, Key, References, EventTime or Subject.",
    )


def _bound(name: str, kind: str, value: object, column_type: ColumnType, where: str) -> Rule:
    if column_type.kind not in ("int", "float", "decimal") or not isinstance(value, (int, float, Decimal)):
        raise ContractError(
            f"{where} bounds a {column_type} by {value!r}.", fix="Bounds are for int, float and Decimal."
        )
    return Rule(name, kind, value if isinstance(value, int) else float(value))  # type: ignore[arg-type]
