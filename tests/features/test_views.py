"""Views say what their row models say, and nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from features.errors import ViewDeclarationError
from features.tables import UserStats
from features.views import VIEW_TABLES, entity, event_time, feature_columns, feature_view, join_keys
from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Movie


def test_every_column_of_every_view_is_key_time_or_feature_exactly_once() -> None:
    assert [row.contract.table for row in VIEW_TABLES] == ["users", "movies", "user_stats", "item_stats", "movie_cards"]
    for row in VIEW_TABLES:
        parts = [*join_keys(row.contract), event_time(row.contract), *feature_columns(row.contract)]
        assert sorted(parts) == sorted(row.contract.names)


def test_a_view_has_the_types_descriptions_and_pin_of_its_table() -> None:
    view = feature_view(Snapshot("/lake/movies", 7, Movie))
    assert view.name == "movies" and view.description == Movie.contract.description and not view.ttl
    assert [(field.name, str(field.dtype)) for field in view.features] == [
        ("title", "String"),
        ("year", "Int64"),
        ("genres", "Array(String)"),
    ]
    assert {field.name: field.description for field in view.features}["year"] == "Year of release."
    assert [(column.name, str(column.dtype)) for column in view.entity_columns] == [("item_id", "Int64")]
    source = view.batch_source
    assert (source.uri, source.version, source.timestamp_field) == ("/lake/movies", 7, "added_at")


def test_an_entity_is_described_by_the_table_that_owns_it() -> None:
    assert entity(UserStats.contract, "user_id").description == "Number of the user."


def test_a_view_survives_the_registry_with_its_pin() -> None:
    from feast import FeatureView

    view = feature_view(Snapshot("/lake/movies", 7, Movie))
    back = FeatureView.from_proto(view.to_proto())
    assert back == view and back.batch_source.snapshot() == Snapshot("/lake/movies", 7, Movie)
    assert back != feature_view(Snapshot("/lake/movies", 8, Movie))


def test_tables_that_make_no_view_are_refused_with_the_reason() -> None:
    class NoTime(Table, name="no_time"):
        """No event time."""

        thing_id: Annotated[int, Key()]
        size: int

    class NoEntity(Table, name="no_entity"):
        """Keyed by time alone."""

        at: Annotated[datetime, Key(), EventTime()]
        size: int

    class NoFeature(Table, name="no_feature"):
        """Key and time alone."""

        thing_id: Annotated[int, Key()]
        at: Annotated[datetime, EventTime()]

    class Timed(Table, name="timed"):
        """A datetime as a feature."""

        thing_id: Annotated[int, Key()]
        at: Annotated[datetime, EventTime()]
        seen: Annotated[datetime, Field(description="Feast would cut it to seconds.")]

    class Place(BaseModel):
        city: str

    class Nested(Table, name="nested_feature"):
        """Feast has no type for an object."""

        thing_id: Annotated[int, Key()]
        at: Annotated[datetime, EventTime()]
        place: Place

    class Listed(Table, name="listed_feature"):
        """Nor for a list of them."""

        thing_id: Annotated[int, Key()]
        at: Annotated[datetime, EventTime()]
        places: list[Place]

    for row, words in (
        (Nested, r"nested_feature\.place"),
        (Listed, r"listed_feature\.places"),
        (NoTime, "no event time"),
        (NoEntity, "no key"),
        (NoFeature, "no column"),
        (Timed, "timed.seen"),
    ):
        with pytest.raises(ViewDeclarationError, match=words):
            feature_view(Snapshot("/lake/x", 0, row))
    with pytest.raises(ViewDeclarationError, match="no row model"):
        feature_view(Snapshot("/lake/x", 0))
