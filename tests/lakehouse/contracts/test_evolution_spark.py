"""Evolution as a batch meets it: the gate brings the table up, and Spark reads what delta-rs made of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Literal

import pyarrow as pa
import pytest
from pydantic import Field

from lakehouse import EventTime, Key, Lakehouse, Table
from lakehouse.contracts.evolution import plan
from lakehouse.errors import EvolutionError
from lakehouse.gate.publish import publish_rows
from lakehouse.snapshot import open_delta

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row models that a test declares are forgotten after it."""
    monkeypatch.setattr(Table, "_registry", dict(Table._registry))


def coins(mint: object, *, digits: int = 6) -> type[Table]:
    """A small table; ``mint`` is the type of its one column that changes, None for none."""
    annotations = {
        "number": Annotated[int, Key(), Field(ge=1)],
        "value": Annotated[Decimal, Field(max_digits=digits, decimal_places=2)],
        "seen_at": Annotated[datetime, EventTime()],
    }
    if mint is not None:
        annotations["mint"] = mint  # type: ignore[assignment]
    body = {"__annotations__": annotations, "__doc__": "Coins.", "__module__": __name__}
    return type(Table)("Coin", (Table,), body, name="coins")


def batch(lake: Lakehouse, row_model: type[Table], day: int, rows: dict[str, list[object]]) -> int:
    """Publish a day's rows; the version that readers get."""
    numbers = len(rows["number"])
    columns = {**rows, "seen_at": pa.array([AT] * numbers, pa.timestamp("us", "UTC"))}
    table = pa.table(columns)
    return publish_rows(lake, row_model, lambda: table, batch_id=f"{day}", day=date(2026, 1, day)).version


def test_a_batch_brings_its_table_up_to_the_declaration_and_every_engine_reads_it(lake: Lakehouse) -> None:
    from lakehouse.spark import spark_session

    batch(lake, coins(None), 1, {"number": [1, 2], "value": [Decimal("1.50"), Decimal("2.00")]})
    later = coins(Annotated[Literal["Bonn", "Ulm"] | None, Field(description="Where.")], digits=9)
    large = Decimal("1234567.25")
    version = batch(lake, later, 2, {"number": [2, 3, 4], "value": [large] * 3, "mint": ["Ulm", None, "Rom"]})
    expected = [(1, Decimal("1.50"), None), (2, large, "Ulm"), (3, large, None)]
    latest = lake.latest(later)
    assert latest.version == version
    assert sorted((r["number"], r["value"], r["mint"]) for r in latest.arrow().to_pylist()) == expected
    by_spark = spark_session().read.format("delta").load(lake.uri("coins")).orderBy("number")
    assert [(row["number"], row["value"], row["mint"]) for row in by_spark.collect()] == expected
    assert by_spark.schema["mint"].metadata["comment"] == "Where."
    kinds = [p.kind for p in lake.publications("coins")]
    assert kinds == ["batch", "evolve", "batch"]
    assert plan(lake, later).changes == ()
    assert open_delta(lake.uri("coins")).protocol().min_reader_version == 1


def test_a_batch_for_a_table_that_differs_too_much_waits_and_changes_nothing(lake: Lakehouse) -> None:
    batch(lake, coins(None), 1, {"number": [1], "value": [Decimal("1.50")]})
    version = open_delta(lake.uri("coins")).version()
    rows: dict[str, list[object]] = {"number": [2], "value": [Decimal("1.50")], "mint": ["Ulm"]}
    with pytest.raises(EvolutionError, match="mint"):
        batch(lake, coins(str), 2, rows)
    assert open_delta(lake.uri("coins")).version() == version
    assert batch(lake, coins(str | None), 2, rows) > version
    assert [p.batch_id for p in lake.publications("coins") if p.kind == "batch"] == ["1", "2"]
