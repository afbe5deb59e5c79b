"""A night that is killed in every one of its tasks, and two nights at once, end as a night that was left alone does.

The nights are run by tiny_night.py: real tasks and engines on 40 users and 60 movies. What is compared is every row of
every table and of the ledger, but for clocks and costs; the digests of training set, model and prompt; the values in
the online store; and the registry. Kills within a task, before each durable act of the gate, are in
tests/lakehouse/gate/test_publish_kill.py; of the language model's engine in tests/models/llm/test_engine.py.

It takes minutes: five cold or warm publishings on Spark are most of it (ten minutes beside other work, at a load of 6).
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.ledger import Cost, Run
from tasks.replay import first_difference, sorted_rows
from tests.workflows.tiny_night import TASKS
from workflows.nightly import nightly

pytestmark = pytest.mark.nightly

SCRIPT = Path(__file__).with_name("tiny_night.py")
ROOT = SCRIPT.parents[2]

#: What differs between two runs of the same: clocks, processes, places; and where the checkout's Git stands meanwhile.
_CLOCKS = {
    *("published_at", "measured_at", "decided_at", "promoted_at", "compared_at", "finished_at", "seconds"),
    *("execution", "report", "model_path", "quarantined_at", "asked_at", "commit"),
}
#: Ledger tables of what was done and not of what came of it: a row an execution, killed ones included.
_COSTS = ("costs", "llm_costs")


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The states: ``alone``, ``killed``, ``twice`` and ``watched``."""
    folder = tmp_path_factory.mktemp("tiny")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "LAKEHOUSE_", "MLFLOW_"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "FLYTE_SDK_LOGGING_LEVEL": "40"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    return folder


def lake_in(state: Path) -> Lakehouse:
    return Lakehouse.open(state / "lake")


def tables(state: Path) -> dict[str, list[dict[str, object]]]:
    """All rows of all tables, without clocks, in an order of their own."""
    lake = lake_in(state)
    found = {}
    for name in (*lake.names(), *(f"_quarantine/{path.name}" for path in (state / "lake" / "_quarantine").iterdir())):
        if name in _COSTS:
            continue
        snapshot = lake.resolve(name) if "/" not in name else lake_quarantine(lake, name)
        rows = sorted_rows(snapshot.as_stored().arrow()).to_pylist()
        found[name] = sorted((without_clocks(row) for row in rows), key=lambda row: json.dumps(row, default=str))
    return found


def lake_quarantine(lake: Lakehouse, name: str):  # type: ignore[no-untyped-def]
    from lakehouse.gate.quarantine import quarantined

    return quarantined(lake, name.removeprefix("_quarantine/"))


def without_clocks(row: Mapping[str, object]) -> dict[str, object]:
    """A row without what no two runs have in common; the latency gate measures the machine."""
    kept = {name: value for name, value in row.items() if name not in _CLOCKS}
    if kept.get("gate") == "latency":
        kept = {name: value for name, value in kept.items() if name not in ("reason", "inputs")}
    return kept


def online(state: Path) -> dict[str, list[tuple[object, ...]]]:
    """What the online store serves."""
    with sqlite3.connect(state / "features" / "online.db") as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        found = {}
        for name in names:
            columns = [row[1] for row in connection.execute(f'pragma table_info("{name}")') if row[1] != "created_ts"]
            chosen = ", ".join(f'"{column}"' for column in columns)
            rows = connection.execute(f'select {chosen} from "{name}"')
            found[name] = sorted((tuple(_without_place(value) for value in row) for row in rows), key=repr)
    return found


def _without_place(value: object) -> object:
    """What a view holds is recorded with the lake's folder and Delta's id of the table, which each state has anew."""
    return re.sub(r'"(uri|table_id)":"[^"]*"', "", value) if isinstance(value, str) else value


def registered(state: Path) -> list[tuple[str, str, str]]:
    """The registry's versions and their aliases, by what was registered."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{state / 'mlflow.db'}")
    versions = client.search_model_versions("name = 'millrace-recommender'")
    aliases = client.get_registered_model("millrace-recommender").aliases
    return [
        (v.version, v.tags["model_digest"], str(sorted(a for a, n in aliases.items() if n == v.version)))
        for v in versions
    ]


def files(state: Path) -> dict[str, list[str]]:
    """Artifacts by the names that their content gives them."""
    folders = {name: sorted(path.name for path in (state / name).iterdir()) for name in ("models", "training_sets")}
    return {**folders, "reports": sorted(path.name for path in (state / "reports").iterdir())}


@pytest.mark.parametrize("name", ["killed", "twice"])
def test_every_row_digest_and_file_is_that_of_the_night_left_alone(nights: Path, name: str) -> None:
    alone, other = nights / "alone", nights / name
    expected, got = tables(alone), tables(other)
    assert got.keys() == expected.keys()
    for table, rows in expected.items():
        assert got[table] == rows, table
    (run,), (again,) = (list(lake_in(state).ledger.read(Run)) for state in (alone, other))
    compared, difference = first_difference(lake_in(alone), run, lake_in(other), again)
    assert (difference, "model" in compared) == ("", True)
    assert run.run_id == again.run_id
    assert online(other) == online(alone)
    assert registered(other) == registered(alone)
    assert files(other) == files(alone)


def test_both_nights_at_once_gave_the_same_answer(nights: Path) -> None:
    answers = {path.read_text() for path in (nights / "twice").glob("night-*.json")}
    assert len(list((nights / "twice").glob("night-*.json"))) == 2
    assert len({json.loads(answer)["run_id"] for answer in answers}) == 1


def test_a_rule_that_held_at_two_looks_of_the_monitor_launches_a_night_that_retrains(nights: Path) -> None:
    first, second = (json.loads((nights / "watched" / f"look-{number}.json").read_text()) for number in range(2))
    assert first["reason"].startswith("age (4") and first["reason"].endswith("it must hold 2 checks in a row.")
    assert second["reason"].startswith("Retrain: age (4")
    lake = lake_in(nights / "watched")
    before, after = lake.ledger.read(Run)
    assert before.run_id != after.run_id
    assert second["reason"].endswith(after.verdict)
    trained = [cost.task for cost in lake.ledger.read(Cost)]
    assert trained.count("tasks.train.compare") == 2


def test_the_walk_went_through_every_task_of_a_night_that_trains(nights: Path) -> None:
    """What a night without training has instead, keep and watch_champion, writes nothing."""
    called = set(re.findall(r"tasks\.(\w+\.\w+)", " ".join(_names(nightly))))
    assert called == {*TASKS, "promote.keep", "train.watch_champion"}
    costs = [cost.task.removeprefix("tasks.") for cost in lake_in(nights / "killed").ledger.read(Cost)]
    once = [cost.task.removeprefix("tasks.") for cost in lake_in(nights / "alone").ledger.read(Cost)]
    # Killed after its act and before its answer was recorded, each task ran a second time, and only then.
    assert {name: costs.count(name) for name in once} == dict.fromkeys(once, 2)


def _names(workflow: object) -> list[str]:
    """The tasks of a workflow and of the workflows in it."""
    found: list[str] = []
    for node in workflow.nodes:  # type: ignore[attr-defined]
        entity = node.flyte_entity
        branch = getattr(entity, "_ifelse_block", None)
        inner = [branch.case.then_node, *(c.then_node for c in branch.other or ()), branch.else_node] if branch else []
        for one in [i.flyte_entity for i in inner if i is not None] or [entity]:
            found += _names(one) if hasattr(one, "nodes") else [one.name]
    return found
