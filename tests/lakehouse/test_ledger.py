from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.errors import StorageError
from lakehouse.ledger import SYSTEM_TABLES, Decision, Ledger, Metric
from lakehouse.snapshot import open_delta, schema_of
from lakehouse.storage import storage_of


def metric(number: int, value: float = 1.0) -> Metric:
    return Metric(
        metric_id=f"m{number}",
        table_name="ratings",
        version=number,
        metric="Size",
        column="*",
        value=value,
        measured_at=datetime(2026, 1, 1, 0, 59 - number, 0, 123456, tzinfo=UTC),
    )


def test_rows_are_read_back_as_they_were_written_oldest_first(lake: Lakehouse) -> None:
    lake.ledger.append([metric(1), metric(2)])
    lake.ledger.append([metric(3)])
    assert list(lake.ledger.read(Metric)) == [metric(3), metric(2), metric(1)]


def test_a_key_that_is_there_keeps_its_first_row(lake: Lakehouse) -> None:
    lake.ledger.append([metric(1, value=1.0), metric(1, value=2.0)])
    version = open_delta(str(lake.ledger.uri(Metric))).version()
    lake.ledger.append([metric(1, value=3.0)])
    assert [row.value for row in lake.ledger.read(Metric)] == [1.0]
    assert open_delta(str(lake.ledger.uri(Metric))).version() == version, "nothing was written"
    lake.ledger.append([metric(1, value=3.0), metric(2)])
    assert sorted(row.value for row in lake.ledger.read(Metric)) == [1.0, 1.0]


def test_a_table_nobody_wrote_to_is_empty_and_appending_nothing_makes_none(lake: Lakehouse) -> None:
    lake.ledger.append([])
    assert list(lake.ledger.read(Decision)) == []
    assert not (Path(lake.root) / "_ledger").exists()


def test_a_system_table_is_an_ordinary_delta_table_in_its_contracts_schema(lake: Lakehouse) -> None:
    lake.ledger.append([metric(1)])
    table = open_delta(lake.uri("metrics"))
    assert schema_of(table).equals(arrow_schema(Metric.contract))
    assert pa.table(lake.resolve("metrics").arrow())["measured_at"].type == pa.timestamp("us", "UTC")
    assert table.metadata().description == Metric.contract.description


def test_every_system_table_is_found_by_its_name(lake: Lakehouse) -> None:
    data = {"publications", "metrics", "decisions", "costs", "promotions", "runs", "deployments"}
    upkeep = {"pins", "maintenance", "erasures", "tags", "quarantine_fates"}
    assert set(SYSTEM_TABLES) == data | upkeep
    assert all(lake.is_system(name) for name in SYSTEM_TABLES)
    assert not lake.is_system("ratings")


def test_a_ledger_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "_ledger").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="ledger table 'metrics' can't be written") as caught:
        Ledger(storage_of(tmp_path)).append([metric(1)])
    assert "\n" not in str(caught.value)
