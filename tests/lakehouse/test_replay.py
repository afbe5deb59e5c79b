from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.errors import DayOrderError, NoDataForDayError
from lakehouse.gate.staging import Batch
from lakehouse.ledger import Publication
from lakehouse.movielens import movielens
from lakehouse.replay import batches_until
from lakehouse.tables import Rating

DAY = date(1998, 3, 1)


def published(lake: Lakehouse, day: date, *, good: bool = True, inputs: tuple[str, ...] = ()) -> None:
    """Note in the ledger that the ratings of a day are published (or were refused)."""
    number = len(lake.publications())
    publication = Publication(
        publication_id=f"ratings/{day}",
        table_name="ratings",
        batch_id=day.isoformat(),
        inputs=list(inputs),
        day=day,
        version=number,
        published=good,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=datetime(2026, 1, 1, 0, number, tzinfo=UTC),
    )
    lake.ledger.append([publication])


def brought(lake: Lakehouse, day: date) -> list[Batch]:
    return list(batches_until(lake, day))


def test_an_empty_lake_gets_all_history_as_one_batch_a_table(lake: Lakehouse) -> None:
    batches = brought(lake, DAY)
    assert [batch.table for batch in batches] == ["users", "movies", "ratings"]
    assert {(batch.batch_id, batch.day) for batch in batches} == {("1998-03-01", DAY)}
    assert [b.rows for b in batches] == [rows.num_rows for _, rows in movielens().batches(DAY, None)]


def test_ratings_given_online_do_not_hide_a_day_of_the_source(lake: Lakehouse) -> None:
    published(lake, DAY)
    published(lake, DAY + timedelta(days=2), inputs=("feedback@1",))
    batches = brought(lake, DAY + timedelta(days=3))
    assert [batch.day for batch in batches[::3]] == [DAY + timedelta(days=n) for n in (1, 2, 3)]


def test_the_days_after_the_last_one_come_as_one_batch_a_day(lake: Lakehouse) -> None:
    published(lake, DAY)
    batches = brought(lake, DAY + timedelta(days=3))
    assert [batch.table for batch in batches] == ["users", "movies", "ratings"] * 3
    assert [batch.day for batch in batches[::3]] == [DAY + timedelta(days=n) for n in (1, 2, 3)]
    rows = sum(batch.rows for batch in batches if batch.table == "ratings")
    assert rows == ratings_between(DAY + timedelta(days=3), after=DAY) > 0


def ratings_between(day: date, after: date) -> int:
    (count,) = [rows.num_rows for row, rows in movielens().batches(day, after) if row is Rating]
    return int(count)


def test_a_day_already_there_yields_the_batches_it_came_as(lake: Lakehouse) -> None:
    first = brought(lake, DAY)
    published(lake, DAY)
    second = brought(lake, DAY + timedelta(days=1))
    published(lake, DAY + timedelta(days=1))
    assert brought(lake, DAY) == first
    assert brought(lake, DAY + timedelta(days=1)) == second


def test_a_day_that_was_refused_is_not_counted_as_there(lake: Lakehouse) -> None:
    published(lake, DAY)
    published(lake, DAY + timedelta(days=1), good=False)
    assert [batch.day for batch in brought(lake, DAY + timedelta(days=2))[::3]] == [
        DAY + timedelta(days=1),
        DAY + timedelta(days=2),
    ]


@pytest.mark.parametrize("back", [1, 30])
def test_a_day_the_lake_is_past_is_refused(lake: Lakehouse, back: int) -> None:
    published(lake, DAY)
    with pytest.raises(DayOrderError, match=r"already stands at the end of 1998-03-01"):
        brought(lake, DAY - timedelta(days=back))


@pytest.mark.parametrize("day", [date(1997, 9, 19), date(1998, 4, 23), date(2026, 1, 1)])
def test_a_day_outside_the_data_is_refused_and_stages_nothing(lake: Lakehouse, day: date) -> None:
    with pytest.raises(NoDataForDayError, match="from 1997-09-20 to 1998-04-22"):
        brought(lake, day)
    assert not (Path(lake.root) / "_staging").exists()
