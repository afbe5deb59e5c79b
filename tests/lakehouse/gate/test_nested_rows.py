"""Rows with nested models on their way through the gate: judged at every depth, quarantined whole, merged, compared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pydantic import BaseModel, Field

from lakehouse import EventTime, Key, Lakehouse, Table
from lakehouse.errors import BatchSchemaError
from lakehouse.gate.publish import publish
from lakehouse.gate.quarantine import refused_rows, requeue
from lakehouse.gate.staging import stage
from lakehouse.query.sql import query
from lakehouse.snapshot import Snapshot
from lakehouse.spark import spark_session

DAY = date(1998, 3, 1)


class Address(BaseModel):
    city: Annotated[str, Field(min_length=1)]
    code: Annotated[str | None, Field(pattern="^[0-9]{4}$")]


class Line(BaseModel):
    sku: str
    price: Annotated[Decimal, Field(ge=0, max_digits=6, decimal_places=2)]
    count: Annotated[int, Field(ge=1, multiple_of=2)]
    packed_at: datetime | None
    to: Address | None
    notes: Annotated[list[str], Field(max_length=2)]


class Order(Table, name="nested_orders"):
    """What was sent where."""

    order_id: Annotated[int, Key()]
    placed_at: Annotated[datetime, EventTime()]
    to: Address
    gift_to: Address | None
    lines: Annotated[list[Line], Field(min_length=1)]


Record = dict[str, Any]


def address(**changed: object) -> Record:
    return {"city": "Delft", "code": "2611", **changed}


def line(**changed: object) -> Record:
    """As a careless sender has it: numbers as text or with a point, times as text."""
    plain = {"sku": "a", "price": "3.50", "count": 2.0, "packed_at": "1998-03-01T10:00:00Z", "to": None, "notes": ["x"]}
    return plain | changed


def order(number: int, **changed: object) -> Record:
    came = {"order_id": number, "placed_at": "1998-03-01T09:00:00Z", "to": address(), "gift_to": None}
    return came | {"lines": [line(), line(to=address())]} | changed


#: What each order breaks.
ORDERS: list[tuple[Record, list[str]]] = [
    (order(0), []),
    (order(1, gift_to=address(code=None)), []),
    (order(2, to=address(code="261")), ["to.code pattern ^[0-9]{4}$"]),
    (order(3, to=None), ["to required"]),
    (order(4, to=address(city=None)), ["to.city required"]),
    (order(5, gift_to=address(city="")), ["gift_to.city min_length 1"]),
    (order(6, lines=[]), ["lines min_length 1"]),
    (order(7, lines=[line(), None]), ["lines type LINES"]),
    (order(8, lines=[line(count=1.5)]), ["lines type LINES"]),
    (order(9, lines=[line(price="dear")]), ["lines type LINES"]),
    (order(10, lines=[line(notes=["x", None])]), ["lines type LINES"]),
    (
        order(11, lines=[line(), line(price="-1", count=3)]),
        ["lines[].price ge 0", "lines[].count multiple_of 2"],
    ),
    (order(12, lines=[line(sku=None)]), ["lines[].sku required"]),
    (order(13, lines=[line(), line(to=address(city=""))]), ["lines[].to.city min_length 1"]),
    (order(14, lines=[line(notes=["x", "y", "z"])]), ["lines[].notes max_length 2"]),
    (order(15, lines=[line(price=None)]), ["lines[].price required"]),
]
LINES = str(Order.contract.column("lines").type)


def bring(lake: Lakehouse, batch_id: str, *orders: Record) -> Snapshot[Order]:
    return publish(lake, Order, stage(lake, Order, pa.Table.from_pylist(list(orders)), batch_id=batch_id, day=DAY))


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Lakehouse:
    """A lake in which the orders were published; read it only."""
    lake = Lakehouse.open(tmp_path_factory.mktemp("nested") / "lake", create=True)
    bring(lake, "first", *(order for order, _ in ORDERS))
    return lake


def test_each_row_is_judged_at_every_depth_and_kept_or_quarantined_as_it_came(orders: Lakehouse) -> None:
    refused = {row.quarantined.row_number: row for row in refused_rows(orders, "nested_orders")}
    expected = {n: [rule.replace("LINES", LINES) for rule in broken] for n, (_, broken) in enumerate(ORDERS) if broken}
    assert {n: row.quarantined.rules for n, row in refused.items()} == expected
    assert all(row.values == ORDERS[n][0] for n, row in refused.items()), "nothing of a refused row is lost"
    assert refused[11].offending == {"lines[].price ge 0": ["3.50", "-1"], "lines[].count multiple_of 2": [2, 3]}
    assert refused[4].offending == {"to.city required": None}
    (publication,) = orders.publications()
    assert (publication.rows_in, publication.rows_published, publication.rows_quarantined) == (16, 2, 14)


def test_good_rows_are_read_back_in_the_declared_types(orders: Lakehouse) -> None:
    first, second = sorted(orders.latest(Order).rows(), key=lambda row: row.order_id)
    assert first == Order(
        order_id=0,
        placed_at=datetime(1998, 3, 1, 9, tzinfo=UTC),
        to=Address(city="Delft", code="2611"),
        gift_to=None,
        lines=[
            Line(
                sku="a",
                price=Decimal("3.50"),
                count=2,
                packed_at=datetime(1998, 3, 1, 10, tzinfo=UTC),
                to=to,
                notes=["x"],
            )
            for to in (None, Address(city="Delft", code="2611"))
        ],
    )
    assert second.gift_to == Address(city="Delft", code=None)


@pytest.mark.parametrize("engine", ["spark", "delta-rs", "sql", "polars", "duckdb"])
def test_every_engine_reads_the_nested_fields(orders: Lakehouse, engine: str) -> None:
    snapshot = orders.latest(Order)

    def by_spark() -> list[Decimal]:
        table = f"delta.`{snapshot.uri}`"
        found = spark_session(orders.root).sql(f"SELECT line.price FROM {table} LATERAL VIEW explode(lines) AS line")
        return [row[0] for row in found.collect()]

    def by_duckdb() -> list[Decimal]:
        with duckdb.connect() as connection:
            return [p for (p,) in snapshot.duckdb(connection).project("unnest(lines).price").fetchall()]

    ways: dict[str, Callable[[], list[Decimal]]] = {
        "spark": by_spark,
        "delta-rs": lambda: [
            line["price"]
            for lines in pa.table(DeltaTable(snapshot.uri).scan(columns=["lines"]))["lines"].to_pylist()
            for line in lines
        ],
        "sql": lambda: query(orders, "SELECT unnest(lines).price AS price FROM nested_orders")["price"].to_pylist(),
        "polars": lambda: snapshot.polars(["lines"]).explode("lines").unnest("lines")["price"].to_list(),
        "duckdb": by_duckdb,
    }
    assert ways[engine]() == [Decimal("3.50")] * 4


def test_a_corrected_row_goes_in_and_a_newer_one_takes_its_place(lake: Lakehouse) -> None:
    before = bring(lake, "first", order(1), order(2, to=address(code="261")))
    (refused,) = refused_rows(lake, "nested_orders")
    after = requeue(lake, Order, {refused.quarantined.quarantine_id: {"to": address(code="2612")}})
    assert {row.order_id: row.to.code for row in after.rows()} == {1: "2611", 2: "2612"}
    later = bring(lake, "second", order(1, placed_at="1998-03-01T11:00:00Z", lines=[line(price=4)]))
    assert {row.order_id: len(row.lines) for row in later.rows()} == {1: 1, 2: 2}
    (added, changed) = sorted(before.diff(later).rows(), key=lambda row: row.kind)
    assert (added.kind, added.after and added.after["to"]) == ("added", {"city": "Delft", "code": "2612"})
    assert (changed.kind, changed.columns) == ("changed", ("placed_at", "lines"))
    assert changed.after and changed.after["lines"][0]["price"] == Decimal("4.00")  # type: ignore[index]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"to": address(planet="Mars")}, r"to\.planet"),
        ({"lines": [line(colour="red")]}, r"lines\[\]\.colour"),
        ({"to": {"code": "2611"}}, r"to\.city"),
        ({"lines": [{"sku": "a"}]}, r"lines\[\]\.price"),
    ],
)
def test_a_batch_whose_nested_fields_are_others_is_refused_as_a_whole(
    lake: Lakehouse, changed: Record, message: str
) -> None:
    with pytest.raises(BatchSchemaError, match=message):
        bring(lake, "other", order(1) | changed)
    assert lake.names() == []


def test_optional_fields_may_be_left_out_and_what_is_no_object_is_quarantined(lake: Lakehouse) -> None:
    bare = {"sku": "a", "price": "1", "count": 2, "notes": []}
    published = bring(lake, "bare", order(1, to={"city": "Delft"}, lines=[bare]))
    (row,) = published.rows()
    assert (row.to.code, row.lines[0].to, row.lines[0].notes) == (None, None, [])
    for number, strange in enumerate(("Delft", {}, [address()], 3)):
        batch = stage(lake, Order, pa.Table.from_pylist([order(2, gift_to=strange)]), batch_id=f"s{number}", day=DAY)
        assert publish(lake, Order, batch).version == published.version
    refused = refused_rows(lake, "nested_orders")
    assert {tuple(row.quarantined.rules) for row in refused} == {("gift_to type {city: str, code: str?}",)}
    assert [row.values["gift_to"] for row in refused] == ["Delft", "{}", [address()], 3]
