"""What does the lakehouse cost beside the bare engines, as tables grow? Each table size in a process of its own.

    make benchmark WHAT=lakehouse [OPTIONS="--rows 100000 1000000 10000000 --batch 100000 --repeat 3"]
    make benchmark WHAT=lakehouse OPTIONS="--reading-only"

A table of 20 columns in 10 partitions is made by a seeded generator, twice: one goes through Millrace, one through the
bare engine, in turn and in the same process. Times are medians; ratios are of medians. Memory is the resident memory of
the process and its JVM, sampled.
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
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import pyarrow as pa
from pydantic import Field

from lakehouse import EventTime, Key, Lakehouse, Table
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta

ROOT = Path(__file__).resolve().parent.parent
REGIONS = tuple(f"r{n}" for n in range(10))
START = datetime(2024, 1, 1, tzinfo=UTC)
#: Rows a data file of the first version holds.
FILE_ROWS = 1_000_000


class Event(Table, name="events", partition_by=("region",), change_feed=True):
    """One event of the generator's world: a key, a time, a partition and seventeen values."""

    event_id: Annotated[int, Key()]
    happened_at: Annotated[datetime, EventTime()]
    region: Literal["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"]
    user_id: Annotated[int, Field(ge=0)]
    item_id: Annotated[int, Field(ge=0)]
    rating: Annotated[float, Field(ge=0.5, le=5)]
    seconds: Annotated[float, Field(ge=0)]
    kind: Literal["view", "click", "buy"]
    session: Annotated[str, Field(max_length=20)]
    page: int
    place: int
    price: float | None
    discount: float | None
    stock: int
    weight: float
    score_a: float
    score_b: float
    score_c: float
    seen: bool
    day: date


def events(first: int, count: int, *, seed: int, at: datetime) -> pa.Table:
    """Rows with the keys from ``first`` on."""
    random = np.random.default_rng(seed)
    ids = np.arange(first, first + count)
    stamps = np.datetime64(at.replace(tzinfo=None), "us") + (np.arange(count) % 86_400_000)
    columns: dict[str, object] = {
        "event_id": ids,
        "happened_at": pa.array(stamps, pa.timestamp("us", "UTC")),
        "region": pa.array(REGIONS).take(pa.array(ids % 10)),
        "user_id": random.integers(0, 100_000, count),
        "item_id": random.integers(0, 10_000, count),
        "rating": random.integers(1, 11, count) / 2,
        "seconds": random.exponential(30, count),
        "kind": pa.array(["view", "click", "buy"]).take(pa.array(random.integers(0, 3, count))),
        "session": pa.array(random.integers(0, 10**12, count)).cast(pa.string()),
        "page": random.integers(0, 1000, count),
        "place": random.integers(0, 100, count),
        "price": pa.array(random.uniform(1, 100, count), mask=random.random(count) < 0.1),
        "discount": pa.array(random.uniform(0, 1, count), mask=random.random(count) < 0.5),
        "stock": random.integers(0, 10_000, count),
        "weight": random.normal(size=count),
        "score_a": random.normal(size=count),
        "score_b": random.normal(size=count),
        "score_c": random.normal(size=count),
        "seen": random.random(count) < 0.5,
        "day": pa.array([at.date()] * count, pa.date32()),
    }
    return pa.table(columns)


def make_table(uri: str, rows: int) -> None:
    """The first version, in files of at most a million rows a partition, as a compacted table would be."""
    from deltalake import DeltaTable, write_deltalake

    from lakehouse.contracts.delta_schema import create

    create(uri, Event.contract)
    for first in range(0, rows, FILE_ROWS):
        batch = events(first, min(FILE_ROWS, rows - first), seed=first, at=START)
        write_deltalake(uri, batch, mode="append", partition_by=["region"])
    if rows > FILE_ROWS:
        DeltaTable(uri).optimize.compact()
    DeltaTable(uri).create_checkpoint()


def batch_rows(rows: int, batch: int, number: int) -> pa.Table:
    """Half updates of keys spread over the table, half new keys."""
    at = START + timedelta(days=number)
    half = batch // 2
    fresh = events(rows + number * half, batch - half, seed=1000 + number, at=at)
    old = events(0, half, seed=2000 + number, at=at)
    ids = np.sort(np.random.default_rng(number).choice(rows, size=half, replace=False))
    old = old.set_column(0, "event_id", pa.array(ids)).set_column(
        2, "region", pa.array(REGIONS).take(pa.array(ids % 10))
    )
    return pa.concat_tables([old, fresh])


def seconds_of(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class Peak:
    """Peak resident MiB of this process and its children while open."""

    def __enter__(self) -> Peak:
        self.mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(0.1):
            family = [own, *own.children(recursive=True)]
            resident = 0
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    resident += member.memory_info().rss
            self.mib = max(self.mib, resident / 2**20)

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


Figures = dict[str, float]


def measure_publishing(lake: Lakehouse, folder: str, rows: int, batch: int, repeat: int) -> Figures:
    """One batch through the gate, against a bare MERGE of the same rows and a bare Deequ run on them."""
    from lakehouse.gate.publish import publish
    from lakehouse.gate.staging import stage
    from lakehouse.spark import spark_session

    bare = f"{folder}/bare"
    for uri in (lake.uri("events"), bare):
        make_table(uri, rows)
    spark = spark_session(lake.root)
    found: dict[str, list[float]] = {"gate": [], "merge": [], "deequ": []}
    first = 0.0
    peaks = []
    for number in range(repeat + 1):  # the first batch warms both and gives the table its first metrics
        arriving = batch_rows(rows, batch, number + 1)
        day = (START + timedelta(days=number + 1)).date()
        staged = stage(lake, Event, arriving, batch_id=f"batch-{number}", day=day)
        with Peak() as peak:
            gate = seconds_of(lambda: publish(lake, Event, staged))  # noqa: B023
        source = spark.read.parquet(f"{lake.root}/{staged.path}").drop("__row")
        merge = seconds_of(lambda: bare_merge(spark, bare, source))  # noqa: B023
        deequ = seconds_of(lambda: bare_deequ(spark, source))  # noqa: B023
        print(f"  {rows:>10,} rows: gate {gate:.1f} s, merge {merge:.1f} s, Deequ {deequ:.1f} s", file=sys.stderr)
        if number:
            for name, value in (("gate", gate), ("merge", merge), ("deequ", deequ)):
                found[name].append(value)
            peaks.append(peak.mib)
        else:
            first = gate
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {
        **medians,
        "first": first,
        "ratio": medians["gate"] / (medians["merge"] + medians["deequ"]),
        "peak": max(peaks),
    }


def bare_merge(spark: object, uri: str, source: object) -> None:
    from delta.tables import DeltaTable

    merge = DeltaTable.forPath(spark, uri).alias("t").merge(source.alias("s"), "t.event_id = s.event_id")
    merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()


def bare_deequ(spark: object, source: object) -> None:
    """The contract's rules as an ordinary Deequ suite over the batch."""
    from pydeequ.checks import Check, CheckLevel
    from pydeequ.verification import VerificationSuite

    check = Check(spark, CheckLevel.Error, "events")
    for column in Event.contract.columns:
        if not column.nullable:
            check = check.isComplete(column.name)
    for condition in ("rating >= 0.5 AND rating <= 5", "user_id >= 0", "item_id >= 0", "seconds >= 0"):
        check = check.satisfies(condition, condition)
    check = check.satisfies("kind IN ('view', 'click', 'buy')", "kind").satisfies("length(session) <= 20", "session")
    VerificationSuite(spark).onData(source).addCheck(check.isUnique("event_id")).run()


def publish_as_made(lake: Lakehouse, rows: int) -> None:
    """The table with three small commits behind its first, published by a row in the ledger alone: no Spark."""
    from deltalake import write_deltalake

    uri = lake.uri("events")
    make_table(uri, rows)
    for number in range(3):
        fresh = events(rows + number * 1000, 1000, seed=number, at=START)
        write_deltalake(uri, fresh, mode="append", partition_by=["region"])
    version = open_delta(uri).version()
    publication = Publication(
        publication_id=f"events/made@{version}",
        table_name="events",
        batch_id="made",
        day=START.date(),
        version=version,
        published=True,
        rows_in=rows,
        rows_published=rows,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=rows,
        failed_checks=[],
        broken_rules="{}",
        fingerprint=Event.contract.fingerprint,
        published_at=START,
    )
    lake.ledger.append([publication])


def measure_opening(lake: Lakehouse, repeat: int) -> Figures:
    """Resolving a reference and opening its version for readers, against opening that version with delta-rs."""
    from deltalake import DeltaTable

    uri = lake.uri("events")
    version = lake.resolve("events").version

    def ours(reference: str) -> Callable[[], object]:
        return lambda: lake.resolve(reference).open()

    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: DeltaTable(uri, version=version),
        "pinned": ours(f"events@{version}"),
        "latest": ours("events"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat * 20):
        for name, way in ways.items():
            found[name].append(seconds_of(way) * 1000)
    return {name: statistics.median(values) for name, values in found.items()}


COLUMNS = ("event_id", "rating", "happened_at")


def measure_reading(lake: Lakehouse, repeat: int) -> Figures:
    """3 of 20 columns of one partition into Arrow, against DuckDB and Polars over the same files."""
    import duckdb
    import polars
    from deltalake import DeltaTable

    snapshot = lake.resolve("events")
    table = DeltaTable(snapshot.uri, version=snapshot.version)
    files = table.file_uris(file_pruning_predicate="region = 'r3'")
    chosen = ", ".join(COLUMNS)

    connection = duckdb.connect()
    relation = f"SELECT {chosen} FROM read_parquet({files!r})"
    ways: dict[str, Callable[[], object]] = {
        "duckdb": lambda: connection.sql(relation).to_arrow_table(),
        "polars": lambda: polars.scan_parquet(files).select(COLUMNS).collect().to_arrow(),
        "millrace": lambda: snapshot.arrow(COLUMNS, [("region", "=", "r3")]),
    }
    counts = {name: way().num_rows for name, way in ways.items()}
    assert len(set(counts.values())) == 1, counts
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat * 5):
        for name, way in ways.items():
            found[name].append(seconds_of(way) * 1000)
    return {name: statistics.median(values) for name, values in found.items()}


def measure_diff(lake: Lakehouse, repeat: int) -> Figures:
    """Two neighbouring versions: a batch of 1,000 appended rows in one partition, and the batch before it."""
    from deltalake import DeltaTable, write_deltalake

    uri = lake.uri("events")
    version = DeltaTable(uri).version()
    small = events(10**9, 10_000, seed=7, at=START)
    write_deltalake(uri, small.filter(pa.compute.equal(small["region"], "r3")), mode="append", partition_by=["region"])
    pairs = {"append": (version, version + 1), "before": (version - 1, version)}
    found: Figures = {}
    for name, (before, after) in pairs.items():
        old, new = lake.resolve(f"events@{before}"), lake.resolve(f"events@{after}")
        times = [seconds_of(lambda: old.diff(new).counts()) for _ in range(repeat)]  # noqa: B023
        found[name] = statistics.median(times)
    return found


def one_size(rows: int, batch: int, repeat: int, reading_only: bool) -> dict[str, Figures]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MILLRACE_STATE"] = f"{folder}/state"
        lake = Lakehouse.open(f"{folder}/lake", create=True)
        publishing: dict[str, Figures] = {}
        if reading_only:
            publish_as_made(lake, rows)
        else:
            publishing = {"publishing": measure_publishing(lake, folder, rows, batch, repeat)}
        return {
            **publishing,
            "opening": measure_opening(lake, repeat),
            "reading": measure_reading(lake, repeat),
            "diff": measure_diff(lake, repeat),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--batch", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--reading-only", action="store_true", help="publish nothing, start no Spark")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # one size, as JSON
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(one_size(options.rows[0], options.batch, options.repeat, options.reading_only)))
        return
    results: dict[int, dict[str, Figures]] = {}
    for rows in options.rows:
        arguments = ["--rows", str(rows), "--batch", str(options.batch), "--repeat", str(options.repeat), "--alone"]
        arguments += ["--reading-only"] * options.reading_only
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.lakehouse", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        results[rows] = json.loads(done.stdout)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC).date()}\n")
    if not options.reading_only:
        print("| rows | gate s | bare MERGE s | bare Deequ s | gate / (MERGE + Deequ) | first batch s | peak MiB |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for rows, result in results.items():
            p = result["publishing"]
            cells = [f"{rows:,}", *(f"{p[k]:.1f}" for k in ("gate", "merge", "deequ")), f"{p['ratio']:.2f}"]
            print("| " + " | ".join([*cells, f"{p['first']:.1f}", f"{p['peak']:,.0f}"]) + " |")
    print("\n| rows | open, bare ms | @version | latest | read, DuckDB ms | Polars | Millrace | / faster |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rows, result in results.items():
        o, r = result["opening"], result["reading"]
        ratios = [f"{o[k]:.2f} ({o[k] / o['bare']:.2f} x)" for k in ("pinned", "latest")]
        peers = min(r["duckdb"], r["polars"])
        cells = [f"{rows:,}", f"{o['bare']:.2f}", *ratios, *(f"{r[k]:.1f}" for k in ("duckdb", "polars", "millrace"))]
        print("| " + " | ".join([*cells, f"{r['millrace'] / peers:.2f}"]) + " |")
    print("\n| rows | diff of 1,000 appended s | diff of the batch before s |\n|---:|---:|---:|")
    for rows, result in results.items():
        print(f"| {rows:,} | {result['diff']['append']:.2f} | {result['diff']['before']:.2f} |")


if __name__ == "__main__":
    main()
