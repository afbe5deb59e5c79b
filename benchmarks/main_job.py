"""How long does the main job take, and how much memory? Whole processes in a fresh home and state; medians of 3.

    make benchmark [OPTIONS="--repeat 3"]

Cold: the environment is installed and the model's weights are converted, all else is new. Cached: the same command
again. Memory is the sum of the resident memory of all processes of the command, sampled five times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"
NIGHT = [str(BIN / "pyflyte"), "-c", "flyte.yaml", "run", "workflows/nightly.py", "nightly", "--day", "1998-04-20"]
NEXT = [*NIGHT[:-1], "1998-04-21"]


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; seconds and peak MiB of its process tree."""
    started = time.perf_counter()
    process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family) / 2**20)
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.2 if time.perf_counter() - started > 10 else 0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{process.stderr.read().decode()}")
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    rows: dict[str, list[tuple[float, float]]] = {}
    parts: dict[str, list[float]] = {}
    for number in range(repeat):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "HOME": f"{folder}/home", "MILLRACE_STATE": f"{folder}/state"}
            environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
            Path(environment["HOME"]).mkdir()
            steps = {
                "nightly, cold": NIGHT,
                "nightly again, cached": NIGHT,
                "next night": NEXT,
                "millrace sql": [str(BIN / "millrace"), "sql", "select count(*) from ratings@2"],
                "millrace --help": [str(BIN / "millrace"), "--help"],
                "import lakehouse": [str(BIN / "python"), "-c", "import lakehouse"],
            }
            for name, command in steps.items():
                seconds, peak = measure(command, environment)
                rows.setdefault(name, []).append((seconds, peak))
                print(f"{number + 1}/{repeat}  {name:<24}{seconds:8.2f} s {peak:8.0f} MiB", file=sys.stderr, flush=True)
                if name == "nightly, cold":
                    for task, cost in _parts(environment).items():
                        parts.setdefault(task, []).append(cost)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC).date()}\n")
    print("| command | seconds | peak MiB |\n|---|---:|---:|")
    for name, measured in rows.items():
        seconds, peak = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"| {name} | {seconds:.2f} | {peak:.0f} |")
    print("\n| of the cold night | seconds |\n|---|---:|")
    for task, values in parts.items():
        print(f"| {task} | {statistics.median(values):.1f} |")


def _parts(environment: dict[str, str]) -> dict[str, float]:
    """Seconds of each task of the night, and how long Spark and vLLM took to start, as the ledger and report say."""
    statement = "select task, seconds from costs order by started_at"
    command = [str(BIN / "millrace"), "sql", "--format", "json", statement]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = {row["task"].rpartition(".")[2]: row["seconds"] for row in json.loads(done.stdout)}
    (report,) = Path(environment["MILLRACE_STATE"], "reports").glob("*.json")
    llm = json.loads(report.read_text())["llm"]
    return {**found, "of enrich: vLLM start": llm["start_seconds"], "of enrich: generation": llm["seconds"]}


if __name__ == "__main__":
    main()
