from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import Field

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.expectations import Expectation
from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.gate.deequ import analyzer, measure, table_metrics
from lakehouse.gate.metric_states import KeptStates, State, advanced, after, keep_states, kept_states
from lakehouse.gate.publish import publish
from lakehouse.gate.staging import stage
from lakehouse.ledger import Metric
from lakehouse.snapshot import open_delta
from lakehouse.spark import spark_session

NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)
DAY = date(1998, 3, 1)


class Reading(
    Table,
    name="metric_readings",
    expectations=(
        Expectation("Minimum", ("value",), ge=-1e6),
        Expectation("Maximum", ("value",), le=1e6),
        Expectation("Sum", ("value",), le=1e9),
        Expectation("StandardDeviation", ("value",), le=1e6),
        Expectation("ApproxCountDistinct", ("label",), ge=1),
        Expectation("MaxLength", ("label",), le=10),
        Expectation("MinLength", ("label",), ge=1),
        Expectation("ApproxQuantile", ("value",), quantile=0.5, le=1e6),
        Expectation("Uniqueness", ("label",), ge=0),
        Expectation("Correlation", ("value", "number"), ge=-1),
        Expectation("Compliance", condition="value >= 0", ge=0),
    ),
):
    """A value of a sensor."""

    reading_id: Annotated[int, Key()]
    value: float | None
    number: int
    label: Annotated[str, Field(min_length=1)]
    read_at: Annotated[datetime, EventTime()]


ROWS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.one_of(st.none(), st.floats(-1e3, 1e3, allow_nan=False)),
        st.integers(-5, 5),
        st.sampled_from(["a", "bb", "ccc", "dddd"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def readings_lake(tmp_path_factory: pytest.TempPathFactory) -> Lakehouse:
    """A lake with forty readings in several files, so that a batch leaves some of them alone."""
    lake = Lakehouse.open(tmp_path_factory.mktemp("readings") / "lake", create=True)
    for part in range(4):
        rows = [(part * 100 + n + 1000, float(n), n % 7 - 3, "ab"[n % 2] * (1 + n % 3), 0) for n in range(60)]
        bring(lake, rows)
    return lake


def bring(lake: Lakehouse, rows: Sequence[tuple[int, float | None, int, str, int]]) -> int:
    records = [
        {"reading_id": i, "value": v, "number": n, "label": label, "read_at": NOON + timedelta(minutes=at)}
        for i, v, n, label, at in rows
    ]
    table = pa.Table.from_pylist(records, schema=arrow_schema(Reading.contract))
    number = len(lake.publications())
    return publish(lake, Reading, stage(lake, Reading, table, batch_id=f"batch-{number}", day=DAY)).version


@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate])
@given(rows=ROWS)
def test_after_any_batches_the_metrics_equal_a_full_pass_over_the_version(
    readings_lake: Lakehouse, rows: list[tuple[int, float | None, int, str, int]]
) -> None:
    """To 1e-8 of the value or absolutely; an approximate quantile is always a full pass."""
    lake = readings_lake
    version = bring(lake, rows)
    spark = spark_session()
    table = spark.read.format("delta").option("versionAsOf", version).load(lake.uri("metric_readings"))
    wanted = {e: analyzer(spark, e) for e in (*table_metrics(Reading.contract), *Reading.contract.expectations)}
    full, _ = measure(table, list(wanted.values()))
    stored = {(m.metric, m.column): m.value for m in lake.ledger.read(Metric) if m.version == version}
    for measured in full.values():
        expected = measured.value
        found = stored.get((measured.metric, measured.column))
        assert (found is None) == (expected is None), measured
        if expected is not None and found is not None:
            assert math.isclose(found, expected, rel_tol=1e-8, abs_tol=1e-8), measured
    assert stored["Uniqueness", "key"] == 1


def test_a_small_batch_into_several_files_does_not_read_the_whole_table_again(
    readings_lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(rows, analyzers):  # type: ignore[no-untyped-def]
        read.append(rows.count())
        return measure(rows, analyzers)

    monkeypatch.setattr("lakehouse.gate.auditing.measure", counted)
    version = bring(readings_lake, [(5000, 1.0, 1, "a", 0), (5001, 1.0, 1, "a", 0)])
    kept = kept_states(readings_lake, "metric_readings", version)
    assert kept is not None
    assert kept.steps > 0
    # The batch's own two rows; then quantile, uniqueness and correlation over all.
    assert read[0] == 2
    assert len(read) == 2


def test_states_are_computed_anew_after_another_writers_commit(readings_lake: Lakehouse) -> None:
    before = bring(readings_lake, [(6000, 1.0, 1, "a", 0)])
    open_delta(readings_lake.uri("metric_readings")).delete("reading_id = 6000")
    version = bring(readings_lake, [(6001, 1.0, 1, "a", 0)])
    first, second = (kept_states(readings_lake, "metric_readings", v) for v in (before, version))
    assert first is not None
    assert first.steps > 0
    assert second is not None
    assert second.steps == 0


# One state after one commit


def state(kind: str, *values: float) -> State:
    return State.model_validate({"kind": kind, "values": values})


@pytest.mark.parametrize(
    ("before", "removed", "added", "result"),
    [
        (state("count", 5), state("count", 2), state("count", 4), state("count", 7)),
        (state("share", 3, 5), state("share", 3, 3), None, state("share", 0, 2)),
        (state("share", 3, 5), state("share", 3, 5), None, None),
        (state("mean", 10.0, 4), state("mean", 4.0, 1), state("mean", 1.0, 1), state("mean", 7.0, 4)),
        (state("min", 1.0), None, state("min", 0.5), state("min", 0.5)),
        (state("min", 1.0), state("min", 2.0), None, state("min", 1.0)),
        (state("min", 1.0), state("min", 1.0), state("min", 1.0), state("min", 1.0)),
        (state("max", 9.0), state("max", 9.0), state("max", 9.5), state("max", 9.5)),
        (None, None, state("sum", 1.0), state("sum", 1.0)),
    ],
)
def test_rows_are_added_and_taken_away(
    before: State | None, removed: State | None, added: State | None, result: State | None
) -> None:
    assert after(before, removed, added) == (True, result)


@pytest.mark.parametrize(
    ("before", "removed", "added"),
    [
        (state("min", 1.0), state("min", 1.0), state("min", 2.0)),  # the smallest may be gone
        (state("max", 9.0), state("max", 9.0), None),
        (state("distinct", 3), state("distinct", 2), state("distinct", 1)),
        (state("sum", 1e9), state("sum", 1e9 - 1), None),  # nearly all digits cancel
        (state("mean", 1.0, 3), state("mean", math.inf, 1), None),
        (None, state("sum", 1.0), None),
        (state("share", 1, 1), state("share", 2, 2), None),
    ],
)
def test_what_can_not_be_said_is_computed_anew(
    before: State | None, removed: State | None, added: State | None
) -> None:
    assert after(before, removed, added) == (False, None)
    if before is not None:
        assert advanced({"x": before}, {"x": removed}, {"x": added}) == ({}, {"x"})


def test_states_of_twenty_versions_are_kept(lake: Lakehouse) -> None:
    for version in range(30):
        keep_states(
            lake, "t", version, KeptStates(unique=True, steps=0, states={"Size(None)": state("count", version)})
        )
    assert [v for v in range(30) if kept_states(lake, "t", v)] == list(range(9, 30))
    lake.storage.write(f"_states/t/{29:020d}.json", b"{", overwrite=True)
    assert kept_states(lake, "t", 29) is None
