"""A contract as a page of Markdown."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, create_model

from lakehouse import EventTime, Key, References, Subject
from lakehouse.contracts.expectations import Expectation
from lakehouse.contracts.reference import markdown
from lakehouse.contracts.table import read_contract


def page(doc: str = "What people said.", note: str = "", **arguments: Any) -> str:
    columns: dict[str, Any] = {
        "id": (Annotated[int, Key(), Subject(), References("users.user_id"), Field(description="Who.")], ...),
        "day": (date, ...),
        "at": (Annotated[datetime, EventTime()], ...),
        "word": (Annotated[str | None, Field(pattern="^a|b$", max_length=9, description=note)], None),
    }
    model = create_model("Said", __doc__=doc, **columns)
    return markdown(read_contract(model, "said", **arguments))


def test_a_page_has_the_tables_words_columns_roles_and_rules() -> None:
    assert page() == "\n".join(
        [
            "# said",
            "",
            "What people said.",
            "",
            "- key: id",
            "",
            "| column | type | is | rules | description |",
            "| --- | --- | --- | --- | --- |",
            "| id | int | key, subject, required | references users.user_id | Who. |",
            "| day | date | required |  |  |",
            "| at | datetime | event time, required | known_by |  |",
            r"| word | str |  | max_length 9, pattern ^a\|b$ |  |",
        ]
    )


def test_the_fields_of_a_nested_model_have_lines_of_their_own() -> None:
    place = create_model("Place", city=(Annotated[str, Field(min_length=1, description="Town.")], ...))
    visit = create_model("Visit", place=(place, ...), stars=(Annotated[int | None, Field(le=5)], None))
    columns: dict[str, Any] = {
        "id": (Annotated[int, Key()], ...),
        "visits": (Annotated[list[visit], Field(max_length=9, description="All.")], ...),  # type: ignore[valid-type]
    }
    text = markdown(read_contract(create_model("Trip", **columns), "trips"))
    assert text.splitlines()[-4:] == [
        "| visits | list[object] | required | max_length 9 | All. |",
        "| visits[].place | object | required |  |  |",
        "| visits[].place.city | str | required | min_length 1 | Town. |",
        "| visits[].stars | int |  | le 5 |  |",
    ]


def test_layout_freshness_and_expectations_are_told() -> None:
    text = page(
        partition_by=("day",),
        cluster_by=("id", "at"),
        fresh_within=timedelta(hours=36),
        expectations=(Expectation("Completeness", ("word",), ge=0.5),),
    )
    for line in (
        "- partitioned by: day",
        "- clustered by: id, at",
        "- newest at no older than 1 day, 12:00:00 at the end of the day",
        "Each version as a whole:\n\n- `Completeness(word) ge 0.5`",
    ):
        assert line in text


def test_a_description_can_neither_break_the_table_nor_write_to_a_terminal() -> None:
    text = page(note="one\n| two |\x1b[2J")
    assert text.splitlines()[-1].endswith(r"| one \| two \| [2J |")
    assert "\x1b" not in text
