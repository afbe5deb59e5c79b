"""Nights on a tiny source, each in a process of its own that may be killed inside any task. Run by test_kill.py.

    python tests/workflows/tiny_night.py FOLDER

Libraries are loaded once; each night is a fork, so that many of them are cheap. What is made small: 40 users and 60
movies of MovieLens' first two weeks; the language model's answers lie in the lake already; a model that loses to the
baselines is promoted. Tasks, Spark, Deequ, Feast, PyTorch, MLflow and Flyte's cache are the real ones.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lakehouse.movielens import Archive

DAY = datetime(1997, 10, 4)
HOLDOUT_DAYS = 3
USERS, MOVIES = 40, 60

#: The reader of the whole source, once it is replaced.
WHOLE: list[Callable[[], Archive]] = []

#: Every task of a night that trains, in the order in which they run.
TASKS = (
    "lake.open_lake",
    "ingest.ingest",
    "publish.publish",
    "features.compute_features",
    "enrich.enrich",
    "features.materialize",
    "decide.find_champion",
    "decide.measure_drift",
    "decide.decide",
    "features.build_training_set",
    "train.train",
    "train.compare",
    "promote.judge",
    "promote.register",
    "staleness.look_back",
    "explain.explain",
    "night.conclude",
)


def main() -> None:
    """States from one empty lake: a night left alone, one killed in every task, two at once, one that is watched."""
    folder = Path(sys.argv[1])
    for module in ("workflows.nightly", "feast", "mlflow", "torch", "duckdb", "pyspark.sql"):
        importlib.import_module(module)
    jvms = [Jvm.start(folder / f"jvm-{n}") for n in range(2)]
    try:
        walk(folder, *jvms)
    finally:
        for jvm in jvms:
            os.kill(jvm.keeper, signal.SIGKILL)
            os.waitpid(jvm.keeper, 0)


def walk(folder: Path, one: Jvm, other: Jvm) -> None:
    empty = folder / "empty"
    ended(fork(empty, lambda: answer_every_question(empty)), 0)
    for name in ("watched", "killed", "twice"):
        shutil.copytree(empty, folder / name)  # with the lake's id, so that even run ids are the same

    took = {"alone": timed(lambda: ended(fork(folder / "watched", night, one), 0))}
    shutil.copytree(folder / "watched", folder / "alone")  # as the night left it; it was not written for this place
    for number in range(2):
        looked = fork(folder / "watched", partial(look, number), one)
        took[f"look {number}"] = timed(partial(ended, looked, 0))
    for name in TASKS:
        took[name] = timed(partial(killed_in, name, folder / "killed", other))
    took["after all kills"] = timed(lambda: ended(fork(folder / "killed", night, other), 0))

    # Both wait for the same instant, each with a cache of its own, as on two machines.
    start = time.time() + 2
    homes = {"home-0": one, "home-1": other}
    twins = [fork(folder / "twice", lambda: night(at=start), jvm, home) for home, jvm in homes.items()]
    took["twice"] = timed(lambda: [ended(twin, 0) for twin in twins])
    took["CPU of the JVMs"] = sum(jvm.cpu_seconds() for jvm in (one, other))
    took["CPU of Python"] = sum(os.times()[:4])
    print(json.dumps(took, indent=1), file=sys.stderr)


def killed_in(name: str, state: Path, jvm: Jvm) -> None:
    """A night that must end by a kill inside that task."""
    ended(fork(state, partial(night, deadly=name), jvm), -signal.SIGKILL)


def night(deadly: str = "", at: float = 0.0) -> None:
    """One night; inside the deadly task the process kills itself, when all is done but the answer is not recorded."""
    from workflows.nightly import nightly

    if deadly:
        module, _, name = deadly.partition(".")
        task = getattr(importlib.import_module(f"tasks.{module}"), name)
        task._task_function = until_killed(task._task_function)
    time.sleep(max(0.0, at - time.time()))
    made = nightly(day=DAY, holdout_days=HOLDOUT_DAYS)
    Path(os.environ["MILLRACE_STATE"], f"night-{os.getpid()}.json").write_text(made.model_dump_json())


def look(number: int) -> None:
    """The monitor looks, 40 days and so many quarters of an hour after the night: the champion is too old by then."""
    from workflows.monitor import monitor

    at = DAY + timedelta(days=40, minutes=15 * number)
    found = monitor(at=at.isoformat())
    Path(os.environ["MILLRACE_STATE"], f"look-{number}.json").write_text(found.model_dump_json())


class Jvm(NamedTuple):
    """A JVM that outlives the processes whose Spark runs in it: starting one for each takes longer than the nights."""

    keeper: int
    port: str
    secret: str

    @classmethod
    def start(cls, home: Path) -> Jvm:
        """Start one, held by a process that does nothing else; it ends with that process."""
        back, told = os.pipe()
        keeper = os.fork()
        if not keeper:
            from lakehouse.spark import spark_session

            os.environ.update(HOME=str(home), MILLRACE_STATE=str(home))
            session = spark_session()
            gateway = session.sparkContext._gateway
            session.stop()
            parameters = gateway.gateway_parameters
            os.write(told, f"{parameters.port} {parameters.auth_token}\n".encode())
            signal.pause()
        os.close(told)
        with os.fdopen(back) as answer:
            port, secret = answer.readline().split()
        return cls(keeper, port, secret)

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        import psutil

        times = [process.cpu_times() for process in psutil.Process(self.keeper).children(recursive=True)]
        return sum(time.user + time.system for time in times)

    def use(self) -> None:
        """Let this process's Spark run in it; what a process before has left running is stopped."""
        from pyspark import SparkContext

        os.environ.update(PYSPARK_GATEWAY_PORT=self.port, PYSPARK_GATEWAY_SECRET=self.secret)
        SparkContext._ensure_initialized()
        left = SparkContext._jvm.org.apache.spark.sql.SparkSession.getDefaultSession()
        if left.isDefined():
            left.get().stop()


def until_killed(function: Callable[..., object]) -> Callable[..., object]:
    """The function, and then a kill -9 of this process."""

    @functools.wraps(function)
    def deadly(*args: object, **kwargs: object) -> object:
        function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    return deadly


def fork(state: Path, act: Callable[[], object], jvm: Jvm | None = None, home: str = "home") -> int:
    """A process that acts in a state folder; its id."""
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        make_small(state, state / home)
        if jvm:
            jvm.use()
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # the JVM stays for the next process


def ended(child: int, expected: int) -> None:
    """Wait for a process; it must end so: a status, or the negative number of a signal."""
    _, status = os.waitpid(child, 0)
    got = os.waitstatus_to_exitcode(status)
    if got != expected:
        sys.exit(f"a process ended with {got} instead of {expected}")


def timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return round(time.perf_counter() - started, 1)


def make_small(state: Path, home: Path) -> None:
    """In this process, work in a state folder, on a part of the source, with gates that let a small model pass."""
    from flytekit.core import local_cache

    import lakehouse.movielens
    import lakehouse.replay
    import tasks.promote

    os.environ.update(HOME=str(home), MILLRACE_STATE=str(state))
    home.mkdir(parents=True, exist_ok=True)
    local_cache.CACHE_LOCATION = str(home / "cache")
    local_cache.LocalTaskCache._initialized = False
    WHOLE.append(lakehouse.movielens.movielens)
    lakehouse.movielens.movielens = lakehouse.replay.movielens = part_of_movielens
    tasks.promote.BASELINES = ()


@functools.cache
def part_of_movielens() -> Archive:
    """The ratings that the busiest users gave the most rated movies in the first two weeks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    import lakehouse.movielens as source

    whole = WHOLE[0]()
    ratings = whole.ratings.filter(pc.less(whole.ratings["rated_at"], source._end(DAY.date())))
    for column, most in (("item_id", MOVIES), ("user_id", USERS)):
        counts = sorted(pc.value_counts(ratings[column]).to_pylist(), key=lambda c: (-c["counts"], c["values"]))
        ratings = ratings.filter(pc.is_in(ratings[column], value_set=pa.array([c["values"] for c in counts[:most]])))
    return source.Archive(
        users=whole.users.filter(pc.is_in(whole.users["user_id"], value_set=pc.unique(ratings["user_id"]))),
        movies=whole.movies.filter(pc.is_in(whole.movies["item_id"], value_set=pc.unique(ratings["item_id"]))),
        ratings=ratings,
    )


def answer_every_question(state: Path) -> None:
    """An empty lake in which the language model's answers lie."""
    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("nights", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.answer_every_question(state / "lake")


if __name__ == "__main__":
    main()
