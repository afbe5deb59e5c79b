"""What does a pydantic model say in a contract's words? Read once, and what no engine can keep is refused."""

from __future__ import annotations

import enum
import math
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AwareDatetime, BaseModel, RootModel
from pydantic.fields import FieldInfo

from lakehouse.contracts.contract import (
    Column,
    ColumnType,
    Contract,
    EventTime,
    Key,
    Kind,
    Member,
    References,
    Rule,
    RuleKind,
    Subject,
)
from lakehouse.contracts.expectations import Expectation, check_expectation
from lakehouse.contracts.layout import check_layout
from lakehouse.contracts.patterns import check_pattern
from lakehouse.errors import ContractError

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def read_contract(
    model: type[BaseModel],
    table: str,
    *,
    partition_by: Sequence[str] = (),
    cluster_by: Sequence[str] = (),
    change_feed: bool = False,
    fresh_within: timedelta | None = None,
    expectations: Sequence[Expectation] = (),
) -> Contract:
    """Read a pydantic model's fields into a Contract; ContractError for what no engine can keep."""
    _check_model(model, table)
    columns = tuple(_column(table, name, field) for name, field in model.model_fields.items())
    if not any(column.key for column in columns):
        raise ContractError(f"Table {table!r} has no key.", fix="Mark the identifying column(s) with Key().")
    if sum(column.event_time for column in columns) > 1:
        raise ContractError(f"Table {table!r} has two event times.", fix="Mark one column with EventTime().")
    contract = Contract(
        table=table,
        description=" ".join((model.__doc__ or "").split()),
        columns=columns,
        partition_by=tuple(partition_by),
        cluster_by=tuple(cluster_by),
        change_feed=change_feed,
        fresh_within=fresh_within,
        expectations=tuple(expectations),
    )
    check_layout(contract)
    types_by_name = {column.name: column.type for column in columns}
    for expectation in contract.expectations:
        check_expectation(table, expectation, types_by_name)
    return contract


#: Kinds whose values no key and no reference can be made of.
_NOT_COMPARED = ("list", "struct", "float")


@dataclass(frozen=True)
class _Place:
    """A column or the elements of one: type, rules and markers."""

    type: ColumnType
    nullable: bool
    rules: tuple[Rule, ...]
    markers: tuple[object, ...]


def _column(table: str, name: str, field: FieldInfo) -> Column:
    where = f"{table}.{name}"
    _check_field(where, name, field)
    place = _place(table, name, field.annotation, field.metadata)
    rules = list(place.rules)

    def has(marker: type) -> bool:
        return any(isinstance(m, marker) for m in place.markers)

    references = next((m for m in place.markers if isinstance(m, References)), None)
    if references:
        if place.type.kind in _NOT_COMPARED:
            raise ContractError(
                f"{where} references {references.target} as a {place.type}.",
                fix="Reference a column of the same type: int, str, date.",
            )
        if not (NAME.fullmatch(references.table) and NAME.fullmatch(references.column)):
            raise ContractError(
                f"{where} references {references.target!r}, which is no column.",
                fix="Write References('table.column').",
            )
        rules.append(Rule(name, "references", references.target))
    if has(EventTime):
        if place.type.kind != "datetime":
            raise ContractError(f"{where} is an event time but not a datetime.", fix="Declare it as datetime.")
        rules.append(Rule(name, "known_by"))
    if has(Key) and (place.nullable or place.type.kind in _NOT_COMPARED):
        raise ContractError(f"{where} can't be a key: keys are required and comparable.", fix="Use int, str or date.")
    if has(Subject) and place.type.kind not in ("int", "str"):
        raise ContractError(f"{where} can't identify a person as a {place.type}.", fix="Use int or str.")
    return Column(
        name=name,
        type=place.type,
        nullable=place.nullable,
        description=field.description or "",
        rules=tuple(rules),
        key=has(Key),
        subject=has(Subject),
        event_time=has(EventTime),
        references=references,
    )


def _place(
    table: str, path: str, annotation: object, metadata: Sequence[object], above: tuple[type[BaseModel], ...] = ()
) -> _Place:
    """Read one annotation and all below it.

    Args:
        table: for messages.
        path: the column's name, with ``[]`` for its elements and ``.name`` for a nested model's field.
        annotation: the type.
        metadata: of the field.
        above: the nested models that it stands in.
    """
    where = f"{table}.{path}"
    annotation, nullable = _unwrap_optional(annotation)
    markers = list(metadata)
    # Annotated inside Optional keeps its metadata on the inner type.
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        for marker in inner:
            markers.extend(marker.metadata if isinstance(marker, FieldInfo) else [marker])
        annotation, optional = _unwrap_optional(annotation)
        nullable = nullable or optional
    choices = _choices(annotation)
    below: tuple[Rule, ...] = ()
    if choices:
        column_type = ColumnType("str")
    elif get_origin(annotation) is list:
        item = _place(table, f"{path}[]", get_args(annotation)[0], (), above)
        if item.nullable or item.markers or any(rule.column == f"{path}[]" for rule in item.rules):
            raise ContractError(
                f"{where} is a list whose elements are optional, marked or bound by rules.",
                fix="Declare a list of plain values, and leave out of it what is not there.",
            )
        column_type = ColumnType("list", item=item.type)
        below = item.rules
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        column_type, below = _struct(table, path, annotation, above)
    else:
        column_type = _scalar(annotation, markers, where)
    rules = []
    if path.isidentifier():  # the types of all that is nested in it are part of the column's own
        rules.append(Rule(path, "type", str(column_type)))
    if not nullable and not path.endswith("[]"):  # that a list's elements are there is part of its type
        rules.append(Rule(path, "required"))
    if choices:
        rules.append(Rule(path, "one_of", choices))
    for marker in markers:
        rules.extend(_rules(marker, path, column_type, where))
    return _Place(column_type, nullable, (*rules, *below), tuple(markers))


def _struct(
    table: str, path: str, model: type[BaseModel], above: tuple[type[BaseModel], ...]
) -> tuple[ColumnType, tuple[Rule, ...]]:
    """A nested model's type and the rules of its fields."""
    where = f"{table}.{path}"
    if model in above:
        raise ContractError(
            f"{where} holds {model.__name__}, which holds itself.", fix="Give the parts rows and keys of their own."
        )
    if issubclass(model, RootModel) or not model.model_fields or model.model_config.get("extra") == "allow":
        raise ContractError(
            f"{where} holds {model.__name__}, whose fields are not all declared.",
            fix="Nest a model with named fields that takes no others.",
        )
    _check_model(model, where)
    members: list[Member] = []
    rules: list[Rule] = []
    for name, field in model.model_fields.items():
        _check_field(f"{where}.{name}", name, field)
        place = _place(table, f"{path}.{name}", field.annotation, field.metadata, (*above, model))
        marker = next((m for m in place.markers if isinstance(m, (Key, Subject, EventTime, References))), None)
        if marker is not None:
            raise ContractError(
                f"{where}.{name} is a {type(marker).__name__} within a nested model, where no engine looks for one.",
                fix="Make it a column of its own.",
            )
        members.append(Member(name, place.type, place.nullable, field.description or ""))
        rules.extend(place.rules)
    return ColumnType("struct", members=tuple(members)), tuple(rules)


def _check_model(model: type[BaseModel], where: str) -> None:
    """ContractError for what would hold in Python alone: a batch is judged by Spark, which never calls it."""
    decorators = model.__pydantic_decorators__
    for kind, found in (
        ("validator", {**decorators.validators, **decorators.field_validators, **decorators.root_validators}),
        ("validator", decorators.model_validators),
        ("serializer", {**decorators.field_serializers, **decorators.model_serializers}),
        ("computed field", decorators.computed_fields),
    ):
        if found:
            raise ContractError(
                f"{model.__name__} ({where}) has the {kind} {min(found)!r}, which only Python can run.",
                fix="Say it with field constraints, or compute it before the rows are staged.",
            )


def _check_field(where: str, name: str, field: FieldInfo) -> None:
    if not NAME.fullmatch(name):
        raise ContractError(f"{where!r} is not a column name.", fix="Use lower-case letters, digits and underscores.")
    if field.alias or field.validation_alias or field.serialization_alias:
        raise ContractError(f"{where} has an alias.", fix="Name the field as the column is to be called.")
    if field.discriminator or field.exclude:
        raise ContractError(
            f"{where} is left out of a row or chosen by a discriminator.", fix="Declare plain fields only."
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
        return tuple(str(v) for v in values) if all(isinstance(v, str) for v in values) else ()
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
    AwareDatetime: "datetime",
}


def _scalar(annotation: object, markers: list[object], where: str) -> ColumnType:
    kind = next((kind for known, kind in _SCALARS.items() if annotation is known), None)
    if kind is not None:
        return ColumnType(kind)
    if annotation is Decimal:
        digits = next((d for m in markers if (d := getattr(m, "max_digits", None))), None)
        places = next((d for m in markers if (d := getattr(m, "decimal_places", None)) is not None), None)
        if digits is None or places is None or digits > 38 or places > digits:
            raise ContractError(
                f"{where} is a decimal without size.",
                fix="Give Field(max_digits=…, decimal_places=…), at most 38 digits.",
            )
        return ColumnType("decimal", precision=digits, scale=places)
    raise ContractError(
        f"{where} has the type {annotation}, which no engine here can keep.",
        fix="Use int, float, Decimal, bool, str, date, datetime, Literal or StrEnum of strings, a pydantic model, "
        "a list or Optional of these.",
    )


_BOUNDS: tuple[tuple[type, RuleKind], ...] = (
    (annotated_types.Ge, "ge"),
    (annotated_types.Gt, "gt"),
    (annotated_types.Le, "le"),
    (annotated_types.Lt, "lt"),
)


def _rules(marker: object, path: str, column_type: ColumnType, where: str) -> list[Rule]:
    """The rules that one piece of Annotated metadata stands for."""
    if isinstance(marker, annotated_types.Interval):
        given = [(kind, getattr(marker, kind)) for _, kind in _BOUNDS]
        return [_bound(path, kind, value, column_type, where) for kind, value in given if value is not None]
    for cls, kind in _BOUNDS:
        if isinstance(marker, cls):
            return [_bound(path, kind, getattr(marker, kind), column_type, where)]
    if isinstance(marker, annotated_types.MultipleOf):
        return [_multiple_of(path, marker.multiple_of, column_type, where)]
    if isinstance(marker, annotated_types.Len):
        limits = [annotated_types.MinLen(marker.min_length)] if marker.min_length else []
        more = [annotated_types.MaxLen(marker.max_length)] if marker.max_length is not None else []
        return [rule for limit in (*limits, *more) for rule in _rules(limit, path, column_type, where)]
    if isinstance(marker, (annotated_types.MinLen, annotated_types.MaxLen)):
        kind = "min_length" if isinstance(marker, annotated_types.MinLen) else "max_length"
        if column_type.kind not in ("str", "list"):
            raise ContractError(
                f"{where} limits the length of a {column_type}.", fix="Only str and list have a length."
            )
        return [Rule(path, kind, getattr(marker, kind))]
    pattern = getattr(marker, "pattern", None)
    if isinstance(pattern, str) and column_type.kind == "str":
        check_pattern(where, pattern)
        return [Rule(path, "pattern", pattern)]
    if isinstance(marker, (Key, Subject, EventTime, References)) or hasattr(marker, "max_digits"):
        return []
    raise ContractError(
        f"{where} carries the constraint {marker!r}, which can't be checked in Delta and Deequ.",
        fix="Use ge, gt, le, lt, multiple_of, min_length, max_length, pattern (text), Literal, Key, References, "
        "EventTime or Subject.",
    )


def _bound(path: str, kind: RuleKind, value: object, column_type: ColumnType, where: str) -> Rule:
    if column_type.kind not in ("int", "float", "decimal") or not _is_finite_number(value):
        raise ContractError(
            f"{where} bounds a {column_type} by {value!r}.",
            fix="Bounds are finite numbers, for int, float and Decimal.",
        )
    if isinstance(value, Decimal):
        if column_type.kind != "decimal":
            raise ContractError(f"{where} bounds a {column_type} by a Decimal.", fix="Write the bound as int or float.")
        return Rule(path, kind, int(value) if value == value.to_integral_value() else format(value, "f"))
    assert isinstance(value, (int, float))
    if column_type.kind == "decimal" and isinstance(value, float):
        raise ContractError(f"{where} bounds a {column_type} by a float.", fix=f"Write Decimal('{value}').")
    return Rule(path, kind, value)


def _multiple_of(path: str, value: object, column_type: ColumnType, where: str) -> Rule:
    """Whole multiples of a whole number: for others, engines divide floats and disagree about the rest."""
    whole = isinstance(value, int) and value > 0
    if column_type.kind != "int" or not whole:
        raise ContractError(
            f"{where} must be a multiple of {value!r} as a {column_type}.",
            fix="Use multiple_of with an int above 0, for int; a Decimal's steps are its decimal_places.",
        )
    assert isinstance(value, int)
    return Rule(path, "multiple_of", value)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) and math.isfinite(value)
