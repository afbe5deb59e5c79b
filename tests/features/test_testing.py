"""The kit as a user has it: a view of their own, tested without a lake or Spark; and each assertion can fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
import pytest

from features.aggregations import Aggregation, Count, Mean, Part, TogetherWith
from features.feature_view import FeatureView
from features.store import FeatureStore
from features.testing import (
    WriteView,
    assert_distribution_unchanged,
    assert_no_leak,
    assert_parity,
    assert_schema,
)
from lakehouse.contracts.contract import Column, Contract
from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication

if TYPE_CHECKING:
    import polars as pl

pytest_plugins = ["features.testing"]


# A user's own tables: sales as they come, and what is known of each shop.


class Sale(Table, name="kit_sales"):
    """One sale."""

    shop: Annotated[str, Key()]
    basket: Annotated[int, Key()]
    price: float
    sold_at: Annotated[datetime, Key(), EventTime()]
    booked_at: datetime


class ShopStats(FeatureView, name="kit_shop_stats", source=Sale, created="booked_at", ttl=timedelta(days=20)):
    """What a shop sold."""

    shop: Annotated[str, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    sales: Annotated[int, Count()]
    mean_price: Annotated[float | None, Mean("price", days=7)]
    like: Annotated[list[str], TogetherWith(by="basket", days=7, top=2)]


def sales(seed: int, *, mean: float = 10.0, rows: int = 3000) -> pa.Table:
    """Sales of 20 shops in 60 days."""
    rng = np.random.default_rng(seed)
    instants = np.datetime64("2024-01-01T00:00:00.000000") + rng.integers(0, 60 * 86_400_000_000, rows).astype("m8[us]")
    times = pa.array(np.sort(instants)).cast(pa.timestamp("us", tz="UTC"))
    return pa.table(
        {
            "shop": pa.array([f"s{number}" for number in rng.integers(0, 20, rows)]),
            "basket": pa.array(rng.integers(0, 500, rows)),
            "price": pa.array(rng.normal(mean, 2, rows)),
            "sold_at": times,
            "booked_at": times,
        }
    )


# Their tests.


def test_no_row_knows_the_future() -> None:
    assert_no_leak(ShopStats)


def test_online_is_what_offline_is() -> None:
    assert_parity(ShopStats, cases=2)


def test_the_columns_are_those_of_the_version_in_use(view_snapshot: WriteView) -> None:
    in_use = view_snapshot(ShopStats, ShopStats.compute(sales(1)))
    assert_schema(ShopStats, against=in_use)


def test_the_distribution_is_that_of_the_version_in_use(view_snapshot: WriteView) -> None:
    in_use = view_snapshot(ShopStats, ShopStats.compute(sales(1)))
    assert_distribution_unchanged(ShopStats, against=in_use, rows=ShopStats.compute(sales(2)))


def test_a_store_of_ones_own_agrees_with_itself(feature_store: FeatureStore, view_snapshot: WriteView) -> None:
    feature_store.apply([view_snapshot(ShopStats, ShopStats.compute(sales(1)))])
    feature_store.materialize(date(2024, 2, 1))
    assert_parity(ShopStats, store=feature_store)


# Each assertion fails where it should.


@dataclass(frozen=True, kw_only=True)
class OfAllTime(Aggregation):
    """A leak as it is easily written: the number of all events of the table, whenever they were."""

    def problem(self, column: Column, source: Contract, *, may_be_empty: bool) -> str | None:
        return None

    def parts(self, source: Contract) -> Mapping[str, Part]:
        import polars as pl

        return {"n": Part(pl.len().cast(pl.Int64), "sum")}

    def value(self, parts: Mapping[str, pl.Expr]) -> pl.Expr:
        return parts["n"].max()  # over every row of the view, later ones too


class Leaky(FeatureView, name="kit_leaky", source=Sale):
    """Knows the busiest day of all, also of those to come."""

    shop: Annotated[str, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    most: Annotated[int, OfAllTime()]


def test_a_feature_of_the_whole_table_is_found_to_leak() -> None:
    with pytest.raises(AssertionError, match=r"kit_leaky\.most knows the future: for shop .+ at 2024-.* once \d+ row"):
        assert_no_leak(Leaky)


def test_a_correction_that_reaches_back_is_found_to_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the computation forgot when an event was written down."""
    from dataclasses import replace

    from features import compute as module

    honest = module.compute

    def forgetful(contract: Contract, declaration: object, rows: pa.Table, **bounds: object) -> pa.Table:
        return honest(contract, replace(declaration, created=None), rows, **bounds)  # type: ignore[type-var, arg-type]

    monkeypatch.setattr(module, "compute", forgetful)
    with pytest.raises(AssertionError, match=r"kit_shop_stats\.\w+ knows the future"):
        assert_no_leak(ShopStats, cases=60)


def test_a_join_that_looks_ahead_is_found_to_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from features import testing
    from features.point_in_time import join_as_of

    def ahead(entities: pa.Table, time: str, lookups: list[object]) -> pa.Table:
        at = entities.column_names.index(time)
        later = pa.array([value + timedelta(days=1) for value in entities[time].to_pylist()], entities[time].type)
        return join_as_of(entities.set_column(at, time, later), time, [replace(one) for one in lookups])  # type: ignore[type-var]

    monkeypatch.setattr(testing, "join_as_of", ahead)
    with pytest.raises(AssertionError, match="knows the future"):
        assert_no_leak(ShopStats)


def test_a_store_that_did_not_follow_its_pin_is_found_to_differ(
    feature_store: FeatureStore, view_snapshot: WriteView
) -> None:
    feature_store.apply([view_snapshot(ShopStats, ShopStats.compute(sales(1)))])
    feature_store.materialize(date(2024, 2, 1))
    feature_store.apply([view_snapshot(ShopStats, ShopStats.compute(sales(2)))])
    with pytest.raises(AssertionError, match=r"of 60 online values of kit_shop_stats@1 differ .*shop s\d+: sales is"):
        assert_parity(ShopStats, store=feature_store)


def test_an_online_path_that_is_off_by_one_is_found_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FeatureStore.online

    def off_by_one(self: FeatureStore, entities: pa.Table, views: list[str]) -> pa.Table:
        answer = honest(self, entities, views)
        column = answer.column_names.index("kit_shop_stats__sales")
        wrong = pa.array([value and value + 1 for value in answer[column].to_pylist()], pa.int64())
        return answer.set_column(column, answer.schema.field(column), wrong)

    monkeypatch.setattr(FeatureStore, "online", off_by_one)
    with pytest.raises(AssertionError, match=r"online values of kit_shop_stats@\d+ differ"):
        assert_parity(ShopStats)


def test_a_column_that_came_went_or_changed_its_type_is_found(view_snapshot: WriteView) -> None:
    class Before(Table, name="kit_shop_stats_before"):
        """As it was."""

        shop: Annotated[str, Key()]
        known_at: Annotated[datetime, Key(), EventTime()]
        sales: float
        visits: int

    in_use = view_snapshot(Before, pa.table(_empty(Before)))
    with pytest.raises(
        AssertionError, match=r"mean_price is new; like is new; visits is gone; sales is int64 and was double"
    ):
        assert_schema(ShopStats, against=in_use)


def test_a_shifted_price_is_found(view_snapshot: WriteView) -> None:
    in_use = view_snapshot(ShopStats, ShopStats.compute(sales(1)))
    with pytest.raises(AssertionError, match=r"has drifted from kit_shop_stats@0: mean_price \(PSI [\d.]+ > 0.2\)\."):
        assert_distribution_unchanged(
            ShopStats, against=in_use, rows=ShopStats.compute(sales(2, mean=14.0)), features=["sales", "mean_price"]
        )


def test_too_few_rows_to_tell_fail_and_do_not_pass(view_snapshot: WriteView) -> None:
    in_use = view_snapshot(ShopStats, ShopStats.compute(sales(1)))
    with pytest.raises(AssertionError, match=r"\d+ row\(s\) are too few .* it takes 300"):
        assert_distribution_unchanged(ShopStats, against=in_use, rows=ShopStats.compute(sales(2, rows=100)))


def test_a_reference_is_looked_up_in_the_lake_and_the_view_is_computed_from_its_published_source(
    lake: Lakehouse,
) -> None:
    from deltalake import write_deltalake

    from lakehouse.contracts.arrow import arrow_schema

    for row, rows in ((Sale, sales(3, mean=14.0)), (ShopStats, ShopStats.compute(sales(1)))):
        write_deltalake(lake.uri(row.contract.table), rows.cast(arrow_schema(row.contract)))
        lake.ledger.append([_publication(row)])
    assert_schema(ShopStats, against="kit_shop_stats@0")
    with pytest.raises(AssertionError, match="has drifted from kit_shop_stats@0: mean_price"):
        assert_distribution_unchanged(ShopStats, against="kit_shop_stats@0", features=["mean_price"])


def _empty(row: type[Table]) -> dict[str, pa.Array]:
    from lakehouse.contracts.arrow import arrow_schema

    return {field.name: pa.array([], field.type) for field in arrow_schema(row.contract)}


def _publication(row: type[Table]) -> Publication:
    name = row.contract.table
    return Publication(
        publication_id=f"{name}/first@0",
        table_name=name,
        batch_id="first",
        day=date(2024, 3, 1),
        version=0,
        published=True,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint=row.contract.fingerprint,
        published_at=datetime(2024, 3, 1, tzinfo=UTC),
    )
