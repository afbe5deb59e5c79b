"""The launch plans and what the console shows; the archive that a cluster gets."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path

import pytest
from flytekit import LaunchPlan, PythonFunctionTask
from flytekit.core.workflow import PythonFunctionWorkflow

from tasks.cache import MILLRACE_ROOT, code
from tasks.clock import ended_day

MODULES = sorted(path.stem for path in (MILLRACE_ROOT / "workflows").glob("*.py") if path.stem != "__init__")
PLANS = {
    "nightly_retrain": ("15 0 * * *", "kickoff"),
    "hourly_materialization": ("40 * * * *", "day"),
    "enrich_new_movies": ("10,30,50 * * * *", "day"),
    "quarter_hourly_monitor": ("*/15 * * * *", None),
    "weekly_upkeep": ("0 4 * * 0", None),
}


def declared(kind: type) -> Iterator[object]:
    """Everything of a kind in the workflows' modules and those that they import tasks from, each once."""
    names = [f"workflows.{name}" for name in MODULES]
    tasks = sorted(path.stem for path in (MILLRACE_ROOT / "tasks").glob("*.py"))
    names += [f"tasks.{name}" for name in tasks if name not in ("__init__", "pyflyte", "step")]
    found = {id(value): value for name in names for value in vars(import_module(name)).values()}
    yield from (value for value in found.values() if isinstance(value, kind))


def test_every_launch_plan_has_its_schedule_and_waits_to_be_switched_on() -> None:
    plans = {plan.name: plan for plan in declared(LaunchPlan)}
    for name, (cron, kickoff) in PLANS.items():
        plan = plans[name]
        assert plan.schedule.cron_schedule.schedule == cron
        assert (plan.schedule.kickoff_time_input_arg or None) == kickoff
        assert plan.should_auto_activate is False
        assert plan.labels.values["app"] == "millrace"
        assert plan.concurrency.max_concurrency == 1
        # What the schedule does not fill has a value.
        needed = {key for key, parameter in plan.parameters.parameters.items() if parameter.required}
        assert needed <= {kickoff}
    assert plans["nightly_retrain"].fixed_inputs.literals["seed"].scalar.primitive.integer == 0


def test_failures_are_told_to_those_the_settings_name(tmp_path: Path) -> None:
    script = (
        "from workflows.schedule import nightly_retrain as p; import json; "
        "print(json.dumps([list(n.email.recipients_email) for n in p.notifications]))"
    )
    for notify, expected in (("", []), ("a@example.org, b@example.org", [["a@example.org", "b@example.org"]])):
        place = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(MILLRACE_ROOT), "MILLRACE_NOTIFY": notify}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=place,
            cwd=MILLRACE_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.parametrize(
    ("kickoff", "day"),
    [
        (datetime(1998, 4, 21, 0, 15, tzinfo=UTC), datetime(1998, 4, 20)),
        (datetime(1998, 4, 21, 0, 15), datetime(1998, 4, 20)),
        # Late, and in a zone where it is another day already or still.
        (datetime(1998, 4, 21, 23, 59, tzinfo=UTC), datetime(1998, 4, 20)),
        (datetime(1998, 4, 21, 1, 30, tzinfo=timezone(timedelta(hours=2))), datetime(1998, 4, 19)),
        # The nights in which clocks change in Europe: 01:00 UTC is once each.
        (datetime(1998, 3, 29, 1, 0, tzinfo=UTC), datetime(1998, 3, 28)),
        (datetime(1998, 10, 25, 1, 0, tzinfo=UTC), datetime(1998, 10, 24)),
        (datetime(2000, 3, 1, 0, 15, tzinfo=UTC), datetime(2000, 2, 29)),
    ],
)
def test_a_scheduled_night_is_for_the_last_day_that_had_ended(kickoff: datetime, day: datetime) -> None:
    assert ended_day.task_function.__wrapped__(kickoff) == day


def test_every_task_workflow_and_input_is_described() -> None:
    tasks = list(declared(PythonFunctionTask))
    workflows = list(declared(PythonFunctionWorkflow))
    assert len(tasks) >= 18 and len(workflows) >= 6
    for entity in (*tasks, *workflows):
        assert entity.docs and entity.docs.short_description, entity.name
        for name, variable in entity.interface.inputs.items():
            # Flytekit puts the name where nothing is said.
            assert variable.description not in ("", name), f"{entity.name}: {name}"


def test_every_tasks_settings_are_those_that_the_document_lists() -> None:
    page = (MILLRACE_ROOT / "docs" / "orchestration.md").read_text(encoding="utf-8")
    for task in declared(PythonFunctionTask):
        if task.name.startswith("tasks.lake."):
            continue
        wanted = task.resources.requests
        row = (
            f"`{task.name.removeprefix('tasks.')}`",
            "yes" if task.metadata.cache else "no",
            str(wanted.cpu),
            str(wanted.mem),
            str(task.metadata.retries),
            f"{int(task.metadata.timeout.total_seconds() // 3600)} h",
            "yes" if task.metadata.interruptible else "no",
            "yes" if task.enable_deck else "no",
        )
        assert f"| {' | '.join(row)} |" in page, f"| {' | '.join(row)} |"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a cluster gets it, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    pyflyte = [str(Path(sys.prefix) / "bin" / "pyflyte"), "-c", "flyte.yaml", "--pkgs", "workflows"]
    options = ["package", "--image", "example/millrace:v1", "--copy", "all", "--output", str(folder / "package.tgz")]
    environment = {"HOME": str(folder), "PATH": str(Path(sys.prefix) / "bin"), "PYTHONPATH": str(MILLRACE_ROOT)}
    done = subprocess.run(
        [*pyflyte, *options], cwd=MILLRACE_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(folder / "package.tgz") as packed:
        packed.extractall(folder, filter="data")
    (fast,) = folder.glob("fast*.tar.gz")
    with tarfile.open(fast) as packed:
        packed.extractall(folder / "code", filter="data")
    return folder


def test_the_archive_holds_every_launch_plan_and_every_module_that_a_task_needs(archive: Path) -> None:
    names = {path.name.split("_", 1)[1].rsplit("_", 1)[0] for path in archive.glob("*.pb")}
    assert set(PLANS) <= names
    needed = {path for task in declared(PythonFunctionTask) for path in code(task.task_function)}
    assert {"models/recommender.py", "tasks/write_up.py", "features/store.py", "models/llm/worker.py"} <= needed | {
        str(path.relative_to(archive / "code")) for path in (archive / "code").rglob("*.py")
    }
    lacking = {path for path in needed if not (archive / "code" / path).is_file()}
    assert not lacking
    modules = sorted(
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in needed if path.endswith(".py")
    )
    script = (
        "import sys, importlib, json\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    found = importlib.import_module(name)\n"
        "    assert found.__file__.startswith(sys.argv[2]), found.__file__\n"
    )
    place = {"PYTHONPATH": str(archive / "code"), "HOME": str(archive), "PATH": ""}
    environment = {**place, "PYTHONDONTWRITEBYTECODE": "1"}  # the next test looks at what the archive holds
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(modules), str(archive / "code")],
        cwd=archive,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_archive_holds_no_data_secret_or_config(archive: Path) -> None:
    names = {path.relative_to(archive / "code") for path in (archive / "code").rglob("*") if path.is_file()}
    beside = {str(name) for name in names if len(name.parts) == 1}
    assert beside == {"LICENSE", "pyproject.toml", "requirements.lock"}
    packages = {name.parts[0] for name in names if len(name.parts) > 1}
    assert packages <= {"workflows", "tasks", "serving", "models", "features", "lakehouse", "cli"}
    allowed = {".py", ".txt", ".j2", ".json", ".yaml", ".properties", ".html", ".js", ".css", ".typed", ".sql"}
    assert {name.suffix for name in names if len(name.parts) > 1} <= allowed


def test_registering_works_without_a_cluster_as_a_dry_run(tmp_path: Path) -> None:
    pyflyte = [str(Path(sys.prefix) / "bin" / "pyflyte"), "-c", "flyte.yaml", "register", "workflows", "--dry-run"]
    options = ["--copy", "none", "--version", "v1", "--image", "example/millrace:v1"]
    environment = {"HOME": str(tmp_path), "PATH": str(Path(sys.prefix) / "bin"), "PYTHONPATH": str(MILLRACE_ROOT)}
    done = subprocess.run(
        [*pyflyte, *options], cwd=MILLRACE_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in PLANS)
