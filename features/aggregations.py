"""How does one feature sum up an entity's events? A small typed aggregation, written beside its column.

    ratings_count: Annotated[int, Count(), Field(ge=1, description="Ratings given so far.")]
    recent_mean: Annotated[float, Mean("rating", days=30), Field(ge=0.5, le=5)]

Each is made of *parts*, numbers that are kept of the events of one day and can be put together over days: by adding
them up, or by taking the least or the greatest. That is what lets one declaration run over a whole history and over
one more day alike. A new aggregation is a frozen dataclass that names its columns, parts and value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from lakehouse.contracts.table import Column, Contract

if TYPE_CHECKING:
    import polars as pl

#: The column, beside the source's own, that is true for the first event of an entity on a day.
FIRST_OF_DAY = "__first_of_day"


class Part(NamedTuple):
    """What is kept of an entity's events of one day: one number, and how those of several days become one."""

    of_day: pl.Expr
    over_days: Literal["sum", "min", "max"]


@dataclass(frozen=True, kw_only=True)
class Windowed(ABC):
    """What every aggregation has.

    Attributes:
        days: whole UTC days before the row's stamp that count; None is all of them.
    """

    days: int | None = None

    def columns(self, source: Contract) -> tuple[str, ...]:
        """The source's columns that are read, beside the entity and the event time."""
        return ()

    @abstractmethod
    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        """Why the feature can't be declared so, as the end of a sentence; None where it can.

        Args:
            column: the feature.
            source: the contract of the table that the events are in.
            may_be_empty: whether the window may hold no event at all.
        """


@dataclass(frozen=True, kw_only=True)
class Aggregation(Windowed):
    """A feature made of parts that are put together over days."""

    @abstractmethod
    def parts(self, source: Contract) -> Mapping[str, Part]:
        """What is kept of a day, by a short name; the expressions see one entity's events of one day, in order."""

    @abstractmethod
    def value(self, parts: Mapping[str, pl.Expr]) -> pl.Expr:
        """The feature, from the parts of all days that count; they are null where no event does."""


@dataclass(frozen=True, kw_only=True)
class Count(Aggregation):
    """How many events there were."""

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        """A count is a whole number."""
        return _kind(column, "int")

    def parts(self, source: Contract) -> Mapping[str, Part]:
        """The events of a day."""
        import polars as pl

        return {"n": Part(pl.len().cast(pl.Int64), "sum")}

    def value(self, parts: Mapping[str, pl.Expr]) -> pl.Expr:
        """0 where there was none."""
        return parts["n"].fill_null(0)


@dataclass(frozen=True, kw_only=True)
class ActiveDays(Aggregation):
    """On how many UTC days there was an event."""

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        """A number of days is a whole number."""
        return _kind(column, "int")

    def parts(self, source: Contract) -> Mapping[str, Part]:
        """1 for the first event of a day, of which later ones may become known later."""
        import polars as pl

        return {"n": Part(pl.col(FIRST_OF_DAY).sum().cast(pl.Int64), "sum")}

    def value(self, parts: Mapping[str, pl.Expr]) -> pl.Expr:
        """0 where there was none."""
        return parts["n"].fill_null(0)


@dataclass(frozen=True)
class Mean(Aggregation):
    """The mean of a numeric column; nulls don't count."""

    column: str

    def columns(self, source: Contract) -> tuple[str, ...]:
        """The column alone."""
        return (self.column,)

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        """A mean is a float, and nothing where there is no value."""
        return (
            _source(self.column, source, ("int", "float"))
            or _kind(column, "float")
            or _nullable(column, may_be_empty or source.column(self.column).nullable)
        )

    def parts(self, source: Contract) -> Mapping[str, Part]:
        """Sum and number of a day's values, and the extremes."""
        import polars as pl

        value = pl.col(self.column).cast(pl.Float64)
        return {
            "sum": Part(value.sum(), "sum"),
            "n": Part(value.count().cast(pl.Int64), "sum"),
            "min": Part(value.min(), "min"),
            "max": Part(value.max(), "max"),
        }

    def value(self, parts: Mapping[str, pl.Expr]) -> pl.Expr:
        """Sum by number. No mean is beyond the extremes: without the clip, rounding could take it past a declared
        bound (the mean of three times 0.1 is 0.10000000000000002)."""
        import polars as pl

        mean = (parts["sum"] / parts["n"]).clip(parts["min"], parts["max"])
        return pl.when(parts["n"] > 0).then(mean)


@dataclass(frozen=True, kw_only=True)
class LastTime(Aggregation):
    """When the latest event was, in microseconds since 1970-01-01 UTC: what request-time features count from.

    A whole number, for Feast keeps datetimes to the second only.
    """

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        """An instant is a whole number of microseconds, and nothing where there was no event."""
        return _kind(column, "int") or _nullable(column, may_be_empty)

    def parts(self, source: Contract) -> Mapping[str, Part]:
        """The latest of a day."""
        import polars as pl

        return {"last": Part(pl.col(source.event_time or "").max().dt.epoch("us"), "max")}

    def value(self, parts: Mapping[str, pl.Expr]) -> pl.Expr:
        """As it is."""
        return parts["last"]


@dataclass(frozen=True, kw_only=True)
class TogetherWith(Windowed):
    """The entities met most often together with this one, most frequent first, ties by the smaller value.

    Two entities are together once for each value of ``by`` that has an event with both of them inside the window:
    movies rated by the same user, things bought in one basket. The view has one entity, and the feature is a list
    of its type. The work grows with (events of an entity) x (events of a value of ``by``), so the window is a must.

    Attributes:
        by: the source's column that brings entities together.
        top: length of the list.
    """

    by: str
    top: int = 10

    def columns(self, source: Contract) -> tuple[str, ...]:
        """The column that brings entities together."""
        return (self.by,)

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        """A bounded window, and a list."""
        if self.days is None:
            return "has no window: give days"
        if self.top < 1:
            return f"keeps {self.top} entities: give top of at least 1"
        return _source(self.by, source, ("int", "str", "bool", "date")) or _kind(column, "list")


def _kind(column: Column, kind: str) -> str | None:
    return None if column.type.kind == kind else f"gives {kind} but is declared {column.type}"


def _nullable(column: Column, needed: bool) -> str | None:
    return "may have no value: declare it as optional (… | None)" if needed and not column.nullable else None


def _source(name: str, source: Contract, kinds: tuple[str, ...]) -> str | None:
    if name not in source.names:
        return f"reads {source.table}.{name}, which is not there ({', '.join(source.names)} are)"
    kind = source.column(name).type.kind
    return None if kind in kinds else f"reads {source.table}.{name}, which is {kind} and not {' or '.join(kinds)}"
