"""The empty Delta table of a contract, and what Delta itself keeps of it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError
from pydantic import Field, create_model

from lakehouse import Key, Lakehouse
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.contract import Contract
from lakehouse.contracts.delta_schema import check_constraints, create, create_table
from lakehouse.contracts.differences import same_type
from lakehouse.contracts.table import Table, read_contract
from lakehouse.snapshot import open_delta, schema_of
from lakehouse.tables import Rating


def bounded() -> Contract:
    """A table with bounds on columns of every kind that takes them."""
    columns: dict[str, Any] = {
        "id": (Annotated[int, Key(), Field(ge=1)], ...),
        "day": (date, ...),
        "share": (Annotated[float | None, Field(gt=0, le=0.5)], ...),
        "far": (Annotated[int, Field(lt=10**19)], ...),
        "near": (Annotated[float, Field(ge=1e-16)], ...),
        "price": (Annotated[Decimal, Field(ge=0, max_digits=9, decimal_places=2)], ...),
        "name": (Annotated[str, Field(min_length=1)], ...),
        "both": (Annotated[int, Field(ge=0, lt=10**19)], ...),
    }
    return read_contract(
        create_model("Bounded", __doc__="What is bounded.", **columns), "bounded", partition_by=("day",)
    )


def test_bounds_of_int_and_float_become_check_constraints_and_other_rules_do_not() -> None:
    assert check_constraints(bounded()) == {
        "id_range": "id >= 1",
        "share_range": "(share IS NULL OR share > 0) AND (share IS NULL OR share <= 0.5)",
        "both_range": "both >= 0",
    }


def test_a_new_table_has_the_contracts_words_layout_and_constraints(lake: Lakehouse) -> None:
    create(lake.uri("bounded"), bounded())
    metadata = open_delta(lake.uri("bounded")).metadata()
    assert (metadata.name, metadata.description, metadata.partition_columns) == ("bounded", "What is bounded.", ["day"])
    kept = {name.removeprefix("delta.constraints.") for name in metadata.configuration if "constraints" in name}
    assert kept == {"id_range", "share_range", "both_range"}


def test_nested_fields_keep_their_comments_in_delta(lake: Lakehouse, every_kind: type[Table]) -> None:
    create(lake.uri("every_kind"), every_kind.contract)
    schema = schema_of(open_delta(lake.uri("every_kind")))
    assert schema.field("maker").metadata[b"comment"] == b"Who made it."
    assert schema.field("maker").type.field("name").metadata == {b"comment": b"Its name."}
    assert same_type(schema.field("parts").type, arrow_schema(every_kind.contract).field("parts").type)
    assert check_constraints(every_kind.contract).keys() == {"number_range", "share_range"}, "of columns alone"


def test_making_a_table_that_is_there_leaves_it_alone(lake: Lakehouse) -> None:
    create_table(lake, Rating.contract)
    version = open_delta(lake.uri("ratings")).version()
    create_table(lake, Rating.contract)
    assert open_delta(lake.uri("ratings")).version() == version


def test_no_engine_may_clean_up_the_log_of_a_table(lake: Lakehouse) -> None:
    """The commits of pinned versions must stay."""
    create_table(lake, Rating.contract)
    assert open_delta(lake.uri("ratings")).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"


def test_a_null_keeps_the_bounds_of_an_optional_column(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_registry", dict(Table._registry))

    class Scored(Table, name="scored"):
        id: Annotated[int, Key()]
        score: Annotated[float | None, Field(ge=1, le=2)]

    uri = lake.uri("scored")
    create_table(lake, Scored.contract)
    write_deltalake(uri, to_arrow(Scored, [Scored(id=1, score=None), Scored(id=2, score=1.5)]), mode="append")
    for wrong in (0.5, 2.5):
        with pytest.raises(DeltaError):
            write_deltalake(uri, to_arrow(Scored, [Scored.model_construct(id=3, score=wrong)]), mode="append")
