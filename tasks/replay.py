"""Does a run, done again, give the same? The same code on the same versions with the same seed, in a scratch state.

The whole run works in a copy of the lake as it stood before; a step by itself reads the versions where they are. What
the language model answered is not asked again: its answers are inputs, kept by digest. The code is this checkout where
it is the same, else a Git worktree of the commit that the run recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse
from lakehouse.ledger import Cost, Decision, Run
from tasks.before import copy_before
from tasks.cache import MILLRACE_ROOT, environment_digest, project_digest
from tasks.errors import ReplayError
from tasks.key import DIGEST_ONLY
from tasks.why import executions, standing

if TYPE_CHECKING:
    import pyarrow as pa

#: Settings that would send a replay's results into the real world.
_OWN = ("MILLRACE_", "LAKEHOUSE_", "MLFLOW_")
#: Settings that a replay keeps: where it runs.
_SPARK = ("MILLRACE_SPARK_MASTER", "MILLRACE_SPARK_MEMORY", "MILLRACE_SPARK_PARTITIONS")
#: Gates that are not compared: they measure the machine.
_MACHINE = ("latency",)
#: Parts of an execution's key and answer that are not compared: they measure the machine.
_MEASURED = ("p95_milliseconds",)


class Verdict(BaseModel):
    """What a replay found.

    Attributes:
        run_id: the run.
        step: the task that was done again; empty for the whole run.
        equal: whether everything compared is the same.
        compared: what was compared, in this order.
        difference: the first thing that differs, with both values; empty if none does.
        note: what else one should know: another environment, versions that were redacted.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    step: str
    equal: bool
    compared: list[str]
    difference: str
    note: str


def replay(lake: Lakehouse, run: Run, step: str = "") -> Verdict:
    """Do a run, or one of its steps, again, and compare.

    Raises:
        ReplayError: the code is lost, the lake can't be copied, the step writes into the lake, or the replay fails.
        NotRecordedError: the step's inputs are not recorded.
    """
    with tempfile.TemporaryDirectory(prefix="millrace-replay-") as scratch, checkout(run) as code:
        place = Path(scratch)
        compared, difference = (
            _replay_step(lake, run, step, code, place) if step else _replay_run(lake, run, code, place)
        )
    return Verdict(
        run_id=run.run_id,
        step=step,
        equal=not difference,
        compared=compared,
        difference=difference,
        note=_note(lake, run),
    )


@contextmanager
def checkout(run: Run) -> Iterator[Path]:
    """A folder with the code of a run: this checkout's if it is the same, else a Git worktree of its commit."""
    if run.code_digest == project_digest():
        yield MILLRACE_ROOT
        return
    if not run.commit or run.commit.endswith("+"):
        raise ReplayError.code_lost(run.run_id, run.commit)
    with tempfile.TemporaryDirectory(prefix="millrace-code-") as scratch:
        folder = Path(scratch) / "code"
        added = _git("worktree", "add", "--detach", str(folder), run.commit)
        if added.returncode:
            reason = (added.stderr.strip().splitlines() or ["Git gave no reason"])[-1].removeprefix("fatal: ")
            raise ReplayError.no_commit(run.run_id, run.commit, reason)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(MILLRACE_ROOT), *words],  # noqa: S607  # whichever Git the user has
        capture_output=True,
        text=True,
        check=False,
    )


def environment(code: Path, place: Path) -> dict[str, str]:
    """The environment of a process that works in a scratch state: nothing of it reaches the real one."""
    home = place / "home"
    home.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    return {
        **inherited,
        **{name: os.environ[name] for name in _SPARK if name in os.environ},
        "HOME": str(home),
        "MILLRACE_STATE": str(place / "state"),
        "PYTHONPATH": str(code),
    }


def _replay_run(lake: Lakehouse, run: Run, code: Path, place: Path) -> tuple[list[str], str]:
    """The whole run in a copy of the lake; what was compared, and the first difference."""
    (place / "state").mkdir()
    copied = copy_before(lake, run, place / "state" / "lake")
    parameters = {name: value for name, value in json.loads(run.parameters).items() if value}
    options = [word for name, value in parameters.items() for word in (f"--{name}", value)]
    script = "import sys; from flytekit.clis.sdk_in_container.pyflyte import main; sys.exit(main())"
    command = ["-c", "flyte.yaml", "run", f"workflows/{run.workflow}.py", run.workflow, *options]
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        cwd=code,
        env=environment(code, place),
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReplayError.failed(run.run_id, f"the job ended with status {done.returncode} (see above).")
    again = [other for other in copied.ledger.read(Run) if other.day == run.day]
    if not again:
        raise ReplayError.failed(run.run_id, "the job wrote no run.")
    return first_difference(lake, run, copied, again[-1])


def first_difference(lake: Lakehouse, run: Run, other: Lakehouse, again: Run) -> tuple[list[str], str]:
    """What was compared of two runs in two lakes, in the order of the work, and the first thing that differs."""
    compared: list[str] = []
    artifacts, artifacts_again = json.loads(run.artifacts), json.loads(again.artifacts)
    outputs = {reference.partition("@")[0]: reference for reference in again.outputs}

    def differs() -> Iterator[str]:
        for name in ("prompt", "llm"):
            compared.append(name)
            yield _difference(name, artifacts.get(name), artifacts_again.get(name))
        for reference in run.outputs:
            compared.append(reference)
            table = reference.partition("@")[0]
            yield _rows_differ(lake, reference, other, outputs.get(table))
        compared.append("training set")
        yield _difference("training set", artifacts.get("training_set"), artifacts_again.get("training_set"))
        compared.append("model")
        yield _difference("model", artifacts.get("model"), artifacts_again.get("model"))
        metrics, metrics_again = json.loads(run.metrics), json.loads(again.metrics)
        for name in sorted({*metrics, *metrics_again}):
            compared.append(name)
            yield _difference(f"metric {name}", metrics.get(name), metrics_again.get(name))
        decided, decided_again = _decisions(lake, run), _decisions(other, again)
        for name in dict.fromkeys([*decided, *decided_again]):
            compared.append(f"gate {name}")
            yield _difference(f"gate {name}", decided.get(name), decided_again.get(name))

    return compared, next((found for found in differs() if found), "")


def _decisions(lake: Lakehouse, run: Run) -> dict[str, str]:
    """What each gate of a run decided, but for those that measure the machine."""
    rows = lake.ledger.read(Decision, [("run_id", "=", run.run_id)])
    return {row.gate: "passed" if row.passed else "refused" for row in rows if row.gate not in _MACHINE}


def _difference(what: str, then: object, now: object) -> str:
    return "" if then == now else f"{what}: {then} then, {now} now"


def _rows_differ(lake: Lakehouse, reference: str, other: Lakehouse, reference_again: str | None) -> str:
    """Whether two versions of a table, in two lakes, have the same rows and columns."""
    if reference_again is None:
        return f"{reference}: not written now"
    then, now = (at.resolve(name).as_stored() for at, name in ((lake, reference), (other, reference_again)))
    rows, rows_again = sorted_rows(then.arrow()), sorted_rows(now.arrow())
    if rows.equals(rows_again):
        return ""
    twin = " (a redacted twin stands in for it since an erasure)" if then.redacted else ""
    if rows.schema.names != rows_again.schema.names or rows.num_rows != rows_again.num_rows:
        shapes = " and ".join(f"{t.num_rows} rows of {t.num_columns} columns" for t in (rows, rows_again))
        return f"{reference}{twin}: {shapes}"
    pairs = zip(rows.to_pylist(), rows_again.to_pylist(), strict=True)
    row, row_again = next((one, two) for one, two in pairs if one != two)
    return f"{reference}{twin}: {row} then, {row_again} now"


def sorted_rows(rows: pa.Table) -> pa.Table:
    """Rows in an order that is theirs, not the files': by all columns that can be compared."""
    import pyarrow as pa

    order = [(field.name, "ascending") for field in rows.schema if not pa.types.is_nested(field.type)]
    plain = rows.cast(pa.schema([field.remove_metadata() for field in rows.schema]))
    return plain.sort_by(order).combine_chunks().replace_schema_metadata(None)


def _replay_step(lake: Lakehouse, run: Run, step: str, code: Path, place: Path) -> tuple[list[str], str]:
    """One task on the inputs that the ledger has, in a process of its own."""
    execution = standing(executions(lake, step), run)
    long = [name for name, value in execution.key.inputs.items() if isinstance(value, dict) and DIGEST_ONLY in value]
    if long:
        raise ReplayError.step(step, f"its input {long[0]} was too long to be written down")
    rows = lake.ledger.read(Cost, [("execution", "=", execution.execution), ("task", "=", execution.task)])
    answer = next(row.answer for row in rows if row.started_at == execution.started_at)
    request = {"task": execution.task, "inputs": execution.key.inputs, "answer": json.loads(answer or "null")}
    done = subprocess.run(
        [sys.executable, "-m", "tasks.step"],
        cwd=code,
        env=environment(code, place),
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReplayError.failed(run.run_id, f"{step} ended with status {done.returncode} (see above).")
    reply = json.loads(done.stdout.splitlines()[-1])
    if "refused" in reply:
        raise ReplayError.step(step, reply["refused"])
    return [step], next((f"{step}: {found}" for found in _differences("", reply["then"], reply["now"])), "")


def _differences(where: str, then: object, now: object) -> Iterator[str]:
    """Each place in two answers that is not the same."""
    if where.rpartition(".")[2] in _MEASURED or then == now:
        return
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*then, *now]):
            yield from _differences(f"{where}.{name}" if where else str(name), then.get(name), now.get(name))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differences(f"{where}[{number}]", one, other)
    else:
        yield _difference(where or "answer", then, now)


def _note(lake: Lakehouse, run: Run) -> str:
    """What may explain a difference."""
    notes = []
    if run.lock_digest != environment_digest():
        notes.append("The environment's lock is another one than the run's.")
    versions = dict.fromkeys([*run.inputs, *run.outputs])
    redacted = [reference for reference in versions if "@" in reference and lake.resolve(reference).redacted]
    if redacted:
        notes.append(f"Redacted twins stand in, since an erasure, for {', '.join(redacted)}.")
    return " ".join(notes)
