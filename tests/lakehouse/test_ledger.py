from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from lakehouse import Lakehouse, Table
from lakehouse.contracts import evolution
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.completing import has_default
from lakehouse.errors import ContractMismatchError, EvolutionError, StorageError
from lakehouse.ledger import SYSTEM_TABLES, Decision, Ledger, Metric, Publication
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
    data = {
        "publications",
        "metrics",
        "decisions",
        "costs",
        "llm_costs",
        "promotions",
        "runs",
        "deployments",
        "approvals",
    }
    upkeep = {"pins", "maintenance", "erasures", "tags", "quarantine_fates"}
    assert set(SYSTEM_TABLES) == data | upkeep
    assert all(lake.is_system(name) for name in SYSTEM_TABLES)
    assert not lake.is_system("ratings")


def test_a_ledger_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "_ledger").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="ledger table 'metrics' can't be written") as caught:
        Ledger(storage_of(tmp_path)).append([metric(1)])
    assert "\n" not in str(caught.value)


# A lake of an earlier version of this code


def publication(number: int, kind: str = "batch") -> Publication:
    return Publication(
        publication_id=f"ratings/b{number}@{number}",
        table_name="ratings",
        batch_id=f"b{number}",
        kind="requeue" if kind == "requeue" else "batch",
        day=date(1998, 3, number),
        version=number,
        published=True,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=number,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=datetime(1998, 3, number, tzinfo=UTC),
    )


#: Joined the table later: one that is optional, two with defaults.
NEWER = ("restored_from", "kind", "inputs")


@pytest.fixture
def earlier(lake: Lakehouse) -> Lakehouse:
    """A lake whose publications were written before these columns were declared."""
    write_earlier(lake, without=NEWER)
    return lake


def write_earlier(lake: Lakehouse, *, without: Sequence[str] = (), extra: Mapping[str, object] | None = None) -> None:
    rows = to_arrow(Publication, [publication(1)]).drop_columns(list(without))
    for name, value in (extra or {}).items():
        rows = rows.append_column(name, pa.array([value]))
    DeltaTable.create(lake.ledger.uri(Publication), rows.schema)
    write_deltalake(lake.ledger.uri(Publication), rows, mode="append")


def test_an_earlier_ledger_is_read_with_the_defaults_of_columns_that_it_lacks(earlier: Lakehouse) -> None:
    version = open_delta(earlier.uri("publications")).version()
    assert earlier.publications("ratings") == [publication(1)]
    assert list(earlier.ledger.read(Publication, [("kind", "=", "batch")])) == [publication(1)]
    assert list(earlier.ledger.read(Publication, [("kind", "=", "restore")])) == []
    assert open_delta(earlier.uri("publications")).version() == version, "a reader writes nothing"


def test_an_earlier_ledger_becomes_what_is_declared_with_the_first_row_that_is_added(earlier: Lakehouse) -> None:
    earlier.ledger.append([publication(2, "requeue")])
    assert schema_of(open_delta(earlier.uri("publications"))).equals(arrow_schema(Publication.contract))
    assert earlier.publications() == [publication(1), publication(2, "requeue")]
    version = open_delta(earlier.uri("publications")).version()
    earlier.ledger.append([publication(3)])
    assert open_delta(earlier.uri("publications")).version() == version + 1, "once only"


def test_two_processes_that_bring_a_ledger_up_at_once_both_add_their_rows(
    earlier: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = evolution.bring_up_ledger
    calls: list[str] = []

    def other_process_first(root: str, table: DeltaTable, row_model: type[Table]) -> None:
        calls.append(root)
        if len(calls) == 1:
            Lakehouse.open(root).ledger.append([publication(2)])
        alone(root, table, row_model)

    monkeypatch.setattr(evolution, "bring_up_ledger", other_process_first)
    earlier.ledger.append([publication(3)])
    assert [p.version for p in earlier.publications()] == [1, 2, 3]
    assert len(calls) == 2, "once by each; the second to look found it done"


def test_what_a_ledger_can_not_become_is_refused_and_still_read(lake: Lakehouse) -> None:
    write_earlier(lake, extra={"gone": "a value"})
    with pytest.raises(EvolutionError, match=r"column gone .* is stored and no longer declared"):
        lake.ledger.append([publication(2)])
    assert lake.publications() == [publication(1)]


def test_a_ledger_that_lacks_what_nobody_can_fill_in_says_so(lake: Lakehouse) -> None:
    write_earlier(lake, without=["rows_in"])
    with pytest.raises(ContractMismatchError, match="rows_in is declared and missing"):
        lake.publications()
    with pytest.raises(EvolutionError, match=r"rows_in .* is new and required"):
        lake.ledger.append([publication(2)])


def test_a_column_that_joins_the_ledger_is_optional_or_has_a_default() -> None:
    """Else every lake that there is would have to be made anew."""
    assert AT_FIRST.keys() == SYSTEM_TABLES.keys(), "a new table starts here with all its columns"
    for name, row_model in SYSTEM_TABLES.items():
        first = set(AT_FIRST[name].split())
        assert first <= set(row_model.contract.names), f"a column of {name} is gone"
        later = [column for column in row_model.contract.columns if column.name not in first]
        assert all(column.nullable or has_default(row_model, column.name) for column in later), name


#: The columns of each table on 2026-11-26, when the ledger began to follow its declarations.
AT_FIRST = {
    "publications": (
        "publication_id table_name batch_id kind inputs restored_from day version published rows_in "
        "rows_published rows_quarantined rows_duplicate rows_total failed_checks broken_rules fingerprint "
        "published_at"
    ),
    "metrics": "metric_id table_name version metric column value measured_at",
    "decisions": "decision_id run_id gate passed reason inputs decided_at",
    "costs": "cost_id execution task started_at seconds cpu_seconds peak_mib",
    "promotions": "promotion_id day model_digest model_path registry_version trained_until promoted_at",
    "runs": (
        "run_id execution workflow day parameters seed code_digest commit lock_digest inputs outputs "
        "artifacts metrics verdict report seconds finished_at"
    ),
    "pins": "pin_id table_name version holder reason kept_until released recorded_at",
    "maintenance": (
        "maintenance_id table_name compacted files_before files_after bytes_before bytes_after removed_files "
        "removed_bytes removed_versions kept seconds started_at"
    ),
    "erasures": "erasure_id state digest columns reason requested_by certificate recorded_at",
    "tags": "tag_id table_name tag version deleted number tagged_at",
    "quarantine_fates": "fate_id table_name quarantine_id number fate batch_id reason decided_at",
    "llm_costs": (
        "llm_cost_id execution component model model_digest asked reused failed tokens_in tokens_out "
        "start_seconds generate_seconds watt_hours money currency price_table asked_at"
    ),
    "approvals": "approval_id model_version model_digest approved by note approved_at",
    "deployments": ("deployment_id act slot model_version model_digest features replaced reason inputs acted_at"),
}
