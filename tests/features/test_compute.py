"""Computed features are right by hand, no row knows what comes after it, and a day more gives the bits of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from features.aggregations import ActiveDays, Count, LastTime, Mean, TogetherWith
from features.feature_view import FeatureView
from features.tables import ItemStats, UserStats
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.tables import Rating

Ratings = Callable[[Sequence[tuple[int, int, float, datetime]]], pa.Table]
slow = settings(max_examples=40, derandomize=True, deadline=None)


class Purchase(Table, name="test_purchases"):
    """One thing in one basket, written down when the till was read out."""

    shop: Annotated[str, Key()]
    basket: Annotated[int, Key()]
    thing: Annotated[int, Key()]
    price: float | None
    bought_at: Annotated[datetime, Key(), EventTime()]
    read_at: datetime


class ThingStats(FeatureView, name="test_thing_stats", source=Purchase, created="read_at"):
    """Every aggregation, with and without a window, over events that may be written down late."""

    thing: Annotated[int, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    bought: Annotated[int, Count()]
    bought_lately: Annotated[int, Count(days=3)]
    mean_price: Annotated[float | None, Mean("price")]
    mean_price_lately: Annotated[float | None, Mean("price", days=3)]
    days: Annotated[int, ActiveDays()]
    days_lately: Annotated[int, ActiveDays(days=3)]
    last_us: Annotated[int, LastTime()]
    last_lately_us: Annotated[int | None, LastTime(days=3)]
    together: Annotated[list[int], TogetherWith(by="basket", top=2, days=3)]


class ShopThings(FeatureView, name="test_shop_things", source=Purchase):
    """An entity of two columns."""

    shop: Annotated[str, Key()]
    thing: Annotated[int, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    bought: Annotated[int, Count(days=2)]
    mean_price: Annotated[float | None, Mean("price", days=2)]


def at(day: int, hour: int = 12, month: int = 3) -> datetime:
    return datetime(1998, month, day, hour, tzinfo=UTC)


def micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def later(table: pa.Table, column: str, instant: datetime) -> pa.Table:
    return table.filter(pc.greater(table[column], pa.scalar(instant, table.schema.field(column).type)))


def test_user_statistics_are_cumulative_and_stamped_with_the_end_of_their_day(ratings: Ratings) -> None:
    table = ratings([(1, 10, 4, at(1)), (1, 20, 3, at(1, 23)), (1, 30, 2, at(4)), (2, 10, 5, at(4, 0))])
    assert [tuple(row.values()) for row in UserStats.compute(table).to_pylist()] == [
        (1, at(2, 0), 2, 3.5, 1, micros(at(1, 23))),
        (1, at(5, 0), 3, 3.0, 2, micros(at(4))),
        (2, at(5, 0), 1, 5.0, 1, micros(at(4, 0))),
    ]


def test_recent_count_covers_thirty_days_and_not_the_thirty_first(ratings: Ratings) -> None:
    # Rated on 1 and 2 March; the window of the row stamped 1 April begins on 2 March at 00:00.
    table = ratings([(1, 10, 4, at(1, 23)), (2, 10, 3, at(2, 0)), (3, 10, 5, at(31, 8))])
    assert [
        (row["computed_at"], row["ratings_count"], row["recent_count"]) for row in ItemStats.compute(table).to_pylist()
    ] == [
        (at(2, 0), 1, 1),
        (at(3, 0), 2, 2),
        (at(1, 0, month=4), 3, 2),
    ]


def test_after_and_until_leave_out_rows_and_change_none(ratings: Ratings) -> None:
    table = ratings([(1, 10, 4, at(1)), (1, 20, 3, at(2)), (2, 10, 1, at(2)), (1, 30, 5, at(3))])
    for view in (UserStats, ItemStats):
        whole = view.compute(table)
        late = later(whole, "computed_at", at(2, 0))
        middle = late.filter(pc.less_equal(late["computed_at"], pa.scalar(at(3, 0), late.schema[1].type)))
        assert 0 < middle.num_rows < late.num_rows < whole.num_rows
        assert view.compute(table, after=at(2, 0)).equals(late)
        assert view.compute(table, after=at(2, 0), until=at(3, 0)).equals(middle)


def test_results_have_the_contracts_schema_even_when_empty(ratings: Ratings) -> None:
    for view in (UserStats, ItemStats):
        assert view.compute(ratings([])).schema.equals(arrow_schema(view.contract))
        assert view.compute(ratings([(1, 10, 4, at(1))])).schema.equals(arrow_schema(view.contract))
    assert ThingStats.compute(to_arrow(Purchase, [])).schema.equals(arrow_schema(ThingStats.contract))


def test_a_mean_stays_between_the_values_whatever_the_rounding(ratings: Ratings) -> None:
    """(0.7 + 0.7 + 0.7) / 3 is below 0.7 in floating point: a rule ``ge=0.7`` would put the row into quarantine."""
    assert (0.7 + 0.7 + 0.7) / 3 < 0.7
    table = ratings([(1, item, 0.7, at(item)) for item in (1, 2, 3)])
    assert UserStats.compute(table)["mean_rating"].to_pylist() == [0.7, 0.7, 0.7]


def test_what_has_left_a_window_leaves_no_rounding_behind() -> None:
    """A running sum that adds and takes away would carry 1e16 + 0.1 - 1e16 = 0 on."""
    bought = [purchase(price=1e16, bought=at(1)), purchase(price=0.1, bought=at(2)), purchase(price=0.3, bought=at(3))]
    table = to_arrow(Purchase, bought)
    assert ShopThings.compute(table)["mean_price"].to_pylist() == [1e16, (1e16 + 0.1) / 2, (0.1 + 0.3) / 2]


def test_an_event_counts_from_when_it_was_written_down_and_for_the_day_it_happened() -> None:
    on_time = purchase(bought=at(1))
    late = purchase(basket=2, bought=at(1, 13), read=at(3))
    very_late = purchase(basket=3, bought=at(2), read=at(9))
    rows = ThingStats.compute(to_arrow(Purchase, [very_late, on_time, late])).to_pylist()
    assert [(r["known_at"], r["bought"], r["bought_lately"], r["days"], r["days_lately"]) for r in rows] == [
        (at(2, 0), 1, 1, 1, 1),
        (at(4, 0), 2, 2, 1, 1),  # of the same day
        (at(10, 0), 3, 0, 2, 0),  # known, but out of the window by now
    ]
    assert [r["last_lately_us"] for r in rows] == [micros(at(1)), micros(at(1, 13)), None]


def test_entities_met_together_are_counted_once_a_basket_and_ranked() -> None:
    baskets = {1: [7, 8, 9], 2: [7, 9, 9], 3: [7, 9], 4: [8, 7], 5: [7, 5], 6: [5, 9]}
    rows = [
        purchase(basket=basket, thing=thing, bought=at(1, hour=1 + n))
        for basket, things in baskets.items()
        for n, thing in enumerate(things)
    ]
    table = ThingStats.compute(to_arrow(Purchase, rows))
    # With 7 come 9 in three baskets, 8 in two (of which the top keeps two), 5 in one.
    assert dict(zip(table["thing"].to_pylist(), table["together"].to_pylist(), strict=True)) == {
        5: [7, 9],
        7: [9, 8],
        8: [7, 9],
        9: [7, 5],
    }


start = datetime(1998, 1, 1, tzinfo=UTC)
rating_rows = st.lists(
    st.builds(
        Rating,
        user_id=st.integers(1, 3),
        item_id=st.integers(1, 3),
        rating=st.floats(0.5, 5),
        rated_at=st.integers(0, 60 * 24 * 60).map(lambda minutes: start + timedelta(minutes=minutes)),
    ),
    min_size=1,
    max_size=30,
)


def purchase(
    *, basket: int = 1, thing: int = 7, price: float | None = 1.0, bought: datetime, read: datetime | None = None
) -> Purchase:
    return Purchase(shop="a", basket=basket, thing=thing, price=price, bought_at=bought, read_at=read or bought)


instants = st.integers(0, 8 * 24).map(lambda hours: start + timedelta(hours=hours))
purchases = st.lists(
    st.builds(
        Purchase,
        shop=st.sampled_from("ab"),
        basket=st.integers(1, 4),
        thing=st.integers(1, 4),
        price=st.none() | st.floats(0, 100),
        bought_at=instants,
        read_at=instants,
    ),
    max_size=25,
)


@slow
@given(rating_rows, st.randoms())
def test_the_order_of_the_ratings_does_not_matter(rows: list[Rating], random: object) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for view in (UserStats, ItemStats):
        assert view.compute(to_arrow(Rating, rows)).equals(view.compute(to_arrow(Rating, shuffled)))


@slow
@given(rating_rows)
def test_statistics_agree_with_a_count_by_hand(rows: list[Rating]) -> None:
    for row in ItemStats.compute(to_arrow(Rating, rows)).to_pylist():
        seen = [r for r in rows if r.item_id == row["item_id"] and r.rated_at < row["computed_at"]]
        assert row["ratings_count"] == len(seen)
        assert abs(row["mean_rating"] - sum(r.rating for r in seen) / len(seen)) < 1e-9
        assert row["recent_count"] == sum(r.rated_at >= row["computed_at"] - timedelta(days=30) for r in seen)
    for row in UserStats.compute(to_arrow(Rating, rows)).to_pylist():
        seen = [r for r in rows if r.user_id == row["user_id"] and r.rated_at < row["computed_at"]]
        assert row["ratings_count"] == len(seen)
        assert row["active_days"] == len({r.rated_at.date() for r in seen})
        assert row["last_rated_us"] == max(micros(r.rated_at) for r in seen)


@slow
@given(purchases)
def test_every_aggregation_agrees_with_a_search_by_hand(rows: list[Purchase]) -> None:
    table = ThingStats.compute(to_arrow(Purchase, rows))
    known_on = {(r.thing, max(r.bought_at, r.read_at).date() + timedelta(days=1)) for r in rows}
    assert {(row["thing"], row["known_at"].date()) for row in table.to_pylist()} == known_on
    for row in table.to_pylist():
        stamp, thing = row["known_at"], row["thing"]
        known = [r for r in rows if max(r.bought_at, r.read_at) < stamp]
        lately = [r for r in known if r.bought_at >= stamp - timedelta(days=3)]
        for suffix, seen in (("", known), ("_lately", lately)):
            own = [r for r in seen if r.thing == thing]
            prices = [r.price for r in own if r.price is not None]
            assert row[f"bought{suffix}"] == len(own)
            assert row[f"days{suffix}"] == len({r.bought_at.date() for r in own})
            mean = row[f"mean_price{suffix}"]
            assert (mean is None) == (not prices)
            assert mean is None or mean == pytest.approx(sum(prices) / len(prices), abs=1e-9)
            assert row[f"last{suffix}_us"] == max((micros(r.bought_at) for r in own), default=None)
        baskets = {r.basket for r in lately if r.thing == thing}
        met = {(r.basket, r.thing) for r in lately if r.basket in baskets and r.thing != thing}
        counted = Counter(other for _, other in met)
        assert row["together"] == sorted(counted, key=lambda other: (-counted[other], other))[:2]


@slow
@given(purchases)
def test_a_day_at_a_time_gives_the_bits_of_all_at_once(rows: list[Purchase]) -> None:
    """As a nightly run does it: each day from the events known by its end, and from nothing that comes later."""
    for view in (ThingStats, ShopThings, ShopDays):
        late = view is ThingStats
        whole = view.compute(to_arrow(Purchase, rows))
        days: list[pa.Table] = []
        for number in range(10):
            end = start + timedelta(days=number + 1)
            known = [r for r in rows if (max(r.bought_at, r.read_at) if late else r.bought_at) < end]
            days.append(view.compute(to_arrow(Purchase, known), after=end - timedelta(days=1)))
            assert days[-1].equals(view.compute(to_arrow(Purchase, rows), after=end - timedelta(days=1), until=end))
        order = [(name, "ascending") for name in view.contract.key]
        assert pa.concat_tables(days).sort_by(order).equals(whole.sort_by(order))


class ShopDays(FeatureView, name="test_shop_days", source=Purchase):
    """A mean over all history, where the order of summation would show."""

    shop: Annotated[str, Key(), Field(description="The shop.")]
    known_at: Annotated[datetime, Key(), EventTime()]
    mean_price: Annotated[float | None, Mean("price")]
    days: Annotated[int, ActiveDays(days=7)]
    last_us: Annotated[int, LastTime()]


@slow
@given(rating_rows, st.integers(0, 60))
def test_ratings_given_later_change_no_row_stamped_earlier(rows: list[Rating], day: int) -> None:
    cut = start + timedelta(days=day)
    early = to_arrow(Rating, [r for r in rows if r.rated_at < cut])
    for view in (UserStats, ItemStats):
        whole = view.compute(to_arrow(Rating, rows))
        known = whole.filter(
            pc.less_equal(whole["computed_at"], pa.scalar(cut, whole.schema.field("computed_at").type))
        )
        assert known.equals(view.compute(early))


def test_a_day_of_the_clock_is_a_day_in_utc_whatever_zone_the_source_writes(ratings: Ratings) -> None:
    table = ratings([(1, 10, 4, at(1, 23))])
    tokyo = table.set_column(3, "rated_at", table["rated_at"].cast(pa.timestamp("us", tz="Asia/Tokyo")))
    assert UserStats.compute(tokyo).equals(UserStats.compute(table))
    assert UserStats.compute(table)["computed_at"].to_pylist()[0].date() == date(1998, 3, 2)
