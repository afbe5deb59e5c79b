"""What does the typed layer cost, what a night from the cache, and what a step that is replayed?

    make benchmark WHAT=orchestration [OPTIONS="--night FOLDER"]

FOLDER holds `home` and `state` of a finished night of this checkout, with 1998-04-20 as its day; it is only read from
and asked again. Without it, the night is run first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"
NIGHT = [str(BIN / "pyflyte"), "-c", "flyte.yaml", "run", "workflows/nightly.py", "nightly", "--day", "1998-04-20"]

EMPTY = """
import flytekit

@flytekit.task
def nothing() -> int:
    return 1

@flytekit.workflow
def empty() -> int:
    return nothing()
"""

OVERHEAD = """
import json, statistics, sys, time
import flytekit
from lakehouse import Lakehouse, Snapshot
from tasks.lake import Lake
from tasks.typed import task

@flytekit.task
def bare(lake: Lake, n: int) -> int:
    return n

@task(cached=False)
def typed(lake: Lake, n: int) -> int:
    return n

made = Lakehouse.open(create=True)
lake = Lake(root=made.root, id=made.id)
took = {"bare": [], "typed": []}
for n in range(int(sys.argv[1])):
    for name, one in (("bare", bare), ("typed", typed)):
        started = time.perf_counter()
        one(lake=lake, n=n)
        took[name].append((time.perf_counter() - started) * 1000)
print(json.dumps({name: statistics.median(values[1:]) for name, values in took.items()}))
"""


def timed(command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> tuple[float, str]:
    """Seconds and standard output of a command."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started, done.stdout


def median(repeat: int, ask: Callable[[], float]) -> float:
    return statistics.median(ask() for _ in range(repeat))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--night", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.night or Path(scratch)
        (folder / "home").mkdir(exist_ok=True)
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        night = {**os.environ, "HOME": f"{folder}/home", "MILLRACE_STATE": f"{folder}/state", "PATH": path}
        night["PYTHONPATH"] = str(ROOT)
        timed(NIGHT, night)

        fresh = {**night, "MILLRACE_STATE": f"{scratch}/fresh"}
        script = Path(scratch) / "overhead.py"  # Flyte asks for a task's source
        script.write_text(OVERHEAD)
        _, said = timed([sys.executable, str(script), "31"], fresh)
        layer = json.loads(said.splitlines()[-1])

        script = Path(scratch) / "empty.py"
        script.write_text(EMPTY)
        nothing = [str(BIN / "pyflyte"), "-c", str(ROOT / "flyte.yaml"), "run", str(script), "empty"]
        empty = median(options.repeat, lambda: timed(nothing, night, Path(scratch))[0])
        cached = median(options.repeat, lambda: timed(NIGHT, night)[0])

        query = "select seconds from costs where task = 'tasks.train.train' order by started_at desc limit 1"
        _, said = timed([str(BIN / "millrace"), "sql", "--format", "json", query], night)
        original = float(json.loads(said)[0]["seconds"])
        replay = [str(BIN / "millrace"), "replay", "last", "--step", "train"]
        again = median(options.repeat, lambda: timed(replay, night)[0])
    print("| what | measured | wanted |\n|---|---:|---:|")
    print(f"| a typed task over a bare flytekit task, ms | {layer['typed'] - layer['bare']:.1f} | 50 |")
    print(f"| a night from the cache, s | {cached:.2f} | |")
    print(f"| `pyflyte run` of an empty workflow, s | {empty:.2f} | |")
    print(f"| the one by the other | {cached / empty:.2f} | 1.5 |")
    print(f"| training, s | {original:.1f} | |")
    print(f"| the whole command that replays it, s | {again:.1f} | |")
    print(f"| the one by the other | {again / original:.2f} | 1.1 |")


if __name__ == "__main__":
    main()
