"""What goes wrong around a night leaves no trace in its result: kills in every task, two nights at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.ledger import Run
from tasks.replay import first_difference

pytestmark = pytest.mark.nightly

#: The tasks of a night that trains, in the order in which they run.
TASKS = (
    "tasks.ingest.ingest",
    "tasks.publish.publish",
    "tasks.features.compute_features",
    "tasks.enrich.enrich",
    "tasks.features.materialize",
    "tasks.decide.find_champion",
    "tasks.decide.measure_drift",
    "tasks.decide.decide",
    "tasks.features.build_training_set",
    "tasks.train.train",
    "tasks.train.compare",
    "tasks.promote.judge",
    "tasks.promote.register",
    "tasks.night.conclude",
)
ROOT = Path(__file__).parents[2]


def nightly(options: tuple[str, ...]) -> list[str]:
    return ["-c", "flyte.yaml", "run", "workflows/nightly.py", "nightly", *options]


def same_result(place, undisturbed) -> None:
    """One run in the place's ledger, equal to the undisturbed one in every row and digest."""
    lakes = [Lakehouse.open(one.state / "lake") for one in (undisturbed, place)]
    (expected,), (run,) = (list(lake.ledger.read(Run)) for lake in lakes)
    compared, difference = first_difference(lakes[0], expected, lakes[1], run)
    assert difference == ""
    assert len(compared) > 10
    assert run.outputs == expected.outputs


def test_a_night_killed_in_every_task_ends_as_if_it_never_was(small_night, answered, small_options) -> None:
    place = answered()
    driver = str(Path(__file__).with_name("killed.py"))
    for task in TASKS:
        environment = {**place.environment, "KILLED_IN": task}
        done = subprocess.run(
            [sys.executable, driver, *nightly(small_options)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == -9, f"{task}: {done.stdout}{done.stderr}"
    done = place.nightly(*small_options)
    assert done.returncode == 0, done.stdout + done.stderr
    same_result(place, small_night)


def test_two_nights_of_one_day_at_once_end_in_one_result(small_night, answered, small_options) -> None:
    place = answered()
    command = [str(Path(sys.prefix) / "bin" / "pyflyte"), *nightly(small_options)]
    both = [
        subprocess.Popen(
            command, cwd=ROOT, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [one.communicate(timeout=1800)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], "\n".join(said)
    same_result(place, small_night)


def test_a_ledger_that_cannot_be_written_is_one_sentence(workplace_at, small_options, tmp_path: Path) -> None:
    place = workplace_at(tmp_path)
    lake = Lakehouse.open(place.state / "lake", create=True)
    blocked = Path(lake.root) / "_ledger"
    blocked.mkdir(exist_ok=True)
    (blocked / "costs").write_text("a file where the table's folder should be")
    done = place.nightly(*small_options)
    assert done.returncode == 1
    assert "error: The ledger table 'costs' can't be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((place.state / "lake" / "_lake.json").read_text())["id"] == lake.id
