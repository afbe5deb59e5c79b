"""How is a computed feature view declared? As a row model whose columns say how they come from another table's events.

    class UserStats(FeatureView, name="user_stats", source=Rating):
        user_id: Annotated[int, Key(), References("users.user_id"), Field(description="Whose ratings.")]
        computed_at: Annotated[datetime, Key(), EventTime(), Field(description="From here on the row is known.")]
        ratings_count: Annotated[int, Count(), Field(ge=1, description="Ratings given so far.")]

The key without the event time names the entity, by columns that the source has too. The event time is the row's stamp:
the end of a UTC day on which the entity had an event. Every other column carries one aggregation. The class is the
table's row model, so contract, gate, Feast view and Flyte type follow from it as for any table; ``compute`` makes its
rows from the source's. What depends on the instant of a request is declared beside the columns and not stored:

        days_since_rating: ClassVar[DaysSince] = DaysSince("last_rated_us", description="…")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from features.aggregations import Aggregation, TogetherWith, Windowed
from features.errors import ViewDeclarationError
from lakehouse.contracts.table import Contract, Table

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class DaysSince:
    """A feature of the request's own instant: the days since a stored one, with fractions, never below 0.

    Attributes:
        column: the view's column with the stored instant, in microseconds since 1970-01-01 UTC (``LastTime``).
        description: what it says.
    """

    column: str
    description: str


@dataclass(frozen=True)
class Declaration:
    """What a feature view declares, read once.

    Attributes:
        source: the row model of the events.
        entity: the columns that name the entity, in the view as in the source.
        stamp: the view's event time.
        aggregations: by feature, in the order of the row model.
        at_request: features of the request's instant, by name.
        created: the source's column that says when an event was written down; None where that is its event time.
        ttl: how long after its stamp a row counts; None is for ever.
    """

    source: type[Table]
    entity: tuple[str, ...]
    stamp: str
    aggregations: dict[str, Windowed]
    at_request: dict[str, DaysSince]
    created: str | None
    ttl: timedelta | None

    @property
    def clock(self) -> str:
        """The source's event time."""
        return self.source.contract.event_time or ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The source's columns that are read, each once."""
        contract = self.source.contract
        read = (name for aggregation in self.aggregations.values() for name in aggregation.columns(contract))
        return tuple(dict.fromkeys([*self.entity, self.clock, *([self.created] if self.created else []), *read]))


class FeatureView(Table, abstract=True):
    """Base of all computed feature views; what a class must declare is in this module's docstring.

    Class arguments:
        name: of the table, and of the view.
        source: the row model of the events.
        created: the source's datetime column that says when an event was written down. An event counts from then on
            and not from its event time, so that one that arrives late, or a correction, changes no earlier row.
        ttl: how long after its stamp a row counts.

    A declaration that can't be computed is a ViewDeclarationError when the class is made.
    """

    declaration: ClassVar[Declaration]

    @classmethod
    def __pydantic_init_subclass__(  # type: ignore[override]  # the table's own arguments are handed on
        cls,
        *,
        source: type[Table] = Table,
        created: str | None = None,
        ttl: timedelta | None = None,
        **kwargs: object,
    ) -> None:
        markers: dict[str, list[Windowed]] = {}
        for name, field in cls.model_fields.items():
            markers[name] = [marker for marker in field.metadata if isinstance(marker, Windowed)]
            # What is computed says nothing about what a stored value must satisfy: the contract does not see it.
            field.metadata = [marker for marker in field.metadata if not isinstance(marker, Windowed)]
        super().__pydantic_init_subclass__(**kwargs)  # type: ignore[arg-type]
        if not kwargs.get("abstract"):
            at_request = {name: value for name, value in vars(cls).items() if isinstance(value, DaysSince)}
            cls.declaration = _declaration(cls.contract, markers, at_request, source, created, ttl)

    @classmethod
    def compute(cls, rows: pa.Table, *, after: datetime | None = None, until: datetime | None = None) -> pa.Table:
        """The view's rows, from the source's; see ``features.compute.compute``."""
        from features.compute import compute

        return compute(cls.contract, cls.declaration, rows, after=after, until=until)


def _declaration(
    contract: Contract,
    markers: dict[str, list[Windowed]],
    at_request: dict[str, DaysSince],
    source: type[Table],
    created: str | None,
    ttl: timedelta | None,
) -> Declaration:
    """The declaration, once every column is known to be key, stamp or one aggregation that fits."""
    table = contract.table
    if source is Table:
        raise ViewDeclarationError.no_source(table)
    if contract.event_time is None:
        raise ViewDeclarationError.no_event_time(table)
    entity = tuple(name for name in contract.key if name != contract.event_time)
    if not entity:
        raise ViewDeclarationError.no_entity(table)
    aggregations = {}
    for name in contract.names:
        if name in (*entity, contract.event_time):
            continue
        if len(markers[name]) != 1:
            raise ViewDeclarationError.aggregations(f"{table}.{name}", len(markers[name]))
        aggregations[name] = markers[name][0]
    if not aggregations:
        raise ViewDeclarationError.no_features(table)
    declaration = Declaration(source, entity, contract.event_time, aggregations, at_request, created, ttl)
    for where, problem in _problems(contract, declaration):
        if problem:
            raise ViewDeclarationError.feature(f"{table}.{where}", problem)
    return declaration


def _problems(contract: Contract, declaration: Declaration) -> Iterable[tuple[str, str | None]]:
    """(column, what is wrong with it or None) for all that a declaration says."""
    source = declaration.source.contract
    if source.event_time is None:
        yield contract.event_time or "", f"comes from {source.table}, which has no event time"
    if contract.event_time not in contract.key:
        yield contract.event_time or "", "is not part of the key, so an entity would have one row for ever: add Key()"
    if source.event_time is not None and source.column(source.event_time).nullable:
        yield contract.event_time or "", f"comes from {source.table}.{source.event_time}, which may be null"
    for name in declaration.entity:
        if name not in source.names:
            yield name, f"is no column of {source.table} ({', '.join(source.names)} are)"
        elif source.column(name).type != contract.column(name).type:
            yield name, f"is {contract.column(name).type} but {source.column(name).type} in {source.table}"
        elif source.column(name).nullable:
            yield name, f"may be null in {source.table}: an entity must be known"
    created = declaration.created
    if created is not None and (
        created not in source.names or source.column(created).type.kind != "datetime" or source.column(created).nullable
    ):
        yield contract.event_time or "", f"is said to follow {source.table}.{created}, which is no required datetime"
    if declaration.ttl is not None and declaration.ttl <= timedelta():
        yield contract.event_time or "", f"has a ttl of {declaration.ttl}, after which no row would ever count"
    for name, aggregation in declaration.aggregations.items():
        if aggregation.days is not None and aggregation.days < 1:
            yield name, f"has a window of {aggregation.days} days: give at least 1"
        elif not isinstance(aggregation, (Aggregation, TogetherWith)):
            yield name, f"carries {aggregation}, which nothing here can compute: subclass Aggregation"
        else:
            # An event that is written down late may be outside a window when it becomes known.
            empty = created is not None and aggregation.days is not None
            yield name, aggregation.problem(contract.column(name), source, may_be_empty=empty)
            if isinstance(aggregation, TogetherWith):
                yield name, _together(contract, declaration, name)
    for name, request in declaration.at_request.items():
        if request.column not in declaration.aggregations or contract.column(request.column).type.kind != "int":
            yield name, f"counts from {request.column!r}, which is no feature of whole microseconds: see LastTime"


def _together(contract: Contract, declaration: Declaration, name: str) -> str | None:
    if len(declaration.entity) != 1:
        return "needs a view of one entity"
    kind = contract.column(declaration.entity[0]).type
    item = contract.column(name).type.item
    return None if item == kind else f"gives a list of {kind} but is declared list[{item}]"
