"""What do online features cost? Materializing and reading, against Feast's own paths on the same stores.

    python -m benchmarks.features_online materialize --entities 100000 --store sqlite
    python -m benchmarks.features_online online --entities 100000

Each way of doing a thing runs in turn, in one process, on the same Delta table and the same server; medians are given
and the ratio of the two. Redis is started on a free port of the loopback and ended again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from features.store import FeatureStore
from lakehouse.contracts.table import EventTime, Key, Table
from lakehouse.snapshot import Snapshot

DAY = date(2026, 1, 1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Account(Table, name="accounts"):
    """Five features of an entity, and when they became known."""

    account_id: Annotated[int, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    orders: int
    spent: float
    rate: float | None
    plan: str
    active: bool


FEATURES = ["orders", "spent", "rate", "plan", "active"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    materialize = commands.add_parser("materialize", help="first load, and a day on which 1 %% changed")
    materialize.add_argument("--store", choices=["sqlite", "redis"], default="sqlite")
    materialize.set_defaults(run=run_materialize)
    online = commands.add_parser("online", help="5 features of 1, 10 and 100 entities, from Redis")
    online.add_argument("--reads", type=int, default=500)
    online.set_defaults(run=run_online)
    for command in (materialize, online):
        command.add_argument("--entities", type=int, default=100_000)
        command.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-online-") as folder:
        print(json.dumps(options.run(options, Path(folder)), indent=2))


def run_materialize(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Seconds for a first load by both writers, and for a day on which one entity in a hundred has changed."""
    first = write(folder / "lake", rows(options.entities, START), "overwrite")
    second = write(folder / "lake", rows(max(1, options.entities // 100), START + timedelta(days=1)), "append")
    times: dict[str, list[float]] = {"millrace": [], "feast": [], "millrace, 1 % changed": []}
    with redis_server(folder) as url:
        for number in range(-1, options.rounds):  # the first round warms up: imports, the page cache
            place = folder / f"round-{number}"
            empty(url)
            ours = FeatureStore(place / "ours", url if options.store == "redis" else None)
            ours.apply([first])
            seconds = {"millrace": timed(lambda store=ours: store.materialize(DAY))}
            ours.apply([second])
            seconds["millrace, 1 % changed"] = timed(lambda store=ours: store.materialize(DAY + timedelta(days=1)))
            empty(url)
            theirs = FeatureStore(place / "theirs", url if options.store == "redis" else None)
            theirs.apply([first])
            seconds["feast"] = timed(
                lambda store=theirs: store._feast.materialize(START - timedelta(days=1), START + timedelta(days=1))
            )
            if number >= 0:
                for name, one in seconds.items():
                    times[name].append(one)
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {
        "store": options.store,
        "entities": options.entities,
        "features": len(FEATURES),
        "seconds": {name: round(one, 3) for name, one in medians.items()},
        "feast / millrace": round(medians["feast"] / medians["millrace"], 1),
        "first load / 1 % changed": round(medians["millrace"] / medians["millrace, 1 % changed"], 1),
    }


def run_online(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Milliseconds (p50) of one read, by three ways that take turns: raw HMGET pipeline, reader, Feast's SDK."""
    import redis
    from feast.infra.online_stores.helpers import _mmh3

    pin = write(folder / "lake", rows(options.entities, START), "overwrite")
    random = np.random.default_rng(1)
    result: dict[str, object] = {"entities in the store": options.entities, "features": len(FEATURES)}
    with redis_server(folder) as url:
        store = FeatureStore(folder / "store", url)
        store.apply([pin])
        store.materialize(DAY)
        reader = store.reader(["accounts"])
        client = redis.Redis.from_url(url)
        fields = [_mmh3(f"accounts:{name}") for name in FEATURES]
        references = [f"accounts:{name}" for name in FEATURES]
        for count in (1, 10, 100):
            from features.encoding import Layout, encode_keys

            times: dict[str, list[float]] = {"raw pipeline": [], "millrace": [], "feast": []}
            for _ in range(options.reads):
                asked = random.integers(0, options.entities, count).tolist()
                keys = [key + b"millrace" for key in encode_keys(Layout.of(Account.contract), {"account_id": asked})]

                def raw(keys: list[bytes] = keys) -> None:
                    with client.pipeline(transaction=False) as pipe:
                        for key in keys:
                            pipe.hmget(key, fields)
                        pipe.execute()

                def feast(asked: list[int] = asked) -> None:
                    store._feast.get_online_features(references, {"account_id": asked}).to_dict()

                times["raw pipeline"].append(timed(raw))
                times["millrace"].append(timed(lambda asked=asked: reader.read({"account_id": asked})))
                times["feast"].append(timed(feast))
            medians = {name: 1000 * statistics.median(found) for name, found in times.items()}
            result[f"{count} entities"] = {
                "p50 ms": {name: round(one, 3) for name, one in medians.items()},
                "p99 ms": {name: round(1000 * float(np.quantile(found, 0.99)), 3) for name, found in times.items()},
                "millrace / raw": round(medians["millrace"] / medians["raw pipeline"], 2),
                "feast / raw": round(medians["feast"] / medians["raw pipeline"], 2),
            }
    return result


def rows(count: int, day: datetime) -> pa.Table:
    """Rows of that day, one an entity; the seed is fixed."""
    random = np.random.default_rng(0)
    clock = np.datetime64(day.replace(tzinfo=None), "us") + random.integers(0, 86_400, count).astype("timedelta64[s]")
    return pa.table(
        {
            "account_id": pa.array(np.arange(count)),
            "known_at": pa.array(clock, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
            "orders": random.integers(0, 1000, count),
            "spent": random.random(count) * day.day,
            "rate": pa.array(random.random(count), mask=random.random(count) < 0.1),
            "plan": random.choice(["free", "plus", "family", "business"], count),
            "active": random.random(count) < 0.5,
        }
    )


def write(lake: Path, table: pa.Table, mode: str) -> Snapshot[Account]:
    path = lake / "accounts"
    write_deltalake(path, table, mode=mode)  # type: ignore[call-overload]
    return Snapshot(str(path), DeltaTable(path).version(), Account)


def timed(work: Callable[[], object]) -> float:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def empty(url: str) -> None:
    import redis

    redis.Redis.from_url(url).flushall()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A server of its own on a free port, without persistence."""
    import redis

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            client = redis.Redis(port=port)
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                if server.poll() is not None:
                    sys.exit("redis-server did not start")
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
