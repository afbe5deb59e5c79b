from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse import Lakehouse
from lakehouse.errors import BatchConflictError, ContractError, StorageError
from lakehouse.gate.staging import ROW_NUMBER, stage, staged
from lakehouse.tables import Rating

DAY = date(1998, 3, 1)
ROWS = pa.table({"user_id": [3, 1, 2], "anything": ["a", None, "'"]})


def staged_rows(lake: Lakehouse, path: str) -> pa.Table:
    return pq.read_table(Path(lake.root) / path)


def test_rows_wait_as_they_came_in_their_order_whatever_their_columns(lake: Lakehouse) -> None:
    batch = stage(lake, Rating, ROWS, batch_id="b-1", day=DAY)
    assert staged_rows(lake, batch.path).drop([ROW_NUMBER]).equals(ROWS)
    assert staged_rows(lake, batch.path)[ROW_NUMBER].to_pylist() == [0, 1, 2]
    assert (batch.table, batch.batch_id, batch.day, batch.rows, batch.lake_id) == ("ratings", "b-1", DAY, 3, lake.id)
    assert not (Path(lake.root) / "ratings").exists()


def test_staging_the_same_rows_again_is_the_same_batch_and_leaves_the_file_alone(lake: Lakehouse) -> None:
    batch = stage(lake, Rating, ROWS, batch_id="b-1", day=DAY)
    before = (Path(lake.root) / batch.path).stat()
    assert stage(lake, Rating, ROWS, batch_id="b-1", day=DAY) == batch
    assert staged(lake, Rating, batch_id="b-1", day=DAY) == batch
    after = (Path(lake.root) / batch.path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("other", [ROWS.slice(1), ROWS.take([1, 0, 2]), ROWS.drop(["anything"])])
def test_other_rows_under_the_same_id_are_refused_and_the_first_stay(lake: Lakehouse, other: pa.Table) -> None:
    batch = stage(lake, Rating, ROWS, batch_id="b-1", day=DAY)
    with pytest.raises(BatchConflictError, match="'b-1' of table 'ratings'"):
        stage(lake, Rating, other, batch_id="b-1", day=DAY)
    assert staged(lake, Rating, batch_id="b-1", day=DAY) == batch


def test_a_batch_nobody_staged_is_none(lake: Lakehouse) -> None:
    assert staged(lake, Rating, batch_id="b-1", day=DAY) is None


@pytest.mark.parametrize("batch_id", ["", "../x", "a/b", "a b", ".hidden", "-x", "a" * 101, "é", "a\n", "x'; --"])
def test_an_id_that_could_be_a_path_is_refused(lake: Lakehouse, batch_id: str) -> None:
    with pytest.raises(ContractError, match="not a batch id"):
        stage(lake, Rating, ROWS, batch_id=batch_id, day=DAY)


def test_what_spark_can_not_read_is_staged_as_text_and_nanoseconds_as_microseconds(lake: Lakehouse) -> None:
    rows = pa.table(
        {
            "clock": pa.array([time(12, 30), None], pa.time64("us")),
            "span": pa.array([timedelta(seconds=1), None], pa.duration("us")),
            "nothing": pa.nulls(2),
            "at": pa.array([datetime(1998, 3, 1, tzinfo=UTC), None], pa.timestamp("ns", "UTC")),
        }
    )
    batch = stage(lake, Rating, rows, batch_id="b-1", day=DAY)
    found = staged_rows(lake, batch.path)
    assert [found.schema.field(name).type for name in ("clock", "span", "nothing")] == [pa.string()] * 3
    assert found["clock"].to_pylist() == ["12:30:00.000000", None]
    assert found["at"].type == pa.timestamp("us", "UTC")


def test_a_folder_that_can_not_be_written_is_one_sentence_and_leaves_no_part(lake: Lakehouse) -> None:
    (Path(lake.root) / "_staging").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="'b-1' can't be staged") as caught:
        stage(lake, Rating, ROWS, batch_id="b-1", day=DAY)
    assert "\n" not in str(caught.value)


def test_a_write_that_breaks_off_leaves_neither_a_batch_nor_a_part(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            stage(lake, Rating, ROWS, batch_id="b-1", day=DAY)
    assert [path for path in (Path(lake.root) / "_staging").rglob("*") if path.is_file()] == []
    assert stage(lake, Rating, ROWS, batch_id="b-1", day=DAY).rows == 3
