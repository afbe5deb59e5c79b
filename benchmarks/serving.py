"""How fast does the service answer? Load from a second process, ratios in one run.

    make benchmark WHAT=serving          # after `make demo`; with Redis if redis-server is installed

Serves the champion of a finished night (MILLRACE_STATE) with a state of its own, so that nothing is written into the
night's folder but the ledger's rows on deployments. Latencies at a fixed rate are counted from the moment at which a
request was due, so that a stall is not hidden by waiting senders.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]


class Connection:
    """One HTTP/1.1 connection that sends prepared bytes and reads the answer: as little client as there can be."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        start = head.lower().index(b"content-length:") + 15
        length = int(head[start : head.index(b"\r", start)])
        return int(head[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


class Place(NamedTuple):
    """Where a server listens, and its process."""

    port: int
    pid: int


class Seen(NamedTuple):
    """What a load came to: seconds of each answer, when it was due, and its status."""

    seconds: list[float]
    due: list[float]
    statuses: list[int]

    def line(self) -> dict[str, float]:
        ms = [1000 * one for one in self.seconds]
        return {
            "requests": len(ms),
            "failed": sum(status != 200 for status in self.statuses),
            "p50 ms": round(statistics.median(ms), 2),
            "p99 ms": round(float(np.percentile(ms, 99)), 2),
            "max ms": round(max(ms), 2),
        }


def post(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {len(content)}", "", ""]).encode() + content


async def at_rate(port: int, make: Callable[[int], bytes], rate: float, seconds: float) -> Seen:
    """An open loop: requests are due at a fixed rate, whatever became of the ones before."""
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    connections = [Connection(port) for _ in range(64)]
    for connection in connections:
        free.put_nowait(connection)
    seen = Seen([], [], [])
    start = time.perf_counter() + 2.0  # when all of the tasks below are made

    async def one(number: int) -> None:
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = await free.get()
        try:
            status, _ = await connection.ask(make(number))
        except (OSError, asyncio.IncompleteReadError):
            status, connection.streams = 0, None
        free.put_nowait(connection)
        seen.seconds.append(time.perf_counter() - due)
        seen.due.append(due)
        seen.statuses.append(status)

    await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    for connection in connections:
        connection.close()
    return seen


class Speed(NamedTuple):
    """A closed loop's answers a second, and CPU milliseconds of the server for each: those don't see the neighbours."""

    per_second: float
    cpu_ms: float


async def flat_out(place: Place, make: Callable[[int], bytes], seconds: float, senders: int = 8) -> Speed:
    """A closed loop: each sender asks again as soon as it is answered."""
    port, server = place.port, psutil.Process(place.pid)
    before, end = sum(server.cpu_times()[:2]), time.perf_counter() + seconds
    done = 0

    async def send(sender: int) -> None:
        nonlocal done
        connection, number = Connection(port), sender
        while time.perf_counter() < end:
            status, _ = await connection.ask(make(number))
            assert status == 200, status
            done += 1
            number += senders
        connection.close()

    await asyncio.gather(*(send(sender) for sender in range(senders)))
    return Speed(done / seconds, 1000 * (sum(server.cpu_times()[:2]) - before) / max(done, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput ratio")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-serving-") as name:
        folder = Path(name)
        stores = [*(["redis"] if shutil.which("redis-server") else []), "sqlite"]
        for store in stores:
            with served(folder / store, store) as (place, users):
                print(json.dumps({"store": store, **asyncio.run(loads(place, users, options))}, indent=1), flush=True)


async def loads(place: Place, users: list[int], options: argparse.Namespace) -> dict[str, object]:
    port = place.port
    random = np.random.default_rng(0)
    picked = random.choice(users, 100_000).tolist()
    asked = [post("/recommend", {"user_id": user, "k": 10}) for user in picked]

    def recommend(number: int) -> bytes:
        return asked[number % len(asked)]

    await at_rate(port, recommend, options.rate, 3)  # warms up
    result: dict[str, object] = {"users": len(users)}
    result[f"/recommend at {options.rate:g}/s"] = (await at_rate(port, recommend, options.rate, options.seconds)).line()
    _, body = await Connection(port).ask(asked[0])
    ours, bare = [], []
    with bare_route(body) as other:
        await flat_out(other, recommend, 2)
        for _ in range(options.rounds):
            bare.append(await flat_out(other, recommend, options.seconds / 2))
            ours.append(await flat_out(place, recommend, options.seconds / 2))
    result["throughput"] = {
        "answer bytes": len(body),
        "/recommend per s": round(statistics.median(one.per_second for one in ours)),
        "bare FastAPI route per s": round(statistics.median(one.per_second for one in bare)),
        "ratio": round(statistics.median(a.per_second / b.per_second for a, b in zip(ours, bare, strict=True)), 2),
        "CPU ms a request": round(statistics.median(one.cpu_ms for one in ours), 3),
        "CPU ms a bare request": round(statistics.median(one.cpu_ms for one in bare), 3),
    }
    result["switch and roll-back under load"] = await switching(port, recommend, options)
    result["feedback"] = await feedback(place, users, options)
    return result


async def switching(port: int, make: Callable[[int], bytes], options: argparse.Namespace) -> dict[str, object]:
    """Stage, switch and roll back while requests come at the rate."""

    async def verb(path: str, body: object) -> tuple[float, float]:
        started = time.perf_counter()
        status, answer = await Connection(port).ask(post(path, body))
        assert status == 200, answer
        return started, time.perf_counter()

    async def verbs() -> list[tuple[float, float]]:
        await asyncio.sleep(options.seconds / 3)
        staged = await verb("/admin/stage", {"model": "champion"})
        moved = []
        for _ in range(3):
            moved.append(await verb("/admin/switch", {"force": True}))
            moved.append(await verb("/admin/rollback", {"reason": "benchmark"}))
            await verb("/admin/stage", {"model": "champion"})
        return [staged, *moved]

    work: Awaitable[list[tuple[float, float]]] = asyncio.ensure_future(verbs())
    seen = await at_rate(port, make, options.rate, 2 * options.seconds + 30)
    (staged_from, _), *moved = await work

    def between(start: float, end: float) -> list[float]:
        return [1000 * s for s, due in zip(seen.seconds, seen.due, strict=True) if start <= due < end]

    calm = between(0, staged_from)
    during = [ms for start, end in moved for ms in between(start - 0.5, end + 0.5)]
    return {
        **seen.line(),
        "p99 ms before": round(float(np.percentile(calm, 99)), 2),
        "p99 ms around the switches and roll-backs": round(float(np.percentile(during, 99)), 2),
        "switches and roll-backs": len(moved),
    }


async def feedback(place: Place, users: list[int], options: argparse.Namespace) -> dict[str, object]:
    """Events acknowledged as durable: at 1,000 a second in requests of one, and flat out in requests of ten."""
    run = os.urandom(4).hex()

    def events(count: int, number: int) -> bytes:
        user = users[number % len(users)]
        return post(
            "/feedback",
            {
                "events": [
                    {"event_id": f"{run}-{count}-{number}-{n}", "kind": "click", "user_id": user, "item_id": 50}
                    for n in range(count)
                ]
            },
        )

    single = await at_rate(place.port, lambda number: events(1, number), 1000, options.seconds)
    tens = await flat_out(place, lambda number: events(10, number), options.seconds, 16)
    return {
        "1000 requests of one event a second": single.line(),
        "events/s in requests of ten, flat out": round(10 * tens.per_second),
    }


@contextlib.contextmanager
def served(folder: Path, store: str) -> Iterator[tuple[Place, list[int]]]:
    """`millrace serve` on the night's lake, with a state of its own; where it listens and the users of the lake."""
    from features.store import FeatureStore
    from features.tables import ItemStats, UserStats
    from lakehouse import Lakehouse
    from lakehouse.settings import Settings
    from lakehouse.tables import Movie, MovieCard, Rating, User

    settings = Settings()
    lake = Lakehouse.open()
    folder.mkdir()
    environment = {
        **os.environ,
        "MILLRACE_STATE": str(folder),
        "LAKEHOUSE_ROOT": lake.root,
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{settings.state / 'mlflow.db'}"),
        "MILLRACE_RATE_PER_SECOND": "1000000",
        "MILLRACE_RATE_BURST": "1000000",
        "MILLRACE_SLO_LATENCY_MS": "100000",
    }
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_server(folder)) if store == "redis" else None
        if url:
            environment["MILLRACE_ONLINE_STORE"] = url
        features = FeatureStore(folder / "features", url)
        features.apply([lake.latest(row) for row in (User, Movie, UserStats, ItemStats, MovieCard)])
        features.materialize(max(p.day for p in lake.publications("ratings") if p.published))
        words = [sys.executable, "-m", "cli.main", "serve", "--no-auth", "--port", "0", "--clock", "lake"]
        process = subprocess.Popen(words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "answers at" not in line:
                sys.exit("the service did not start")
            users = sorted(set(lake.latest(Rating).arrow(["user_id"])["user_id"].to_pylist()))
            yield Place(int(line.rstrip().rstrip("/").rpartition(":")[2]), process.pid), users
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def bare_route(body: bytes) -> Iterator[Place]:
    """A FastAPI route that returns a constant document of the same size, run as the service is."""
    script = (
        "import json, os, sys, uvicorn\n"
        "from fastapi import FastAPI\n"
        "app = FastAPI()\n"
        "constant = json.loads(sys.stdin.read())\n"
        "@app.post('/recommend')\n"
        "async def recommend() -> dict[str, object]:\n"
        "    return constant\n"
        "uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level='error')\n"
    )
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", script, str(port)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(body)
    process.stdin.close()
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                sys.exit("the bare route did not start")
            time.sleep(0.05)
        yield Place(port, process.pid)
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A server of its own on a free port, without persistence."""
    import redis

    port = free_port()
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
