"""Which nights a backfill runs."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from lakehouse import Lakehouse
from lakehouse.errors import NoDataForDayError
from lakehouse.ledger import Publication, Run
from tasks.backfill import make_up, nights
from tasks.cache import environment_digest, project_digest
from tasks.errors import BackfillError

AT = datetime(2026, 1, 1, tzinfo=UTC)


def night(lake: Lakehouse, day: date, code: str = "", lock: str = "") -> None:
    texts = dict.fromkeys(("execution", "commit", "verdict", "report"), "")
    objects = dict.fromkeys(("parameters", "artifacts", "metrics"), "{}")
    digests = {"code_digest": code or project_digest(), "lock_digest": lock or environment_digest()}
    lists: dict[str, list[str]] = {"inputs": [], "outputs": []}
    names = {"run_id": f"r{day}{code}", "workflow": "nightly", "day": day}
    lake.ledger.append([Run(**names, **digests, seed=0, seconds=1.0, finished_at=AT, **texts, **objects, **lists)])


def publish(lake: Lakehouse, day: date) -> None:
    counts = dict.fromkeys(("rows_in", "rows_published", "rows_quarantined", "rows_duplicate", "rows_total"), 0)
    lake.ledger.append(
        [
            Publication(
                publication_id=f"ratings/{day}",
                table_name="ratings",
                batch_id=str(day),
                day=day,
                version=day.day,
                published=True,
                failed_checks=[],
                broken_rules="{}",
                fingerprint="",
                published_at=AT,
                **counts,
            )
        ]
    )


def test_only_missing_and_stale_days_are_due_in_order(lake: Lakehouse) -> None:
    first, last = date(1998, 4, 15), date(1998, 4, 20)
    for day in (16, 17, 18):
        publish(lake, date(1998, 4, day))
    night(lake, date(1998, 4, 16))
    night(lake, date(1998, 4, 17), code="other")
    found = nights(lake, first, last)
    assert [(one.day.day, one.state) for one in found] == [
        (15, "passed"),
        (16, "done"),
        (17, "stale"),
        (18, "missing"),  # published, but the night did not end
        (19, "missing"),
        (20, "missing"),
    ]
    assert "stands at 1998-04-18" in found[0].reason
    assert "had other code" in found[2].reason
    assert [one.day.day for one in found if one.due] == [17, 18, 19, 20]


def test_a_range_that_is_upside_down_or_beyond_the_source_is_refused(lake: Lakehouse) -> None:
    with pytest.raises(BackfillError, match="is after its last one"):
        nights(lake, date(1998, 4, 20), date(1998, 4, 19))
    with pytest.raises(NoDataForDayError):
        nights(lake, date(1998, 4, 20), date(1999, 1, 1))


def test_a_night_that_fails_ends_the_backfill_and_says_where_it_stands(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    publish(lake, date(1998, 4, 20))
    lines: list[str] = []
    with pytest.raises(BackfillError, match=r"night of 1998-04-19 ended with status 1; 0 of 1 are done"):
        make_up(lake, [date(1998, 4, 19)], 0, lines.append)
    assert lines == []
