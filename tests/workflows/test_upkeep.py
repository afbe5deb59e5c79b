"""The weekly upkeep, as a user runs it and as Flyte schedules it."""

from __future__ import annotations

from datetime import UTC, datetime

from lakehouse import Lakehouse
from lakehouse.ledger import Metric
from lakehouse.snapshot import open_delta

AT = datetime(1998, 4, 20, tzinfo=UTC)


def test_an_upkeep_leaves_every_row_in_fewer_files(lake: Lakehouse) -> None:
    from workflows.upkeep import upkeep

    for number in range(30):
        name = f"m{number}"
        row = Metric(
            metric_id=name, table_name="t", version=number, metric="Size", column="*", value=number, measured_at=AT
        )
        lake.ledger.append([row])
    uri = lake.ledger.uri(Metric)
    before = len(open_delta(uri).file_uris())
    done = upkeep()
    assert done.tables == 1 and done.compacted == 1 and done.busy == []
    assert len(open_delta(uri).file_uris()) == 1 < before
    assert sorted(row.value for row in lake.ledger.read(Metric)) == list(range(30))


def test_the_launch_plan_runs_on_sundays_and_waits_to_be_switched_on() -> None:
    from workflows.upkeep import weekly_upkeep

    assert weekly_upkeep.name == "weekly_upkeep"
    assert weekly_upkeep.schedule.cron_schedule.schedule == "0 4 * * 0"
    assert weekly_upkeep.should_auto_activate is False
