"""Expectations and anomalies refuse a version and leave the one before published; on real Deequ."""

from __future__ import annotations

import random
from datetime import date
from typing import Annotated

import pyarrow as pa
import pytest

from lakehouse import Lakehouse
from lakehouse.contracts.expectations import Expectation, OnlineNormal, RateOfChange
from lakehouse.contracts.table import Key, Subject, Table
from lakehouse.errors import AuditError
from lakehouse.gate.anomalies import anomalies
from lakehouse.gate.publish import publish
from lakehouse.gate.staging import stage
from lakehouse.ledger import Metric
from lakehouse.privacy.erasure import erase
from lakehouse.snapshot import Condition
from lakehouse.spark import spark_session

DAY = date(1998, 3, 1)


class Gauge(
    Table,
    name="audited_gauges",
    expectations=(
        Expectation("Mean", ("value",), ge=0, le=10),
        Expectation("Size", history=RateOfChange(le=3)),
        Expectation("Maximum", ("value",), history=OnlineNormal(at_least=2)),
    ),
):
    """A value of a gauge."""

    gauge_id: Annotated[int, Key()]
    value: float


def bring(lake: Lakehouse, batch_id: str, *rows: tuple[int, float]) -> int:
    table = pa.table({"gauge_id": [row[0] for row in rows], "value": [row[1] for row in rows]})
    return publish(lake, Gauge, stage(lake, Gauge, table, batch_id=batch_id, day=DAY)).version


def test_what_breaks_a_bound_or_its_own_past_is_refused_with_its_reason(lake: Lakehouse) -> None:
    published = bring(lake, "first", (1, 5.0), (2, 6.0))  # without a past nothing is unlike it
    with pytest.raises(AuditError, match=r"Mean\(value\) ge 0 le 10: it is 12;") as caught:
        bring(lake, "large", (3, 25.0))
    assert f"version {published} stays the published one" in caught.value.message
    assert lake.latest(Gauge).version == published
    with pytest.raises(AuditError, match=r"Size\(\) to the version before le 3: 8 is unlike its 1 published values"):
        bring(lake, "many", *((n, 5.0) for n in range(3, 9)))
    assert lake.latest(Gauge).version == published
    assert lake.latest(Gauge).count() == 2
    published = bring(lake, "good", (3, 6.0))  # the refused versions are no part of the past, nor of the table
    assert sorted(lake.latest(Gauge).arrow(["gauge_id"])["gauge_id"].to_pylist()) == [1, 2, 3]
    last = [p for p in lake.publications("audited_gauges") if not p.published]
    assert [len(p.failed_checks) for p in last] == [1, 1]
    assert lake.latest(Gauge).version == published


class Visit(Table, name="audited_visits", expectations=(Expectation("Size", history=RateOfChange(ge=0.6)),)):
    """Who came."""

    visit_id: Annotated[int, Key()]
    guest: Annotated[int, Subject()]


def test_a_table_that_an_erasure_made_smaller_is_judged_by_what_it_left(lake: Lakehouse) -> None:
    def come(batch_id: str, guests: list[int], first: int) -> int:
        rows = pa.table({"visit_id": range(first, first + len(guests)), "guest": guests})
        return publish(lake, Visit, stage(lake, Visit, rows, batch_id=batch_id, day=DAY)).version

    come("first", [7] * 6 + [1, 2, 3, 4], 0)
    erase(lake, subject="audited_visits.guest", value=7, reason="asked", requested_by="desk")
    erased = lake.latest(Visit).version
    published = come("second", [5], 10)
    assert lake.latest(Visit).version == published
    where: list[Condition] = [("table_name", "=", "audited_visits")]
    sizes = {m.version: m.value for m in lake.ledger.read(Metric, where) if m.metric == "Size"}
    assert list(sizes.values()) == [10, 4, 5]
    assert sizes[erased] == 4, "the erased version has its own metrics"


def test_a_rate_of_change_is_judged_against_the_version_before() -> None:
    found = anomalies(spark_session(), RateOfChange(ge=0.9, le=1.5), [100, 120, 100, 160, 160], first=0)
    assert list(found) == [2, 3]
    assert anomalies(spark_session(), RateOfChange(ge=0.9), [100], first=0) == {}


def test_a_jump_alarms_and_quiet_data_almost_never_does() -> None:
    """False-alarm rate of the default (3 deviations, 12 values of past): 2 of 2400 judged values, 0.08 %.

    50 seeded series of 60 normal values. Less than the 0.27 % of a known deviation, as Deequ counts the judged value
    into it. A jump of 20 deviations alarms in every series.
    """
    spark = spark_session()
    strategy = OnlineNormal()
    random_values = random.Random(4)
    judged = alarms = 0
    for _ in range(50):
        quiet = [random_values.gauss(100, 5) for _ in range(60)]
        alarms += len(anomalies(spark, strategy, quiet, first=0))
        judged += len(quiet) - strategy.at_least
        past = [*quiet[: strategy.at_least], 200.0]
        assert list(anomalies(spark, strategy, past, first=strategy.at_least)) == [strategy.at_least]
    assert judged == 2400
    assert alarms <= 6


def test_less_past_than_wanted_is_not_judged_and_less_than_ten_values_could_not_alarm() -> None:
    spark = spark_session()
    quiet = [100.0 + (-1) ** n for n in range(20)]
    for past in range(OnlineNormal().at_least):
        assert anomalies(spark, OnlineNormal(), [*quiet[:past], 1e6], first=past) == {}
    for past in (2, 5, 8):  # Deequ counts the judged value into its own deviation
        assert anomalies(spark, OnlineNormal(at_least=2), [*quiet[:past], 1e6], first=past) == {}
    assert anomalies(spark, OnlineNormal(), [*quiet[:12], 1e6], first=12)
