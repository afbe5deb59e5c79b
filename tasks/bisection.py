"""Which table version broke a metric? The versions between two runs are halved, with one training a step.

Between the runs lie published versions, in the order in which they were published. A point on that way is one version
of each table. At each point that is asked, a training set is made, a model trained and compared, all with the code, the
seed and the parameters of the runs, and always from the champion that the good run began with: so that nothing but
data differs. Answers are kept in a cache of their own, beside the lake, and asked for again they cost nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse
from lakehouse.ledger import Run
from lakehouse.settings import Settings
from lakehouse.upkeep.fates import fates
from tasks.errors import BisectError, NotRecordedError
from tasks.replay import checkout, environment
from tasks.why import executions, standing

#: Where trainings of a bisection and its cache lie, in the state folder.
FOLDER = "bisect"
#: What a metric's name may leave out: the nightly job's own model is meant.
_CONTENDER = "challenger"


class Step(BaseModel):
    """One published version between two runs.

    Attributes:
        reference: as table@version.
        batch_id: the batch, or the act, that made it.
        day: the day whose end it brings its table to.
        published_at: when (UTC).
    """

    model_config = ConfigDict(frozen=True)

    reference: str
    batch_id: str
    day: date
    published_at: datetime

    @property
    def table(self) -> str:
        return self.reference.partition("@")[0]

    @property
    def version(self) -> int:
        return int(self.reference.partition("@")[2])


class Point(BaseModel):
    """One training.

    Attributes:
        after: the newest of the versions that it reads, as table@version.
        value: the metric.
        good: whether that is nearer to the good run's value than to the bad one's.
    """

    model_config = ConfigDict(frozen=True)

    after: str
    value: float
    good: bool


class Broken(BaseModel):
    """What a bisection found.

    Attributes:
        metric: its name in the ledger.
        good, bad: ids of the runs.
        good_value, bad_value: the metric in each.
        broke: the version that broke it.
        before: the version that stood in its place.
        steps: versions between the runs, in the order of their publication.
        tried: the trainings, in the order in which they were asked for.
        note: what else one should know.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    good: str
    bad: str
    good_value: float
    bad_value: float
    broke: Step
    before: str
    steps: int
    tried: list[Point]
    note: str


Measure = Callable[[Mapping[str, int], date], Mapping[str, float]]
"""The metrics of a training on one version of each table, at the end of a day."""


def bisect(
    lake: Lakehouse, metric: str, good: Run, bad: Run, progress: Callable[[Point], None] = lambda point: None
) -> Broken:
    """Find the table version that made a metric worse.

    Args:
        lake: that both runs worked in.
        metric: as in the ledger, such as ``challenger NDCG@10``; ``ndcg`` will do.
        good: the run that was better.
        bad: the one that came later and was worse.
        progress: is told of each training.

    Raises:
        BisectError: the metric is unknown, the good run is not better, a run trained nothing, the runs differ in more
            than data or not in data, data does not explain it, or a training fails.
        ReplayError: the code of the runs is lost.
    """
    with checkout(good) as code, trainings(lake, good, code) as measure:
        return search(lake, metric, good, bad, measure, progress)


def search(
    lake: Lakehouse, metric: str, good: Run, bad: Run, measure: Measure, progress: Callable[[Point], None]
) -> Broken:
    """``bisect`` with the trainings as an argument."""
    name = find_metric(metric, good, bad)
    good_value, bad_value = (float(json.loads(run.metrics)[name]) for run in (good, bad))
    if not good_value > bad_value:
        raise BisectError.not_worse(name, good.run_id, good_value, bad.run_id, bad_value)
    _require_like(good, bad)
    steps, note = steps_between(lake, good, bad)
    halfway = (good_value + bad_value) / 2
    tried: list[Point] = []

    def is_good(taken: int) -> bool:
        tables, day = _at(steps, taken, good, bad)
        value = float(measure(tables, day)[name])
        point = Point(after=steps[taken - 1].reference, value=value, good=value >= halfway)
        tried.append(point)
        progress(point)
        return point.good

    # The good end is what the good run did. The bad one is only where both began with one champion.
    if champion_of(lake, good) != champion_of(lake, bad) and is_good(len(steps)):
        raise BisectError.not_data(name, tried[-1].value, good.run_id, bad.run_id)
    low, high = 0, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(middle) else (low, middle)
    broke = steps[high - 1]
    return Broken(
        metric=name,
        good=good.run_id,
        bad=bad.run_id,
        good_value=good_value,
        bad_value=bad_value,
        broke=broke,
        before=f"{broke.table}@{_at(steps, high - 1, good, bad)[0][broke.table]}",
        steps=len(steps),
        tried=tried,
        note=note,
    )


def find_metric(name: str, good: Run, bad: Run) -> str:
    """The metric of both runs that a name stands for: whole, without the contender, or without the ``@10``, any case.

    Raises:
        BisectError: there is none, or there are several.
    """
    known: list[str] = sorted({*json.loads(good.metrics)} & {*json.loads(bad.metrics)})
    asked = name.lower()
    for meant in (
        [one for one in known if one == name],
        [one for one in known if one.lower() in (asked, f"{_CONTENDER} {asked}")],
        [one for one in known if one.lower().partition("@")[0] in (asked, f"{_CONTENDER} {asked}")],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise BisectError.ambiguous(name, meant)
    raise BisectError.metric(name, known)


def steps_between(lake: Lakehouse, good: Run, bad: Run) -> tuple[list[Step], str]:
    """The published versions after those of the good run, up to those of the bad one, and a note on what was left out.

    A version that vacuum removed can't be trained on; the next one of its table stands for it.
    """
    before, after = _pins(good), _pins(bad)
    if before.keys() != after.keys():
        names = sorted(before.keys() ^ after.keys())
        raise BisectError.differ(good.run_id, bad.run_id, [f"table {name}, which only one reads" for name in names])
    if good.day > bad.day or any(after[name] < before[name] for name in before):
        raise BisectError.order(good.run_id, bad.run_id)
    steps: dict[str, Step] = {}
    gone = []
    for publication in lake.publications():
        name, version = publication.table_name, publication.version
        if not (name in before and publication.published and before[name] < version <= after[name]):
            continue
        step = Step(
            reference=f"{name}@{version}",
            batch_id=publication.batch_id,
            day=publication.day,
            published_at=publication.published_at,
        )
        if fates(lake.uri(name)).is_removed(version):
            gone.append(step.reference)
        else:
            steps.setdefault(step.reference, step)
    if not steps:
        raise BisectError.same_data(good.run_id, bad.run_id)
    # Of one table in the order of versions: a batch that was interrupted may be published after its successor.
    ordered = sorted(steps.values(), key=lambda step: (step.published_at, step.reference))
    places = {name: iter(sorted((s for s in ordered if s.table == name), key=lambda s: s.version)) for name in before}
    note = f"Vacuum removed {', '.join(gone)}; the next version of the table stands for it." if gone else ""
    return [next(places[step.table]) for step in ordered], note


def champion_of(lake: Lakehouse, run: Run) -> Mapping[str, object]:
    """The champion that a run's training began with, as the ledger has it; empty where none is recorded."""
    try:
        champion = standing(executions(lake, "tasks.train.train"), run).key.inputs.get("champion")
    except NotRecordedError:
        return {}
    return champion if isinstance(champion, dict) else {}


@contextmanager
def trainings(lake: Lakehouse, run: Run, code: Path) -> Iterator[Measure]:
    """Trains as a run did, on versions that are given, in a process of its own.

    Args:
        lake: where the versions are.
        run: gives seed, parameters and champion.
        code: folder of the code.
    """
    place = Settings().state.resolve() / FOLDER
    fixed = {
        "holdout_days": int(json.loads(run.parameters)["holdout_days"]),
        "seed": run.seed,
        "champion": dict(champion_of(lake, run)),
    }
    with subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("midpoint.py"))],
        cwd=code,
        env=environment(code, place),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def measure(tables: Mapping[str, int], day: date) -> Mapping[str, float]:
            pins = {name: {"uri": lake.uri(name), "version": version} for name, version in tables.items()}
            reply = _ask(process, {"tables": pins, "day": day.isoformat(), **fixed})
            if "error" in reply:
                on = [f"{name}@{version}" for name, version in tables.items()]
                raise BisectError.training(run.run_id, on, str(reply["error"]))
            metrics = reply["metrics"]
            assert isinstance(metrics, dict)
            return metrics

        yield measure


def _ask(process: subprocess.Popen[str], request: Mapping[str, object]) -> Mapping[str, object]:
    """One line to the process, one line back."""
    to, back = process.stdin, process.stdout
    assert to is not None
    assert back is not None
    try:
        print(json.dumps(request), file=to, flush=True)
        line = back.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        return {"error": f"its process ended with status {process.wait()} (see above)"}
    reply = json.loads(line)
    assert isinstance(reply, dict)
    return reply


def _require_like(good: Run, bad: Run) -> None:
    """Refuse runs that trained nothing, and such as differ in more than their data."""
    for run in (good, bad):
        if "model" not in json.loads(run.artifacts):
            raise BisectError.untrained(run.run_id)
    before, after = ({**json.loads(run.parameters), "seed": str(run.seed)} for run in (good, bad))
    names = sorted(name for name in {*before, *after} - {"day"} if before.get(name) != after.get(name))
    differ = [
        *(["code"] if good.code_digest != bad.code_digest else []),
        *(["environment lock"] if good.lock_digest != bad.lock_digest else []),
        *(f"{name} ({before.get(name)} and {after.get(name)})" for name in names),
    ]
    if differ:
        raise BisectError.differ(good.run_id, bad.run_id, differ)


def _pins(run: Run) -> dict[str, int]:
    """The version of each table that a run's training set was made from."""
    split = (reference.partition("@") for reference in run.inputs)
    return {name: int(version) for name, _, version in split}


def _at(steps: Sequence[Step], taken: int, good: Run, bad: Run) -> tuple[dict[str, int], date]:
    """One version of each table after so many steps, and the day that these versions bring the lake to the end of."""
    tables = {**_pins(good), **{step.table: step.version for step in steps[:taken]}}
    if taken == len(steps):
        return tables, bad.day
    return tables, min(bad.day, max([good.day, *(step.day for step in steps[:taken])]))
