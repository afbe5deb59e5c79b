"""Evolution: which differences are found, what is applied by itself, and what is refused with the way out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import Annotated, Any, Literal

import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import Field, create_model

from lakehouse import EventTime, Key, Lakehouse, References, Subject, Table
from lakehouse.contracts import evolution
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.contract import Contract
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.evolution import Plan, apply, bring_up, differences, plan
from lakehouse.contracts.stored_schema import stored_schema
from lakehouse.errors import ContractMismatchError, EvolutionError, TableBusyError
from lakehouse.ledger import Promotion, Publication, Run
from lakehouse.snapshot import Snapshot, open_delta, schema_of

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row models that a test declares are forgotten after it."""
    monkeypatch.setattr(Table, "_registry", dict(Table._registry))


def books() -> type[Table]:
    """The declaration that the stored tables of this file are made by."""

    class Book(Table, name="books"):
        """One book."""

        isbn: Annotated[str, Key(), Field(max_length=13, description="Number.")]
        pages: Annotated[int, Field(ge=1, le=5000)]
        price: Annotated[Decimal, Field(max_digits=6, decimal_places=2)]
        genre: Literal["novel", "poem"]
        subtitle: str | None
        printed_at: Annotated[datetime, EventTime()]

    return Book


ROWS = [
    {
        "isbn": f"97800000000{n:02}",
        "pages": 100 + n,
        "price": Decimal("9.90"),
        "genre": "novel",
        "subtitle": None if n % 2 else "A tale",
        "printed_at": AT,
    }
    for n in range(8)
]


def store(lake: Lakehouse, row_model: type[Table], rows: list[dict[str, object]] | None = None) -> int:
    """Make a table with some rows and publish it without Spark; its version."""
    contract = row_model.contract
    create_table(lake, contract)
    made = [row_model.model_validate(row) for row in (ROWS if rows is None else rows)]
    if made:
        write_deltalake(lake.uri(contract.table), to_arrow(row_model, made), mode="append")
    version = open_delta(lake.uri(contract.table)).version()
    lake.ledger.append([published(contract, version, len(made))])
    return version


def published(contract: Contract, version: int, rows: int) -> Publication:
    return Publication(
        publication_id=f"{contract.table}/b@{version}",
        table_name=contract.table,
        batch_id="b",
        day=date(1998, 3, 1),
        version=version,
        published=True,
        rows_in=rows,
        rows_published=rows,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=rows,
        failed_checks=[],
        broken_rules="{}",
        fingerprint=contract.fingerprint,
        published_at=AT,
    )


@pytest.fixture
def library(lake: Lakehouse) -> Lakehouse:
    """A lake with eight books, published."""
    store(lake, books())
    return lake


def said(found: Plan) -> dict[str, str]:
    """Kind of each change by its column and action."""
    return {f"{change.column} {change.action}".strip(): change.kind for change in found.changes}


def fields(**changed: object) -> dict[str, object]:
    """The annotations of ``books``, some of them replaced; None takes a column away."""
    annotations = {
        "isbn": Annotated[str, Key(), Field(max_length=13, description="Number.")],
        "pages": Annotated[int, Field(ge=1, le=5000)],
        "price": Annotated[Decimal, Field(max_digits=6, decimal_places=2)],
        "genre": Literal["novel", "poem"],
        "subtitle": str | None,
        "printed_at": Annotated[datetime, EventTime()],
    }
    return {name: kind for name, kind in (annotations | changed).items() if kind is not None}


def books_with(doc: str = "One book.", **changed: object) -> type[Table]:
    """``books`` declared anew, with some columns changed."""
    return declared("books", doc, **fields(**changed))


def declared(name: str, doc: str, **annotations: object) -> type[Table]:
    body = {"__annotations__": annotations, "__doc__": doc, "__module__": __name__}
    return type(Table)(name.title(), (Table,), body, name=name)


def rows_of(lake: Lakehouse, row_model: type[Table]) -> list[Table]:
    return list(lake.latest(row_model).rows())


def test_a_table_differs_in_nothing_from_the_declaration_that_it_was_made_by(library: Lakehouse) -> None:
    found = plan(library, books())
    assert (found.verdict, found.changes) == ("equal", ())
    assert apply(library, found) is None


def test_a_table_that_is_not_there_yet_has_nothing_to_change(lake: Lakehouse) -> None:
    assert plan(lake, books()).verdict == "new"
    bring_up(lake, books().contract)
    assert lake.names() == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"pages_read": int | None}, {"pages_read add column": "additive"}),
        ({"pages_read": int}, {"pages_read add column": "breaking"}),
        ({"subtitle": None}, {"subtitle remove column": "breaking"}),
        (
            {"subtitle": None, "second_title": str | None},
            {"subtitle remove column": "breaking", "second_title add column": "additive"},
        ),
        ({"genre": Literal["novel", "poem"] | None}, {"genre allow nulls": "additive"}),
        ({"genre": Literal["novel", "poem", "play"]}, {"genre loosen rule": "additive"}),
        ({"genre": Literal["novel"]}, {"genre tighten rule": "additive"}),
        ({"genre": Literal["poem"]}, {"genre tighten rule": "breaking"}),
        ({"subtitle": str}, {"subtitle require": "breaking"}),
        (
            {"price": Annotated[Decimal, Field(max_digits=8, decimal_places=2)]},
            {"price widen type": "widening"},
        ),
        (
            {"price": Annotated[Decimal, Field(max_digits=8, decimal_places=4)]},
            {"price widen type": "widening"},
        ),
        (
            {"price": Annotated[Decimal, Field(max_digits=6, decimal_places=4)]},
            {"price change type": "breaking"},
        ),
        (
            {"price": Annotated[Decimal, Field(max_digits=8, decimal_places=1)]},
            {"price change type": "breaking"},
        ),
        ({"price": float}, {"price change type": "breaking"}),
        ({"subtitle": int | None}, {"subtitle change type": "breaking"}),
    ],
)
def test_each_difference_has_its_kind(library: Lakehouse, changed: dict[str, object], found: dict[str, str]) -> None:
    assert said(plan(library, books_with(**changed))) == found


def test_another_key_or_event_time_is_breaking(library: Lakehouse) -> None:
    row_model = books_with(
        isbn=Annotated[str, Field(max_length=13, description="Number.")],
        pages=Annotated[int, Key(), Field(ge=1, le=5000)],
        printed_at=datetime,
    )
    assert said(plan(library, row_model)) == {
        "isbn key": "breaking",
        "pages key": "breaking",
        "printed_at event time": "breaking",
    }


def test_stricter_rules_are_held_against_the_rows_and_name_those_that_break_them(library: Lakehouse) -> None:
    row_model = books_with(pages=Annotated[int, Field(ge=102, le=103, multiple_of=1)], subtitle=str)
    found = {change.rule.name: change for change in plan(library, row_model).changes if change.rule}
    assert (found["pages ge 102"].breaks, found["pages le 103"].breaks) == (2, 4)
    assert found["pages ge 102"].examples == ("isbn 9780000000000", "isbn 9780000000001")
    assert "which 2 stored row(s) break (isbn 9780000000000, isbn 9780000000001)" in found["pages ge 102"].text
    assert found["subtitle required"].breaks == 4
    assert found["pages multiple_of 1"].kind == "additive"


def test_at_most_five_rows_are_named(library: Lakehouse) -> None:
    (genre,) = plan(library, books_with(genre=Literal["poem"])).changes
    assert (genre.breaks, len(genre.examples)) == (8, 5)
    assert genre.text.endswith(", …)")


def test_a_new_reference_is_held_against_the_rows(library: Lakehouse) -> None:
    class Genre(Table, name="genres"):
        name: Annotated[str, Key()]

    store(library, Genre, [{"name": "novel"}])
    ok = books_with(genre=Annotated[Literal["novel", "poem"], References("genres.name")])
    assert said(plan(library, ok)) == {"genre tighten rule": "additive"}
    broken = books_with(subtitle=Annotated[str | None, References("genres.name")])
    (change,) = plan(library, broken).changes
    assert (change.kind, change.breaks) == ("breaking", 4)


def test_a_first_event_time_is_additive(lake: Lakehouse) -> None:
    store(lake, books_with(printed_at=datetime))
    assert said(plan(lake, books())) == {"printed_at event time": "additive"}


def test_another_partitioning_is_breaking(library: Lakehouse) -> None:
    row_model = type(Table)(
        "Book",
        (Table,),
        {"__annotations__": fields(), "__doc__": "One book.", "__module__": __name__},
        name="books",
        partition_by=("genre",),
    )
    assert said(plan(library, row_model)) == {"partition": "breaking"}


def test_other_clustering_and_a_subject_are_additive(library: Lakehouse) -> None:
    annotations = fields(isbn=Annotated[str, Key(), Subject(), Field(max_length=13, description="Number.")])
    row_model = type(Table)(
        "Book",
        (Table,),
        {"__annotations__": annotations, "__doc__": "One book.", "__module__": __name__},
        name="books",
        cluster_by=("genre",),
    )
    assert said(plan(library, row_model)) == {"isbn subject": "additive", "genre cluster": "additive"}
    bring_up(library, row_model.contract)
    assert plan(library, row_model).changes == ()


def test_a_change_feed_begins_where_it_is_declared_and_is_left_on_where_it_is_not(library: Lakehouse) -> None:
    def declared(change_feed: bool) -> type[Table]:
        body = {"__annotations__": fields(), "__doc__": "One book.", "__module__": __name__}
        return type(Table)("Book", (Table,), body, name="books", change_feed=change_feed)

    def on() -> bool:
        configuration = open_delta(library.uri("books")).metadata().configuration
        return configuration.get("delta.enableChangeDataFeed") == "true"

    assert not on()
    assert said(plan(library, declared(True))) == {"change feed": "additive"}
    bring_up(library, declared(True).contract)
    assert on()
    assert library.resolve("books").arrow().num_rows == len(ROWS), "readers get the version at once"
    assert plan(library, declared(True)).changes == ()
    assert plan(library, declared(False)).changes == ()
    assert on()


def test_another_type_of_a_lists_elements_is_breaking(lake: Lakehouse) -> None:
    store(lake, declared("shelves", "Shelves.", number=Annotated[int, Key()], books=list[int]), [])
    later = declared("shelves", "Shelves.", number=Annotated[int, Key()], books=list[str])
    assert said(plan(lake, later)) == {"books[] change type": "breaking"}


#: The fields of a nested model.
PLACE = {
    "city": Annotated[str, Field(min_length=2)],
    "stars": Annotated[int | None, Field(le=5)],
    "price": Annotated[Decimal, Field(max_digits=4, decimal_places=2)],
}

PLACES = [
    {"city": "Ur", "stars": 4, "price": Decimal("1.50")},
    {"city": "Troy", "stars": None, "price": Decimal("20.00")},
]


def trips(**changed: object) -> type[Table]:
    """Trips to places, with some fields of a place changed; None takes one away."""
    given: dict[str, Any] = {name: (kind, ...) for name, kind in (PLACE | changed).items() if kind is not None}
    place: Any = create_model("Place", **given)
    return declared("trips", "Trips.", number=Annotated[int, Key()], to=place | None, all=list[place])


@pytest.fixture
def trip(lake: Lakehouse) -> Lakehouse:
    store(lake, trips(), [{"number": 1, "to": PLACES[0], "all": PLACES}, {"number": 2, "to": None, "all": []}])
    return lake


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, {}),
        ({"note": str | None}, {"to.note add column": "widening", "all[].note add column": "widening"}),
        ({"note": str}, {"to.note add column": "breaking", "all[].note add column": "breaking"}),
        ({"stars": None}, {"to.stars remove column": "breaking", "all[].stars remove column": "breaking"}),
        (
            {"price": Annotated[Decimal, Field(max_digits=6, decimal_places=2)]},
            {"to.price widen type": "widening", "all[].price widen type": "widening"},
        ),
        ({"price": float}, {"to.price change type": "breaking", "all[].price change type": "breaking"}),
        (
            {"stars": Annotated[int | None, Field(le=6)]},
            {"to.stars loosen rule": "additive", "all[].stars loosen rule": "additive"},
        ),
        (
            {"stars": Annotated[int, Field(le=5)]},
            {"to.stars tighten rule": "additive", "all[].stars tighten rule": "breaking"},
        ),
        (
            {"city": Annotated[str, Field(min_length=3)]},
            {"to.city tighten rule": "breaking", "all[].city tighten rule": "breaking"},
        ),
        (
            {"city": Annotated[str | None, Field(min_length=2)]},
            {"to.city loosen rule": "additive", "all[].city loosen rule": "additive"},
        ),
    ],
)
def test_each_difference_of_a_nested_model_has_its_kind(
    trip: Lakehouse, changed: dict[str, object], found: dict[str, str]
) -> None:
    assert said(plan(trip, trips(**changed))) == found


def test_rows_that_break_a_stricter_nested_rule_are_named_once_each(trip: Lakehouse) -> None:
    stricter = trips(city=Annotated[str, Field(min_length=3)])
    found = {change.rule.name: change for change in plan(trip, stricter).changes if change.rule}
    assert (found["to.city min_length 3"].breaks, found["to.city min_length 3"].examples) == (1, ("number 1",))
    assert found["all[].city min_length 3"].breaks == 1


def test_a_nested_model_grows_and_widens_without_losing_a_value(trip: Lakehouse) -> None:
    before = [row.model_dump() for row in rows_of(trip, trips())]
    old = trip.latest(trips())
    later = trips(note=str | None, price=Annotated[Decimal, Field(max_digits=8, decimal_places=3)])
    bring_up(trip, later.contract)
    assert plan(trip, later).changes == ()
    now = [row.model_dump() for row in rows_of(trip, later)]

    def grown(place: dict[str, object] | None) -> dict[str, object] | None:
        return place and {**place, "note": None}

    assert now == [row | {"to": grown(row["to"]), "all": [grown(place) for place in row["all"]]} for row in before]
    # The version before is what it was: by its own declaration, and not by the new one.
    with pytest.raises(ContractMismatchError, match=r"column to is declared struct.*note"):
        Snapshot(old.uri, old.version, later).arrow()
    assert old.as_stored().arrow()["to"].to_pylist() == [PLACES[0], None]


def everything() -> type[Table]:
    """Every change that is not breaking, in one declaration."""
    return books_with(
        doc="One book, or one of its printings.",
        pages=Annotated[int, Field(ge=0, le=6000, description="Printed pages.")],
        price=Annotated[Decimal, Field(max_digits=8, decimal_places=3)],
        genre=Literal["novel", "poem", "play"] | None,
        weight=Annotated[float | None, Field(gt=0, description="Grams.")],
    )


def test_additive_and_widening_changes_are_applied_published_and_lose_no_row(library: Lakehouse) -> None:
    old = rows_of(library, books())
    before = library.latest(books()).version
    row_model = everything()
    found = plan(library, row_model)
    assert found.verdict == "widening"
    version = apply(library, found)
    latest = library.latest(row_model)
    assert latest.version == version
    now = {row["isbn"]: row for row in (each.model_dump() for each in latest.rows())}
    assert now == {row["isbn"]: row | {"weight": None} for row in (each.model_dump() for each in old)}
    publication = library.publications("books")[-1]
    assert (publication.kind, publication.inputs) == ("evolve", [f"books@{before}"])
    assert (publication.rows_in, publication.rows_total) == (0, 8)
    assert publication.fingerprint == row_model.contract.fingerprint
    assert differences(row_model.contract, schema_of(latest.delta()), latest.delta().metadata().configuration) == ()
    assert latest.delta().metadata().description == "One book, or one of its printings."


def test_a_new_required_column_gets_the_default_that_the_row_model_has_for_it(library: Lakehouse) -> None:
    body = {"__annotations__": fields(binding=str), "__doc__": "One book.", "__module__": __name__, "binding": "paper"}
    row_model = type(Table)("Book", (Table,), body, name="books")
    (change,) = plan(library, row_model).changes
    assert change.kind == "widening"
    assert change.text.endswith("the stored rows get its default 'paper'")
    before = [row.model_dump() for row in rows_of(library, books_with())]
    books_again = type(Table)("Book", (Table,), body, name="books")
    bring_up(library, books_again.contract)
    assert [row.model_dump() for row in rows_of(library, books_again)] == [r | {"binding": "paper"} for r in before]
    assert plan(library, books_again).changes == ()


def test_an_additive_change_touches_no_file_and_a_widening_one_writes_them_anew(library: Lakehouse) -> None:
    files = set(open_delta(library.uri("books")).file_uris())
    bring_up(library, books_with(weight=float | None).contract)
    assert set(open_delta(library.uri("books")).file_uris()) == files
    wide = books_with(weight=float | None, price=Annotated[Decimal, Field(max_digits=9, decimal_places=2)])
    bring_up(library, wide.contract)
    assert not set(open_delta(library.uri("books")).file_uris()) & files


def test_delta_itself_keeps_the_rules_that_were_loosened_or_added(library: Lakehouse) -> None:
    from deltalake.exceptions import DeltaError

    row_model = everything()
    bring_up(library, row_model.contract)
    row = {**ROWS[0], "isbn": "1", "pages": 5500, "weight": 2.0}
    uri = library.uri("books")
    write_deltalake(uri, to_arrow(row_model, [row_model.model_validate(row)]), mode="append")
    for broken in ({"pages": 6001}, {"weight": -1.0}):
        bad = to_arrow(row_model, [row_model.model_construct(**{**row, **broken})])
        with pytest.raises(DeltaError):
            write_deltalake(uri, bad, mode="append")


def test_a_breaking_change_is_refused_with_every_reason_and_nothing_is_done(library: Lakehouse) -> None:
    version = open_delta(library.uri("books")).version()
    row_model = books_with(subtitle=None, pages_read=int, weight=float | None)
    with pytest.raises(EvolutionError, match=r"pages_read .* is new and required.*subtitle .* no longer declared"):
        apply(library, plan(library, row_model))
    with pytest.raises(EvolutionError):
        bring_up(library, row_model.contract)
    assert open_delta(library.uri("books")).version() == version


class Killed(BaseException):
    """Stands for kill -9: nothing in the code catches it."""


def killing(original: Callable[[evolution.Act], object], *, at: int) -> Callable[[evolution.Act], object]:
    """``commit_properties`` that ends the process, as it were, before the commit of that number."""
    calls = count(1)

    def stepped(act: evolution.Act) -> object:
        if next(calls) == at:
            raise Killed
        return original(act)

    return stepped


@pytest.mark.parametrize("digits", [6, 8])
def test_killed_at_any_commit_it_is_completed_by_the_next_attempt(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    """With six digits of the price the changes are additive, with eight the rows are written anew."""
    original = evolution.Act.commit_properties
    completed = False
    point = 0
    while not completed:
        point += 1
        name = f"books_{point}"
        store(lake, declared(name, "One book.", **fields()), ROWS)
        later = declared(
            name,
            "Another text.",
            **fields(
                pages=Annotated[int, Field(ge=0, le=6000, description="Printed pages.")],
                price=Annotated[Decimal, Field(max_digits=digits, decimal_places=2)],
                genre=Literal["novel", "poem"] | None,
                weight=Annotated[float | None, Field(gt=0)],
            ),
        )
        with monkeypatch.context() as patch:
            patch.setattr(evolution.Act, "commit_properties", killing(original, at=point))
            try:
                bring_up(lake, later.contract)
                completed = True
            except Killed:
                pass
        bring_up(lake, later.contract)
        latest = lake.latest(later)
        assert latest.version == open_delta(latest.uri).version(), point
        assert plan(lake, later).verdict == "equal", point
        assert latest.count() == len(ROWS), point
    assert point > 4  # commits, and the attempt that none of them stops


def test_killed_before_the_ledger_it_is_published_by_the_next_attempt(
    library: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_model = books_with(weight=float | None)

    def killed(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(evolution, "publish_act", killed)
        with pytest.raises(Killed):
            bring_up(library, row_model.contract)
    bring_up(library, row_model.contract)
    latest = library.latest(row_model)
    assert latest.version == open_delta(latest.uri).version()
    assert [p.kind for p in library.publications("books")].count("evolve") == 1 + (latest.version - 3)


def test_rows_that_are_not_published_stay_so(library: Lakehouse) -> None:
    first = library.latest(books()).version
    extra = to_arrow(books(), [books().model_validate({**ROWS[0], "isbn": "x"})])
    write_deltalake(library.uri("books"), extra, mode="append")
    row_model = books_with(weight=float | None)
    bring_up(library, row_model.contract)
    assert plan(library, row_model).verdict == "equal"
    assert [p.version for p in library.publications("books") if p.published] == [first]


def test_another_writer_in_between_is_a_conflict_and_nothing_of_it_is_published(
    library: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_model = everything()
    found = plan(library, row_model)
    original = evolution._rewrite

    def meanwhile(table: DeltaTable, *rest: object) -> None:
        stale = books()
        write_deltalake(
            library.uri("books"), to_arrow(stale, [stale.model_validate({**ROWS[0], "isbn": "x"})]), mode="append"
        )
        original(table, *rest)

    monkeypatch.setattr(evolution, "_rewrite", meanwhile)
    with pytest.raises(TableBusyError):
        apply(library, found)
    rows = {row["isbn"] for row in open_delta(library.uri("books")).to_pyarrow_table(columns=["isbn"]).to_pylist()}
    assert "x" in rows
    published = [p for p in library.publications("books") if p.published]
    assert all(Snapshot(library.uri("books"), p.version, Table).count() == 8 for p in published)


def test_a_plan_of_an_older_version_is_not_applied(library: Lakehouse) -> None:
    row_model = books_with(weight=float | None)
    found = plan(library, row_model)
    open_delta(library.uri("books")).alter.set_table_description("other")
    with pytest.raises(TableBusyError):
        apply(library, found)
    bring_up(library, row_model.contract)
    assert plan(library, row_model).verdict == "equal"


def test_constraints_that_nobody_declared_are_left_alone(library: Lakehouse) -> None:
    open_delta(library.uri("books")).alter.add_constraint({"by_hand": "pages < 9000"})
    assert plan(library, books()).verdict == "equal"
    bring_up(library, everything().contract)
    assert "delta.constraints.by_hand" in open_delta(library.uri("books")).metadata().configuration


def test_a_table_that_was_made_without_constraints_gets_them_if_its_rows_keep_them(lake: Lakehouse) -> None:
    """Such as one whose making was interrupted."""
    contract = books().contract
    DeltaTable.create(lake.uri("books"), stored_schema(contract), description=contract.description)
    rows = [{**row, "pages": 0} if n == 0 else row for n, row in enumerate(ROWS)]
    write_deltalake(
        lake.uri("books"), to_arrow(books(), [books().model_construct(**row) for row in rows]), mode="append"
    )
    found = plan(lake, books())
    assert found.verdict == "breaking"
    assert "which 1 stored row(s) break (isbn 9780000000000)" in found.breaking[0].text
    open_delta(lake.uri("books")).delete("pages = 0")
    bring_up(lake, books().contract)
    assert plan(lake, books()).verdict == "equal"


def test_a_table_from_before_such_records_is_compared_by_its_columns_alone(lake: Lakehouse) -> None:
    """No key and no rules stand in its schema; comments, types and constraints do."""
    from lakehouse.contracts.arrow import arrow_schema

    contract = books().contract
    DeltaTable.create(lake.uri("books"), arrow_schema(contract), description=contract.description)
    open_delta(lake.uri("books")).alter.add_constraint(evolution.check_constraints(contract))
    assert plan(lake, books()).verdict == "equal"
    assert said(plan(lake, books_with(weight=float | None))) == {"weight add column": "additive"}


def test_a_plan_names_the_tables_and_models_that_depend_on_the_table(library: Lakehouse) -> None:
    class Review(Table, name="reviews"):
        number: Annotated[int, Key()]
        isbn: Annotated[str, References("books.isbn")]

    class Count(Table, name="book_counts"):
        day: Annotated[date, Key()]

    made = published(Count.contract, 1, 1).model_copy(update={"inputs": ["books@2"], "publication_id": "c"})
    library.ledger.append([made])
    library.ledger.append([run("books@2", "40de1"), run("films@2", "0dd")])
    library.ledger.append([promotion("40de1"), promotion("0dd")])
    touches = plan(library, books_with(weight=float | None)).touches
    assert (touches.tables, touches.models) == (("book_counts", "reviews"), ("40de1",))


def promotion(digest: str) -> Promotion:
    return Promotion(
        promotion_id=digest,
        day=date(1998, 3, 1),
        model_digest=digest,
        model_path="m",
        registry_version=1,
        trained_until=AT,
        promoted_at=AT,
    )


def run(source: str, model: str) -> Run:
    return Run(
        run_id=source,
        execution="e",
        workflow="nightly",
        day=date(1998, 3, 1),
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=[source],
        outputs=[],
        artifacts=f'{{"model": "{model}"}}',
        metrics="{}",
        verdict="promoted",
        report="",
        seconds=1,
        finished_at=AT,
    )
