"""The quarter-hourly monitor, as Flyte schedules it and as it runs on a lake in which nothing is to be done."""

from __future__ import annotations

from datetime import UTC, datetime

from lakehouse import Lakehouse
from lakehouse.ledger import Decision


def test_the_launch_plan_runs_every_15_minutes_and_waits_to_be_switched_on() -> None:
    from workflows.monitor import quarter_hourly_monitor

    assert quarter_hourly_monitor.name == "quarter_hourly_monitor"
    assert quarter_hourly_monitor.schedule.cron_schedule.schedule == "*/15 * * * *"
    assert quarter_hourly_monitor.should_auto_activate is False


def test_a_look_at_an_empty_lake_says_that_there_is_no_data_and_launches_nothing(
    lake: Lakehouse,
) -> None:
    from workflows.monitor import monitor

    check = monitor(at="1998-04-21T06:00:00")
    assert [rule.partition(":")[0] for rule in check.fired] == ["freshness"]
    assert "docs/runbooks/stale-features.md" in check.fired[0]
    (decision,) = lake.ledger.read(Decision)
    assert decision.gate == "monitor" and not decision.passed
    assert decision.decided_at == datetime(1998, 4, 21, 6, tzinfo=UTC)
