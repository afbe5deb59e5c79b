"""What does a point-in-time join cost, as feature rows grow? Each way in a process of its own, on the same Delta files.

    python -m benchmarks.features join [--entities 1000000] [--rows 10000000] [--ttl 10] [--repeat 3]

A table of five features over 90 days is made by a seeded generator, a day of rows after the other, in files of at most
a million rows; a hundredth as many keys. The entities are random keys and instants. Each way reads the same pinned
version and gives an Arrow table in the entities' order: the store's own join, DuckDB's ASOF join by hand (over its own
Parquet reader, and over pyarrow's), and polars' join_asof. ``--ways feast-duckdb`` is Feast's
DuckDB store. Times are medians and
include reading; the ways take turns. Peak memory is the whole process's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

if TYPE_CHECKING:
    import duckdb
    from feast import Entity, FeatureView
    from feast.data_source import DataSource

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 90
FILE_ROWS = 1_000_000
FEATURES = tuple(f"f{number}" for number in range(5))
_SPAN = DAYS * 86_400 * 10**6
_FIRST = int(START.timestamp()) * 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    join = commands.add_parser("join", help="entities joined with five features, as known at each one's instant")
    join.add_argument("--entities", type=int, nargs="+", default=[1_000_000])
    join.add_argument("--rows", type=int, nargs="+", default=[10_000_000])
    join.add_argument("--ttl", type=int, nargs="+", default=[10, DAYS], help="days")
    join.add_argument("--repeat", type=int, default=3)
    join.add_argument("--ways", nargs="+", choices=list(WAYS), default=["millrace", "duckdb", "duckdb-arrow", "polars"])
    join.add_argument("--folder", type=Path, help="where the tables are made, and kept; default: a temporary one")
    join.set_defaults(run=run_join)
    one = commands.add_parser("one", help="one way once; what join calls")
    for name in ("way", "uri"):
        one.add_argument(name)
    for name in ("entities", "keys", "ttl"):
        one.add_argument(name, type=int)
    one.set_defaults(run=run_one)
    arguments = parser.parse_args()
    arguments.run(arguments)


def run_join(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        for rows, count in zip(arguments.rows, _as_long(arguments.entities, arguments.rows), strict=True):
            uri = make_table(folder, rows)
            for ttl in arguments.ttl:
                compare(arguments.ways, uri, count, keys_of(rows), ttl, arguments.repeat, rows)


def compare(ways: list[str], uri: Path, entities: int, keys: int, ttl: int, repeat: int, rows: int) -> None:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.features", "one", way, uri, entities, keys, ttl]
            done = subprocess.run(
                [str(part) for part in command], capture_output=True, text=True, cwd=Path(__file__).parents[1]
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    answers = {(run["nulls"], round(run["sum"], 4)) for runs in found.values() for run in runs}
    same = "the same values" if len(answers) == 1 else "DIFFERENT VALUES"
    print(f"\n{entities:,} entities x {rows:,} feature rows, ttl {ttl} d of {DAYS} d; {same}")
    print("| way | seconds | CPU seconds | peak GiB |\n| --- | ---: | ---: | ---: |")
    for way, runs in found.items():
        seconds, cpu, peak = (statistics.median(run[name] for run in runs) for name in ("seconds", "cpu", "peak"))
        print(f"| {way} | {seconds:.2f} | {cpu:.2f} | {peak:.2f} |")
    others = [statistics.median(run["seconds"] for run in found[way]) for way in ways if way in PEERS]
    if "millrace" in ways and others:
        own = statistics.median(run["seconds"] for run in found["millrace"])
        print(f"millrace takes {own / min(others):.2f} x the faster of the ways by hand")


def run_one(arguments: argparse.Namespace) -> None:
    entities = make_entities(arguments.entities, arguments.keys)
    join = WAYS[arguments.way](Path(arguments.uri), entities, arguments.ttl)  # imports and set-up are not timed
    started, worked = time.perf_counter(), sum(os.times()[:2])
    table = join()
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:2]) - worked
    assert table.num_rows == entities.num_rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    nulls, total = table[FEATURES[0]].null_count, pc.sum(table[FEATURES[0]]).as_py() or 0.0
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "nulls": nulls, "sum": total}))


def keys_of(rows: int) -> int:
    return max(100, rows // 100)


def make_table(folder: Path, rows: int) -> Path:
    """The feature rows in the order of time, as a table that grows by the day has them."""
    uri = folder / f"features_{rows}"
    if DeltaTable.is_deltatable(str(uri)):
        return uri
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - first)
        random = np.random.default_rng(number)
        instants = _FIRST + (np.arange(first, first + count) * (_SPAN / rows)).astype(np.int64)
        columns: dict[str, object] = {
            "user_id": random.integers(0, keys_of(rows), count),
            "known_at": pa.array(instants, pa.timestamp("us", "UTC")),
        }
        write_deltalake(uri, pa.table(columns | {name: random.normal(size=count) for name in FEATURES}), mode="append")
    return uri


def make_entities(count: int, keys: int) -> pa.Table:
    random = np.random.default_rng(10**6)
    instants = _FIRST + random.integers(0, _SPAN, count)
    return pa.table(
        {
            "user_id": random.integers(0, keys, count),
            "event_timestamp": pa.array(instants, pa.timestamp("us", "UTC")),
        }
    )


Way = Callable[[Path, pa.Table, int], Callable[[], pa.Table]]


def by_millrace(uri: Path, entities: pa.Table, ttl: int) -> Callable[[], pa.Table]:
    """The offline store through Feast's own call."""
    import feast
    from feast.repo_config import RepoConfig

    client = feast.FeatureStore(config=RepoConfig(**_config(uri, "features.offline_store.DeltaOfflineStore")))
    from features.delta_source import DeltaSource

    version = DeltaTable(uri).version()
    source = DeltaSource(table="features", uri=str(uri), version=version, timestamp_field="known_at")
    client.apply([*_declared(source, ttl)])
    return lambda: client.get_historical_features(entities, _asked()).to_arrow()


def by_feast_duckdb(uri: Path, entities: pa.Table, ttl: int) -> Callable[[], pa.Table]:
    """Feast's DuckDB store over the same Parquet files: it can't read Delta without a download."""
    import feast
    from feast import FileSource
    from feast.repo_config import RepoConfig

    client = feast.FeatureStore(config=RepoConfig(**_config(uri, "duckdb")))
    client.apply([*_declared(FileSource(path=f"{uri}/*.parquet", timestamp_field="known_at"), ttl)])
    frame = entities.to_pandas()
    return lambda: client.get_historical_features(frame, _asked()).to_arrow()


def by_duckdb(uri: Path, entities: pa.Table, ttl: int) -> Callable[[], pa.Table]:
    """An ASOF join over DuckDB's own Parquet reader."""
    return _by_duckdb(uri, entities, ttl, lambda connection, table: connection.read_parquet(table.file_uris()))


def by_duckdb_arrow(uri: Path, entities: pa.Table, ttl: int) -> Callable[[], pa.Table]:
    """An ASOF join over pyarrow's reader."""
    return _by_duckdb(uri, entities, ttl, lambda connection, table: connection.from_arrow(table.to_pyarrow_dataset()))


def _by_duckdb(
    uri: Path,
    entities: pa.Table,
    ttl: int,
    source: Callable[[duckdb.DuckDBPyConnection, DeltaTable], duckdb.DuckDBPyRelation],
) -> Callable[[], pa.Table]:
    import duckdb

    features = ", ".join(
        f"CASE WHEN asked.event_timestamp - known.known_at <= $ttl THEN known.{name} END AS {name}" for name in FEATURES
    )
    statement = (
        f"SELECT asked.user_id, asked.event_timestamp, {features} FROM asked ASOF LEFT JOIN known "
        "ON asked.user_id = known.user_id AND asked.event_timestamp >= known.known_at ORDER BY asked.row"
    )
    version = DeltaTable(uri).version()

    def join() -> pa.Table:
        with duckdb.connect() as connection:
            connection.register("asked", entities.append_column("row", pa.array(np.arange(entities.num_rows))))
            earliest = pc.min(entities["event_timestamp"]).as_py() - timedelta(days=ttl)
            known = source(connection, DeltaTable(uri, version=version))
            bounded = known.filter(f"known_at >= '{earliest.isoformat()}'::TIMESTAMPTZ")
            bounded.create_view("known")
            return connection.sql(statement, params={"ttl": timedelta(days=ttl)}).to_arrow_table()

    return join


def by_polars(uri: Path, entities: pa.Table, ttl: int) -> Callable[[], pa.Table]:
    """join_asof over polars' Delta reader, on its streaming engine."""
    import polars as pl

    version = DeltaTable(uri).version()

    def join() -> pa.Table:
        earliest = pc.min(entities["event_timestamp"]).as_py() - timedelta(days=ttl)
        known = pl.scan_delta(str(uri), version=version).filter(pl.col("known_at") >= earliest).sort("known_at")
        asked = pl.DataFrame(pl.from_arrow(entities)).lazy().with_row_index("row").sort("event_timestamp")
        found = asked.join_asof(
            known,
            left_on="event_timestamp",
            right_on="known_at",
            by="user_id",
            tolerance=timedelta(days=ttl),
            check_sortedness=False,
        )
        return found.sort("row").drop("row", "known_at", strict=False).collect(engine="streaming").to_arrow()

    return join


WAYS: dict[str, Way] = {
    "millrace": by_millrace,
    "duckdb": by_duckdb,
    "duckdb-arrow": by_duckdb_arrow,
    "polars": by_polars,
    "feast-duckdb": by_feast_duckdb,
}
PEERS = ("duckdb", "duckdb-arrow", "polars")


def _config(uri: Path, store: str) -> dict[str, object]:
    scratch = tempfile.mkdtemp(dir=uri.parent)
    return {
        "project": "benchmark",
        "provider": "local",
        "registry": {"path": f"{scratch}/registry.db"},
        "online_store": {"type": "sqlite", "path": f"{scratch}/online.db"},
        "offline_store": {"type": store},
        "entity_key_serialization_version": 3,
    }


def _declared(source: DataSource, ttl: int) -> list[Entity | FeatureView]:
    from feast import Entity, FeatureView, Field
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    user = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
    fields = [Field(name="user_id", dtype=Int64), *(Field(name=name, dtype=Float64) for name in FEATURES)]
    return [user, FeatureView(name="stats", entities=[user], schema=fields, source=source, ttl=timedelta(days=ttl))]


def _asked() -> list[str]:
    return [f"stats:{name}" for name in FEATURES]


def _as_long(given: list[int], other: list[int]) -> list[int]:
    """One value for each of the others."""
    return given * len(other) if len(given) == 1 else given


if __name__ == "__main__":
    main()
