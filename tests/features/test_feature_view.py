"""A computed view is declared once: row model, Feast view and computation agree, or the class can not be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from features.aggregations import Aggregation, Count, LastTime, Mean, TogetherWith, Windowed
from features.errors import ViewDeclarationError
from features.feature_view import DaysSince, FeatureView
from features.tables import ItemStats, UserStats
from features.views import VIEW_TABLES, feature_columns, feature_view
from lakehouse.contracts.contract import Column, Contract
from lakehouse.contracts.table import EventTime, Key, Table, declared_tables
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Rating


class Visit(Table, name="test_visits"):
    """One visit to a page."""

    page: Annotated[int, Key()]
    seconds: float | None
    browser: str | None
    at: Annotated[datetime, Key(), EventTime()]


class Plain(Table, name="test_plain"):
    """No event time."""

    page: Annotated[int, Key()]


def test_a_computed_view_is_the_row_model_of_its_table() -> None:
    assert declared_tables()["user_stats"] is UserStats
    assert UserStats.contract.names == (
        "user_id",
        "computed_at",
        "ratings_count",
        "mean_rating",
        "active_days",
        "last_rated_us",
    )
    assert [rule.name for rule in UserStats.contract.column("mean_rating").rules] == [
        "mean_rating type float",
        "mean_rating required",
        "mean_rating ge 0.5",
        "mean_rating le 5.0",
    ] or [rule.name for rule in UserStats.contract.column("mean_rating").rules][2:] == [
        "mean_rating ge 0.5",
        "mean_rating le 5",
    ]


def test_every_feature_of_a_computed_view_has_an_aggregation_and_no_other_column_does() -> None:
    computed = [view for view in VIEW_TABLES if issubclass(view, FeatureView)]
    assert computed == [UserStats, ItemStats]
    for view in computed:
        assert tuple(view.declaration.aggregations) == feature_columns(view.contract)
        assert view.declaration.source is Rating
    assert UserStats.declaration.inputs == ("user_id", "rated_at", "rating")


def test_the_ttl_is_declared_with_the_view() -> None:
    class PageVisits(FeatureView, name="test_page_visits", source=Visit, ttl=timedelta(days=7)):
        """Visits of a page."""

        page: Annotated[int, Key()]
        known_at: Annotated[datetime, Key(), EventTime()]
        visits: Annotated[int, Count(days=7)]

    assert feature_view(Snapshot("/lake/test_page_visits", 0, PageVisits)).ttl == timedelta(days=7)
    assert feature_view(Snapshot("/lake/test_page_visits", 0, PageVisits), ttl=timedelta(1)).ttl == timedelta(days=1)
    assert not feature_view(Snapshot("/lake/user_stats", 0, UserStats)).ttl


@dataclass(frozen=True, kw_only=True)
class Longest(Aggregation):
    """A user's own aggregation."""

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        return "is no float" if column.type.kind != "float" else None

    def columns(self, source: Contract) -> tuple[str, ...]:
        return ("seconds",)

    def parts(self, source):  # type: ignore[no-untyped-def]
        import polars as pl

        from features.aggregations import Part

        return {"longest": Part(pl.col("seconds").max(), "max")}

    def value(self, parts):  # type: ignore[no-untyped-def]
        return parts["longest"]


def test_a_users_own_aggregation_works_as_the_others_do() -> None:
    from lakehouse.contracts.arrow import to_arrow

    class LongVisits(FeatureView, name="test_long_visits", source=Visit):
        """The longest visit."""

        page: Annotated[int, Key()]
        known_at: Annotated[datetime, Key(), EventTime()]
        longest: Annotated[float | None, Longest()]
        longest_lately: Annotated[float | None, Longest(days=2)]

    at = [datetime.fromisoformat(f"2024-01-0{day}T12:00:00+00:00") for day in (1, 2, 3, 4)]
    seconds = [9.0, None, 5.0, 7.0]
    visits = [Visit(page=1, seconds=s, browser=None, at=t) for s, t in zip(seconds, at, strict=True)]
    rows = LongVisits.compute(to_arrow(Visit, visits)).to_pylist()
    assert [row["longest"] for row in rows] == [9.0, 9.0, 9.0, 9.0]
    assert [row["longest_lately"] for row in rows] == [9.0, 9.0, 5.0, 7.0]


def declare(
    *,
    source: type[Table] = Visit,
    created: str | None = None,
    ttl: timedelta | None = None,
    visits: object = Annotated[int, Count()],
    entity: object = Annotated[int, Key()],
    known_at: object = Annotated[datetime, Key(), EventTime()],
    since: DaysSince | None = None,
) -> type[FeatureView]:
    """A view of visits with one thing said otherwise."""
    names = {"page": entity, "known_at": known_at, "visits": visits, "since": ClassVar[DaysSince | None]}
    body = {"__doc__": "Visits.", "__module__": __name__, "__annotations__": names, "since": since}
    arguments = {"name": "test_broken", "source": source, "created": created, "ttl": ttl}
    return type(FeatureView)("Broken", (FeatureView,), body, **arguments)


class Unknown(Windowed):
    """Neither made of parts nor known to the computation."""

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        return None


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no source": (lambda: declare(source=Table), "does not say which table"),
    "a source without event time": (lambda: declare(source=Plain), "test_plain, which has no event time"),
    "no event time": (lambda: declare(known_at=Annotated[datetime, Count()]), "no event time"),
    "an event time outside the key": (
        lambda: declare(known_at=Annotated[datetime, EventTime()]),
        r"'test_broken\.known_at' .* is not part of the key",
    ),
    "an entity of another type": (
        lambda: declare(entity=Annotated[str, Key()]),
        r"'test_broken\.page' .* is str but int in test_visits",
    ),
    "a column without aggregation": (lambda: declare(visits=int), r"'test_broken\.visits' carries 0 aggregations"),
    "a column with two": (
        lambda: declare(visits=Annotated[int, Count(), LastTime()]),
        r"'test_broken\.visits' carries 2 aggregations",
    ),
    "a count that is no whole number": (
        lambda: declare(visits=Annotated[float, Count()]),
        r"'test_broken\.visits' .* gives int but is declared float",
    ),
    "a window of no day": (lambda: declare(visits=Annotated[int, Count(days=0)]), "a window of 0 days"),
    "a mean of a column that is not there": (
        lambda: declare(visits=Annotated[float, Mean("second")]),
        r"reads test_visits\.second, which is not there",
    ),
    "a mean of text": (lambda: declare(visits=Annotated[float, Mean("browser")]), "which is str and not int or float"),
    "a mean that may be empty": (lambda: declare(visits=Annotated[float, Mean("seconds")]), "declare it as optional"),
    "companions without a window": (
        lambda: declare(visits=Annotated[list[int], TogetherWith(by="browser")]),
        "has no window",
    ),
    "companions of another type": (
        lambda: declare(visits=Annotated[list[str], TogetherWith(by="browser", days=3)]),
        r"a list of int but is declared list\[str\]",
    ),
    "what nothing can compute": (lambda: declare(visits=Annotated[int, Unknown()]), "which nothing here can compute"),
    "days since what is not stored": (
        lambda: declare(since=DaysSince("opened_us", description="…")),
        r"'test_broken\.since' .* counts from 'opened_us'",
    ),
    "a created column that is not there": (lambda: declare(created="made_at"), r"follow test_visits\.made_at"),
    "a ttl of nothing": (lambda: declare(ttl=timedelta()), "a ttl of 0:00:00"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_declaration_that_cannot_be_computed_is_refused_when_the_class_is_made(what: str) -> None:
    make, words = REFUSED[what]
    with pytest.raises(ViewDeclarationError, match=words):
        make()


def test_the_declaration_that_the_refused_ones_vary_is_good() -> None:
    assert declare().declaration.inputs == ("page", "at")
    assert declare(visits=Annotated[int, LastTime()], since=DaysSince("visits", description="…")).declaration.at_request


def test_a_field_without_any_column_left_is_refused() -> None:
    with pytest.raises(ViewDeclarationError, match="holds no feature"):

        class Empty(FeatureView, name="test_empty_view", source=Visit):
            """No feature."""

            page: Annotated[int, Key(), Field(description="…")]
            known_at: Annotated[datetime, Key(), EventTime()]
