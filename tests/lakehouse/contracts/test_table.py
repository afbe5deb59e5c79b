from __future__ import annotations

import enum
import itertools
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pyarrow as pa
import pytest
from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    RootModel,
    ValidationError,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
)

from lakehouse import EventTime, Key, References, Subject, Table
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.expectations import Expectation, OnlineNormal, RateOfChange
from lakehouse.contracts.patterns import check_pattern, engine_pattern
from lakehouse.contracts.table import Contract, read_contract
from lakehouse.errors import ContractError
from lakehouse.tables import Movie, Rating


class Mood(enum.StrEnum):
    CALM = "calm"
    WILD = "wild"


class Place(BaseModel):
    city: Annotated[str, Field(min_length=1, description="Town.")]
    since: date | None


class Person(BaseModel):
    name: str
    children: list[Person]


class Named(BaseModel):
    value: Annotated[int, Key()]


class Guest(BaseModel):
    guest: Annotated[int, Subject()]


class Open(BaseModel, extra="allow"):
    value: int


class Trimmed(BaseModel):
    value: str

    @field_validator("value")
    @classmethod
    def _trim(cls, value: str) -> str:
        return value.strip()


class Bytes(BaseModel):
    value: list[bytes]


class Dated(BaseModel):
    value: Annotated[date, Field(gt=date(2020, 1, 1))]


def contract_of(annotation: object, **more: object) -> Contract:
    """The contract of a table with a key and a column ``value``."""
    fields: dict[str, Any] = {"id": (Annotated[int, Key()], ...), "value": (annotation, ...), **more}
    return read_contract(create_model("Model", **fields), "things")


@pytest.mark.parametrize(
    ("annotation", "written", "arrow"),
    [
        (int, "int", pa.int64()),
        (float, "float", pa.float64()),
        (bool, "bool", pa.bool_()),
        (str, "str", pa.string()),
        (date, "date", pa.date32()),
        (datetime, "datetime", pa.timestamp("us", "UTC")),
        (AwareDatetime, "datetime", pa.timestamp("us", "UTC")),
        (Annotated[Decimal, Field(max_digits=9, decimal_places=2)], "decimal(9,2)", pa.decimal128(9, 2)),
        (Annotated[Decimal, Field(max_digits=9, decimal_places=0)], "decimal(9,0)", pa.decimal128(9, 0)),
        (Literal["a", "b"], "str", pa.string()),
        (Mood, "str", pa.string()),
        (list[str], "list[str]", pa.list_(pa.field("element", pa.string()))),
        (list[list[int]], "list[list[int]]", None),
        (Place, "{city: str, since: date?}", pa.struct([("city", pa.string()), ("since", pa.date32())])),
        (list[Place], "list[{city: str, since: date?}]", None),
    ],
)
@pytest.mark.parametrize("optional", [False, True])
def test_every_supported_type_has_a_column_type_and_an_arrow_type(
    annotation: Any, written: str, arrow: pa.DataType | None, optional: bool
) -> None:
    contract = contract_of(annotation | None if optional else annotation)
    column = contract.column("value")
    assert (str(column.type), column.nullable) == (written, optional)
    assert ("value required" in [rule.name for rule in column.rules]) is not optional
    field = arrow_schema(contract).field("value")
    assert field.nullable is optional
    assert arrow is None or field.type == arrow


@pytest.mark.parametrize(
    "annotation",
    [
        bytes,
        dict[str, int],
        set[int],
        tuple[int, int],
        time,
        object,
        BaseModel,
        int | str,
        int | str | None,
        Decimal,
        Annotated[Decimal, Field(max_digits=39, decimal_places=2)],
        Annotated[Decimal, Field(max_digits=9)],
        Literal[1, 2],
        list[bytes],
        list[Decimal],
        list[int | None],
        list[Place | None],
        Place | Named,
        Person,
        Open,
        RootModel[int],
        Bytes,
    ],
)
def test_a_type_that_no_engine_keeps_is_refused_with_its_column_named(annotation: object) -> None:
    with pytest.raises(ContractError, match=r"things\.value"):
        contract_of(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[float, Field(multiple_of=2)],
        Annotated[float, Field(le=float("inf"))],
        Annotated[list[int | None], Field()],
        list[Annotated[int, Field(ge=1)]],
        Annotated[int, Field(alias="other")],
        Annotated[bool, Field(min_length=1)],
        Annotated[float, References("users.user_id")],
        Annotated[int, References("users")],
        Annotated[str, Field(ge="a")],
        Annotated[bool, Field(ge=0)],
        Annotated[date, Field(gt=date(2020, 1, 1))],
        Annotated[str, Field(strict=True)],
        Annotated[str, EventTime()],
        Annotated[float, Key()],
        Annotated[list[str], Key()],
        Annotated[int | None, Key()],
        Annotated[Place, Key()],
        Annotated[Place, References("users.user_id")],
        Annotated[Place, Subject()],
        Annotated[Place, Field(min_length=1)],
        list[Annotated[Place, Key()]],
        Named,
        list[Guest],
        Trimmed,
        Dated,
    ],
)
def test_a_constraint_that_can_not_be_enforced_is_refused(annotation: object) -> None:
    with pytest.raises(ContractError, match=r"things\.value"):
        contract_of(annotation)


@pytest.mark.parametrize(
    "pattern", [r"^\d+$", r"(?i)a", "(?=a)", r"a\b", "[[:alpha:]]", "a++", "a|*", "{2}", "(", r"\Z", "[a&&b]"]
)
def test_a_pattern_that_engines_read_differently_is_refused(pattern: str) -> None:
    with pytest.raises(ContractError, match=r"things\.value"):
        check_pattern("things.value", pattern)


@pytest.mark.parametrize("pattern", [r"^a[^a-z0-9_.-]*$", "(?:ab|c){2,3}?", r"\$\.", "[0-9]{4}-[0-9]{2}", "é+", ""])
def test_a_pattern_of_the_common_part_is_taken(pattern: str) -> None:
    check_pattern("things.value", pattern)


def test_the_engines_pattern_ends_at_the_very_end_and_leaves_classes_alone() -> None:
    assert engine_pattern(r"^a.[.$]\.$") == r"^a[^\n][.$]\.\z"


def layout(**arguments: Any) -> Contract:
    columns: dict[str, Any] = {
        "id": (Annotated[int, Key(), Subject()], ...),
        "day": (date, ...),
        "score": (float, ...),
        "note": (str | None, ...),
        "tags": (list[str], ...),
    }
    return read_contract(create_model("Laid", **columns), "things", **arguments)


def test_layout_and_expectations_are_kept_and_only_expectations_are_in_the_fingerprint() -> None:
    mean = Expectation("Mean", ("score",), ge=1, le=4.5)
    laid = layout(partition_by=("day",), cluster_by=("id", "score"))
    assert (laid.partition_by, laid.cluster_by) == (("day",), ("id", "score"))
    assert laid.fingerprint == layout().fingerprint
    assert layout(expectations=(mean,)).fingerprint != layout().fingerprint
    assert mean.name == "Mean(score) ge 1 le 4.5"


@pytest.mark.parametrize(
    "arguments",
    [
        {"partition_by": ("dya",)},
        {"partition_by": ("day", "day")},
        {"partition_by": ("score",)},
        {"partition_by": ("tags",)},
        {"partition_by": ("note",)},
        {"partition_by": ("id",)},
        {"cluster_by": ("tags",)},
        {"cluster_by": ("day",), "partition_by": ("day",)},
        {"fresh_within": timedelta(days=1)},
        {"expectations": (Expectation("Mean", ("scroe",), ge=1),)},
        {"expectations": (Expectation("Mean", ("note",), ge=1),)},
        {"expectations": (Expectation("Mean", ("score",)),)},
        {"expectations": (Expectation("Mean", (), ge=1),)},
        {"expectations": (Expectation("Completeness", ("tags",), ge=1),)},
        {"expectations": (Expectation("Completeness", ("note",), ge=1.5),)},
        {"expectations": (Expectation("Mean", ("score",), ge=2, le=1),)},
        {"expectations": (Expectation("Mean", ("score",), ge=float("nan")),)},
        {"expectations": (Expectation("ApproxQuantile", ("score",), ge=1),)},
        {"expectations": (Expectation("Mean", ("score",), ge=1, quantile=0.5),)},
        {"expectations": (Expectation("Compliance", (), ge=1),)},
        {"expectations": (Expectation("Size", history=RateOfChange()),)},
        {"expectations": (Expectation("Size", history=OnlineNormal(below=0)),)},
        {"expectations": (Expectation("Size", ge=1, history=OnlineNormal()),)},
        {"expectations": (Expectation("Average", ("score",), ge=1),)},  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_a_layout_or_expectation_that_can_not_be_kept_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="things"):
        layout(**arguments)


def test_what_only_python_would_check_is_refused() -> None:
    class Checked(BaseModel):
        id: Annotated[int, Key()]

        @field_validator("id")
        @classmethod
        def _even(cls, value: int) -> int:
            return value

    with pytest.raises(ContractError, match="_even"):
        read_contract(Checked, "things")


def test_a_serializer_or_a_computed_field_is_refused_by_name() -> None:
    class Serialized(BaseModel):
        id: Annotated[int, Key()]

        @field_serializer("id")
        def _as_text(self, value: int) -> str:
            return str(value)

    class Whole(BaseModel):
        id: Annotated[int, Key()]

        @model_serializer
        def _as_list(self) -> list[int]:
            return [self.id]

    class Computed(BaseModel):
        id: Annotated[int, Key()]

        @computed_field  # type: ignore[prop-decorator]
        @property
        def double(self) -> int:
            return 2 * self.id

    for model, said in ((Serialized, "serializer '_as_text'"), (Whole, "'_as_list'"), (Computed, "field 'double'")):
        with pytest.raises(ContractError, match=said):
            read_contract(model, "things")


def test_bounds_of_decimals_are_kept_digit_by_digit() -> None:
    size: Any = {"max_digits": 30, "decimal_places": 12}
    low, high = Decimal("0.100000000000"), Decimal("123456789012345678.000000000001")
    contract = contract_of(Annotated[Decimal, Field(ge=low, lt=high, **size)])
    assert {rule.name for rule in contract.rules} >= {"value ge 0.100000000000", f"value lt {high}"}
    whole = contract_of(Annotated[Decimal, Field(gt=Decimal("1E+2"), le=1000, **size)])
    assert [(rule.kind, rule.value) for rule in whole.rules if rule.kind in ("gt", "le")] == [("gt", 100), ("le", 1000)]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotated[Decimal, Field(ge=0.1, max_digits=4, decimal_places=2)], r"decimal\(4,2\) by a float"),
        (Annotated[Decimal, Field(ge=Decimal("Infinity"), max_digits=4, decimal_places=2)], "Infinity"),
        (Annotated[int, Field(ge=Decimal(1))], "bounds a int by a Decimal"),
        (Annotated[float, Field(lt=Decimal("0.1"))], "bounds a float by a Decimal"),
    ],
)
def test_a_bound_of_another_kind_of_number_is_refused(annotation: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        contract_of(annotation)


@pytest.mark.parametrize(
    "kind", [float, bool, date, datetime, list[str], Annotated[Decimal, Field(max_digits=4, decimal_places=0)]]
)
def test_a_person_is_identified_by_a_number_or_a_text_alone(kind: Any) -> None:
    for allowed in (int, str):
        assert contract_of(Annotated[allowed, Subject()]).column("value").subject
    with pytest.raises(ContractError, match="can't identify a person"):
        contract_of(Annotated[kind, Subject()])


def test_an_unknown_class_argument_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ContractError, match="partition_by"):

        class Mistyped(Table, name="mistyped", partiton_by=("day",)):
            id: Annotated[int, Key()]


def test_every_supported_constraint_is_a_rule_with_a_name() -> None:
    contract = contract_of(
        Annotated[float, Field(ge=0.5, lt=5)],
        count=(Annotated[int | None, Field(gt=0, le=9)], None),
        text=(Annotated[str, Field(min_length=1, max_length=4, pattern="^a")], ...),
        mood=(Literal["x", "y"], ...),
        other=(Annotated[int, References("users.user_id")], ...),
        at=(Annotated[datetime, EventTime()], ...),
    )
    names = {rule.name for rule in contract.rules}
    assert names >= {
        "id type int",
        "id required",
        "value ge 0.5",
        "value lt 5",
        "count gt 0",
        "count le 9",
        "text min_length 1",
        "text max_length 4",
        "text pattern ^a",
        "mood one_of x|y",
        "other references users.user_id",
        "at known_by",
    }
    assert "count required" not in names
    assert (contract.key, contract.event_time) == (("id",), "at")


def test_the_rules_of_nested_fields_are_rules_of_their_column_with_a_path() -> None:
    contract = contract_of(Place, trips=(Annotated[list[Place], Field(max_length=3)], ...), home=(Place | None, None))
    assert {rule.name for rule in contract.rules} - {"id type int", "id required"} == {
        "value type {city: str, since: date?}",
        "value required",
        "value.city required",
        "value.city min_length 1",
        "trips type list[{city: str, since: date?}]",
        "trips required",
        "trips[].city required",
        "trips[].city min_length 1",
        "trips max_length 3",
        "home type {city: str, since: date?}",
        "home.city required",
        "home.city min_length 1",
    }
    rule = next(rule for rule in contract.rules if rule.name == "trips[].city min_length 1")
    assert (rule.top, rule.steps) == ("trips", ("trips", "[]", "city"))
    nested = arrow_schema(contract).field("value").type.field("city")
    assert (nested.metadata, nested.nullable) == ({b"comment": b"Town."}, True)


def test_a_table_needs_a_name_a_key_and_at_most_one_event_time() -> None:
    with pytest.raises(ContractError, match="names no table"):

        class Nameless(Table):
            id: Annotated[int, Key()]

    for name in ("Ratings", "1st", "a-b", "a b", "", "_x", "a" * 64):
        with pytest.raises(ContractError, match="not a table name"):

            class Misnamed(Table, name=name):
                id: Annotated[int, Key()]

    with pytest.raises(ContractError, match="no key"):
        read_contract(create_model("Keyless", value=(int, ...)), "things")
    two = {name: (Annotated[datetime, EventTime()], ...) for name in ("a", "b")}
    with pytest.raises(ContractError, match="two event times"):
        contract_of(int, **two)
    with pytest.raises(ContractError, match="not a column name"):
        contract_of(int, Value=(int, ...))


def test_the_fingerprint_changes_with_each_rule_and_not_with_a_description() -> None:
    plain = contract_of(Annotated[int, Field(ge=1)])
    described = contract_of(Annotated[int, Field(ge=1, description="What it is.")])
    assert plain.fingerprint == described.fingerprint
    assert plain.column("value").description != described.column("value").description
    others = [
        contract_of(annotation)
        for annotation in (
            int,
            Annotated[int, Field(ge=2)],
            Annotated[int, Field(gt=1)],
            Annotated[float, Field(ge=1)],
            Annotated[int | None, Field(ge=1)],
            Annotated[int, Field(ge=1), Key()],
            Annotated[int, Field(ge=1), Subject()],
            Annotated[int, Field(ge=1), References("users.user_id")],
            Literal["a"],
            Literal["a", "b"],
        )
    ]
    for one, other in itertools.combinations([plain, *others], 2):
        assert one.fingerprint != other.fingerprint, (one, other)


def test_descriptions_become_comments_of_the_arrow_columns() -> None:
    schema = arrow_schema(Rating.contract)
    assert schema.names == ["user_id", "item_id", "rating", "rated_at"]
    assert schema.field("rating").metadata == {b"comment": b"Stars, from 0.5 to 5."}
    assert arrow_schema(contract_of(int)).field("value").metadata is None
    assert Rating.contract.description == "One user's rating of one movie."


def test_rows_go_to_arrow_and_back_unchanged() -> None:
    movie = Movie.model_validate(
        {"item_id": 1, "title": "Heat", "year": None, "genres": ["Crime", "Drama"], "added_at": "1997-09-20T03:05:10Z"}
    )
    table = to_arrow(Movie, [movie])
    assert table.schema == arrow_schema(Movie.contract)
    assert [Movie.model_validate(row) for row in table.to_pylist()] == [movie]


def test_a_row_keeps_its_rules_and_takes_no_unknown_column() -> None:
    good = {"user_id": 1, "item_id": 2, "rating": 4.5, "rated_at": "1998-03-01T00:00:00Z"}
    Rating.model_validate(good)
    for defect in ({"rating": 5.5}, {"rating": float("nan")}, {"extra": 1}, {"user_id": None}):
        with pytest.raises(ValidationError):
            Rating.model_validate({**good, **defect})


def test_a_constraint_inside_an_optional_is_a_rule_too() -> None:
    contract = contract_of(Annotated[int, Field(ge=1)] | None)
    assert [rule.name for rule in contract.column("value").rules] == ["value type int", "value ge 1"]
    assert contract.fingerprint == contract_of(Annotated[int | None, Field(ge=1)]).fingerprint
