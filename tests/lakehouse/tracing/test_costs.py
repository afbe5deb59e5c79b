"""What things cost, added up, and what the next run will cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lakehouse import Lakehouse
from lakehouse.errors import BudgetError
from lakehouse.ledger import Cost, Run
from lakehouse.tracing.costs import estimate, require_budget, spent

AT = datetime(2026, 1, 1, 23, tzinfo=UTC)


def execute(lake: Lakehouse, number: int, execution: str, task: str, cpu: float, **more: object) -> None:
    started = AT + timedelta(hours=number)
    used = {"seconds": cpu / 2, "cpu_seconds": cpu, "peak_mib": 100.0 + number}
    lake.ledger.append([Cost(cost_id=str(number), execution=execution, task=task, started_at=started, **used, **more)])


def run(lake: Lakehouse, number: int) -> None:
    texts = dict.fromkeys(("code_digest", "commit", "lock_digest", "verdict", "report"), "")
    objects = dict.fromkeys(("parameters", "artifacts", "metrics"), "{}")
    lists: dict[str, list[str]] = {"inputs": [], "outputs": []}
    names = {"run_id": f"r{number}", "execution": f"e{number}", "workflow": "nightly", "day": AT.date()}
    times = {"seconds": 1.0, "finished_at": AT + timedelta(days=number)}
    lake.ledger.append([Run(**names, seed=0, **texts, **objects, **lists, **times)])


@pytest.fixture
def costly(lake: Lakehouse) -> Lakehouse:
    execute(lake, 0, "e1", "train", 10.0, read_bytes=5, gpu_seconds=2.0)
    execute(lake, 1, "e1", "enrich", 20.0, tokens_in=7, tokens_out=3)
    execute(lake, 2, "e2", "train", 50.0, read_bytes=6)
    execute(lake, 3, "by hand", "train", 1000.0)
    run(lake, 1)
    run(lake, 2)
    return lake


def test_costs_are_added_up_by_run_task_and_day(costly: Lakehouse) -> None:
    by_run = {one.name: one for one in spent(costly, "run")}
    assert {name: one.cpu_seconds for name, one in by_run.items()} == {"r1": 30.0, "r2": 50.0}
    assert (by_run["r1"].tokens_in, by_run["r1"].tokens_out, by_run["r2"].tokens_in) == (7, 3, None)
    assert (by_run["r1"].gpu_seconds, by_run["r2"].gpu_seconds) == (2.0, None)
    assert (by_run["r1"].executions, by_run["r1"].peak_mib) == (2, 101.0)
    by_task = {one.name: one for one in spent(costly, "task")}
    assert (by_task["train"].cpu_seconds, by_task["train"].read_bytes) == (1060.0, 11)
    assert [(one.name, one.executions) for one in spent(costly, "day")] == [("2026-01-01", 1), ("2026-01-02", 3)]


def test_the_next_run_is_expected_to_cost_the_median_of_the_last_ones(costly: Lakehouse) -> None:
    expected = estimate(costly)
    assert (expected.runs, expected.cpu_seconds, expected.tokens) == (2, 40.0, 5.0)
    require_budget(expected, 40)
    require_budget(expected, 80, runs=2)
    with pytest.raises(BudgetError, match="2 nights will take about 80 CPU seconds, and 79 are allowed"):
        require_budget(expected, 79, runs=2)


def test_without_history_nothing_is_refused(lake: Lakehouse) -> None:
    assert estimate(lake).runs == 0
    require_budget(estimate(lake), 0)
