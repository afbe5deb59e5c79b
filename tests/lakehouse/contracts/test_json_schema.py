"""The JSON Schema of a row: valid in itself, and of one mind with the row model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import BaseModel, Field, ValidationError, create_model

from features.generated import row_lists
from lakehouse import Key
from lakehouse.contracts.json_schema import json_schema
from lakehouse.contracts.table import Table, read_contract
from lakehouse.tables import Movie, MovieCard, Rating, User

FORMATS = FormatChecker(formats=["date"])


@FORMATS.checks("date-time", raises=ValueError)
def is_instant(value: object) -> bool:
    """RFC 3339: with an offset."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def validator(row_model: type[Table]) -> Draft202012Validator:
    return Draft202012Validator(cast(Mapping[str, Any], json_schema(row_model.contract)), format_checker=FORMATS)


class Box(BaseModel):
    label: Annotated[str, Field(min_length=1, max_length=3)]
    grams: Annotated[int | None, Field(ge=1, le=9)]


class Delivery(Table, name="deliveries_as_json"):
    delivery_id: Annotated[int, Key()]
    box: Box | None
    boxes: Annotated[list[Box], Field(min_length=1)]


PART: dict[str, object] = {
    "code": "AB",
    "price": "9.90",
    "weight": None,
    "made_at": "1998-03-01T12:00:00Z",
    "maker": {"name": "Ann", "founded": "1990-01-01"},
    "sizes": [1],
    "mood": None,
}

#: One defect of a column's value each, and the tables that have the column.
DEFECTS: list[tuple[str, object]] = [
    ("number", -6),
    ("number", 5001),
    ("number", 1.5),
    ("number", None),
    ("code", ""),
    ("code", "0123456789"),
    ("even", 3),
    ("share", 0),
    ("share", 1),
    ("level", "loud"),
    ("price", "1.234"),
    ("price", "12345678.00"),
    ("ratio", "1.0"),
    ("huge", "0.5"),
    ("huge", "9" * 39),
    ("tiny", "123.5"),
    ("ready", None),
    ("sure", 7),
    ("note", 1),
    ("plate", "abc"),
    ("plate", "x A-1"),
    ("mood", "mild"),
    ("size", "m"),
    ("born", "1998-02-30"),
    ("at", "yesterday"),
    ("until", "1998-02-30T00:00:00Z"),
    ("tags", ["a", "b", "c", "d"]),
    ("tags", [None]),
    ("tags", "a"),
    ("scores", []),
    ("scores", ["high"]),
    ("grid", [1]),
    ("maker", None),
    ("maker", "Ann"),
    ("maker", {"name": "", "founded": None}),
    ("maker", {"name": "Ann", "founded": "1998-02-30"}),
    ("spare", PART | {"code": "abc"}),
    ("spare", PART | {"maker": {"name": "0123456789", "founded": None}}),
    ("spare", PART | {"mood": "mild"}),
    ("parts", [PART | {"weight": 0}]),
    ("parts", [PART | {"price": "1.234"}]),
    ("parts", [PART | {"sizes": [1, 2, 3, 4]}]),
    ("parts", [PART, PART, PART]),
    ("parts", [None]),
    ("parts", [{name: value for name, value in PART.items() if name != "made_at"}]),
    ("unknown", 1),
]


def good() -> dict[str, object]:
    return {
        "number": 1,
        "code": "a",
        "even": 2,
        "share": 0.5,
        "level": None,
        "price": "9.90",
        "ratio": "0.5",
        "huge": "9" * 38,
        "tiny": "1E-10",
        "ready": True,
        "sure": None,
        "note": None,
        "plate": "AB-12",
        "mood": "calm",
        "size": None,
        "born": "1998-03-01",
        "left": None,
        "at": "1998-03-01T12:00:00Z",
        "until": "1998-03-01T12:00:00.5+02:00",
        "tags": ["a"],
        "scores": None,
        "grid": [[1], []],
        "maker": {"name": "Ann", "founded": None},
        "spare": None,
        "parts": [PART],
    }


@pytest.mark.parametrize("row_model", [User, Movie, MovieCard, Rating, "every_kind"], ids=str)
def test_the_schema_is_a_valid_schema(row_model: type[Table] | str, every_kind: type[Table]) -> None:
    schema = json_schema(every_kind.contract if isinstance(row_model, str) else row_model.contract)
    Draft202012Validator.check_schema(cast(Mapping[str, Any], schema))
    json.dumps(schema, allow_nan=False)


@pytest.mark.parametrize("row_model", [User, Movie, MovieCard, Rating])
@settings(derandomize=True, deadline=None, max_examples=20)
@given(data=st.data())
def test_what_a_row_model_takes_and_writes_as_json_is_valid(row_model: type[Table], data: st.DataObject) -> None:
    for row in data.draw(row_lists(row_model.contract, row_model.contract.names, max_size=4)):
        written = json.loads(row_model.model_validate(row).model_dump_json())
        assert list(validator(row_model).iter_errors(written)) == []


@settings(derandomize=True, deadline=None, max_examples=20)
@given(data=st.data())
def test_rows_that_are_made_of_a_contract_keep_its_rules_at_every_depth(data: st.DataObject) -> None:
    for row in data.draw(row_lists(Delivery.contract, Delivery.contract.names, max_size=4)):
        written = json.loads(Delivery.model_validate(row).model_dump_json())
        assert list(validator(Delivery).iter_errors(written)) == []


@settings(derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_of_every_kind_is_valid_as_json(
    every_kind: type[Table], every_row: st.SearchStrategy[Table], data: st.DataObject
) -> None:
    written = json.loads(data.draw(every_row).model_dump_json())
    assert list(validator(every_kind).iter_errors(written)) == []


@pytest.mark.parametrize(("column", "value"), DEFECTS)
def test_what_the_row_model_refuses_is_not_valid_and_the_column_is_named(
    every_kind: type[Table], column: str, value: object
) -> None:
    every_kind.model_validate(good())
    assert validator(every_kind).is_valid(good())
    broken = good() | {column: value}
    with pytest.raises(ValidationError):
        every_kind.model_validate(broken)
    (error,) = {(*error.path, error.message): error for error in validator(every_kind).iter_errors(broken)}.values()
    assert column in error.path or column in error.message


@pytest.mark.parametrize("column", sorted(good()))
def test_a_required_column_must_be_there_and_an_optional_one_may_be_left_out(
    every_kind: type[Table], column: str
) -> None:
    row = {name: value for name, value in good().items() if name != column}
    assert validator(every_kind).is_valid(row) is every_kind.contract.column(column).nullable


def test_a_nested_model_is_an_object_that_takes_its_own_fields_alone(every_kind: type[Table]) -> None:
    schema = cast(dict[str, Any], json_schema(every_kind.contract))["properties"]
    assert schema["maker"]["description"] == "Who made it."
    assert schema["maker"]["properties"]["name"] == {
        "type": "string",
        "description": "Its name.",
        "minLength": 1,
        "maxLength": 9,
    }
    part = schema["parts"]["items"]
    assert (part["type"], schema["spare"]["type"], schema["parts"]["maxItems"]) == ("object", ["object", "null"], 2)
    assert part["required"] == ["code", "price", "made_at", "sizes"]
    assert part["properties"]["price"]["x-bounds"] == {"ge": "0"}
    assert part["properties"]["maker"]["type"] == ["object", "null"]
    assert not validator(every_kind).is_valid(good() | {"parts": [PART | {"colour": "red"}]})


def test_what_holds_for_more_than_one_value_is_said_in_keywords_of_its_own(every_kind: type[Table]) -> None:
    schema = cast(dict[str, Any], json_schema(Rating.contract))
    assert (schema["x-key"], schema["x-event-time"]) == (["user_id", "item_id"], "rated_at")
    assert schema["x-expectations"] == ["Mean(rating) ge 2.5 le 4.5", "Size() to the version before ge 0.9"]
    assert schema["x-fresh-within-seconds"] == 2 * 24 * 3600
    assert schema["description"] == "One user's rating of one movie."
    assert schema["properties"]["user_id"] == {
        "type": "integer",
        "format": "int64",
        "description": "Who rated.",
        "x-subject": True,
        "x-references": "users.user_id",
    }
    price = cast(dict[str, Any], json_schema(every_kind.contract))["properties"]["price"]
    assert price["x-bounds"] == {"ge": "0"}


def laid_out() -> dict[str, Any]:
    columns: dict[str, Any] = {
        "number": (Annotated[int, Key()], ...),
        "day": (date, ...),
        "word": (Annotated[str, Field(pattern=r"^a.\-[.\-]\.$")], ...),
        "rank": (Annotated[Annotated[int, Field(le=7)] | None, Field(le=9)], ...),
    }
    contract = read_contract(create_model("Laid", **columns), "laid", partition_by=("day",), cluster_by=("number",))
    return cast(dict[str, Any], json_schema(contract))


def test_layout_is_said_too() -> None:
    assert (laid_out()["x-partition-by"], laid_out()["x-cluster-by"]) == (["day"], ["number"])


def test_a_pattern_means_the_same_to_the_engine_of_json_schema() -> None:
    assert laid_out()["properties"]["word"]["pattern"] == r"^a[^\n]-[.\-]\.$"


def test_of_two_bounds_both_hold() -> None:
    rank = Draft202012Validator(laid_out()["properties"]["rank"])
    assert [rank.is_valid(value) for value in (None, 7, 8, 10)] == [True, True, False, False]
