"""What does the typed layer cost over bare vLLM? In a batch and online, with the same prompts, schema and sampling.

    python -m benchmarks.llm batch --rows 512
    python -m benchmarks.llm unchanged --rows 512
    python -m benchmarks.llm online --requests 60 --clients 32

``batch``: ``complete()`` with its worker process, validation and the Delta store, and ``vllm.LLM.generate`` in this
process, turn by turn, each with an engine of its own that is loaded before the clock starts. ``online``: requests to
vLLM's own server and to the application in front of it, turn by turn, every one a question that was not asked before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lakehouse.movielens import movielens
from models.llm.batch import complete
from models.llm.component import Component
from models.llm.engine import Engine, EngineConfig, engine_environment
from models.llm.movie_card import MOVIE_CARD, MovieCardInput
from models.llm.store import ResponseStore
from models.llm.weights import ModelRef, named_model

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (("batch", run_batch), ("unchanged", run_unchanged), ("online", run_online)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        if name == "online":
            command.add_argument("--requests", type=int, default=60)
            command.add_argument("--clients", type=int, default=32)
        else:
            command.add_argument("--rows", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-llm-") as folder:
        print(json.dumps(options.run(options, Path(folder)), indent=2))


def movies(count: int, edition: str = "") -> list[MovieCardInput]:
    """MovieLens's movies; an edition makes them questions that were not asked before."""
    rows = movielens().movies.to_pylist()
    return [
        MovieCardInput(
            item_id=number,
            title=f"{rows[number % len(rows)]['title']}{edition}",
            year=rows[number % len(rows)]["year"],
            genres=rows[number % len(rows)]["genres"],
        )
        for number in range(count)
    ]


def run_batch(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Rows a second of both ways, which take turns; the first turn of each warms up and does not count."""
    model, config = named_model(""), EngineConfig()
    os.environ.update(engine_environment())
    llm = _bare(model, config)
    ours: list[float] = []
    bare: list[float] = []
    with Engine(model, config) as engine:
        for number in range(-1, ROUNDS):
            rows = movies(options.rows, f" {number}")
            started = time.perf_counter()
            done = complete(
                MOVIE_CARD,
                rows,
                model=model,
                store=ResponseStore(str(folder / str(number))),
                engine=lambda: contextlib.nullcontext(engine),
            )
            seconds = time.perf_counter() - started - (done.usage.start_seconds if number < 0 else 0)
            started = time.perf_counter()
            texts = _generate(llm, MOVIE_CARD, rows, config)
            if number >= 0:
                ours.append(seconds)
                bare.append(time.perf_counter() - started)
            same = sum(text == answer.raw for text, answer in zip(texts, done.answers, strict=True))
    rate = options.rows / statistics.median(ours), options.rows / statistics.median(bare)
    return {
        "rows": options.rows,
        "number type": model.dtype,
        "rows a second": {"millrace": round(rate[0], 1), "bare": round(rate[1], 1)},
        "millrace / bare": round(rate[0] / rate[1], 3),
        "of the last round, equal texts": f"{same} of {options.rows}",
    }


def run_unchanged(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Seconds for a snapshot that was answered before: nothing may start."""
    model, store = named_model(""), ResponseStore(str(folder / "answers"))
    rows = movies(options.rows)
    with Engine(model) as engine:
        complete(MOVIE_CARD, rows, model=model, store=store, engine=lambda: contextlib.nullcontext(engine))
    started = time.perf_counter()
    again = complete(MOVIE_CARD, rows, model=model, store=store, engine=lambda: Engine(model))
    assert (again.asked, again.usage.start_seconds) == (0, 0.0)
    return {"rows": options.rows, "seconds": round(time.perf_counter() - started, 3), "engine starts": 0}


def run_online(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Latency of one client at a time, then throughput of many, through the application and straight to vLLM."""
    from serving.components.server import ServerConfig, VllmServer

    with VllmServer(named_model(""), ServerConfig()) as server, _front(server.url, folder, 4 * options.clients) as url:
        return asyncio.run(_measure(options, server.url, url))


async def _measure(options: argparse.Namespace, bare_url: str, typed_url: str) -> dict[str, object]:
    import httpx

    from serving.components.client import _body

    async with httpx.AsyncClient(timeout=600, headers={"content-type": "application/json"}) as client:

        async def bare(row: MovieCardInput) -> None:
            body = _body(MOVIE_CARD.question(row), MOVIE_CARD.sampling, stream=False)
            (await client.post(f"{bare_url}/v1/chat/completions", content=body)).raise_for_status()

        async def typed(row: MovieCardInput) -> None:
            answer = await client.post(f"{typed_url}/components/movie_card", content=row.model_dump_json())
            assert answer.status_code in (200, 502), answer.text  # 502: the model wrote no answer, and was asked twice

        latency: dict[str, list[float]] = {"bare": [], "millrace": []}
        for number, row in enumerate(movies(options.requests + 5, " alone")):
            ways = [("bare", bare), ("millrace", typed)]
            for name, ask in ways if number % 2 else reversed(ways):
                started = time.perf_counter()
                await ask(row.model_copy(update={"title": f"{row.title} {name}"}))
                if number >= 5:
                    latency[name].append(time.perf_counter() - started)
        rates: dict[str, list[float]] = {"bare": [], "millrace": []}
        for number in range(ROUNDS):
            for name, ask in (("bare", bare), ("millrace", typed)):
                rows = movies(options.clients * 4, f" {name} {number}")
                started = time.perf_counter()
                await _together(ask, rows, options.clients)
                rates[name].append(len(rows) / (time.perf_counter() - started))
    p50 = {name: statistics.median(values) * 1000 for name, values in latency.items()}
    rate = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "p50, ms, one client": {name: round(value, 1) for name, value in p50.items()},
        "added at p50, ms": round(p50["millrace"] - p50["bare"], 1),
        "median of paired differences, ms": round(
            statistics.median(a - b for a, b in zip(latency["millrace"], latency["bare"], strict=True)) * 1000, 1
        ),
        f"answers a second, {options.clients} clients": {name: round(value, 2) for name, value in rate.items()},
        "millrace / bare": round(rate["millrace"] / rate["bare"], 3),
    }


async def _together(
    ask: Callable[[MovieCardInput], Awaitable[None]], rows: Sequence[MovieCardInput], clients: int
) -> None:
    waiting = iter(rows)

    async def one() -> None:
        for row in waiting:
            await ask(row)

    await asyncio.gather(*(one() for _ in range(clients)))


@contextlib.contextmanager
def _front(engine: str, folder: Path, max_waiting: int) -> Iterator[str]:
    """The application before a server that runs, in a process of its own."""
    given = [engine, str(folder / "answers"), str(max_waiting)]
    process = subprocess.Popen([sys.executable, "-c", _FRONT, *given], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


_FRONT = """
import socket, sys, uvicorn
from models.llm.movie_card import MOVIE_CARD
from models.llm.store import ResponseStore
from models.llm.weights import named_model
from serving.components.service import application

url, store, waiting = sys.argv[1:]
app = application([MOVIE_CARD], named_model(""), url, ResponseStore(store), max_waiting=int(waiting), timeout=600)
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])
"""


def _bare(model: ModelRef, config: EngineConfig) -> Any:
    """vLLM as the worker loads it."""
    from models.llm.protocol import Start
    from models.llm.worker import _load

    return _load(Start(model=model.path, dtype=model.dtype, config=config))


def _generate(
    llm: Any, component: Component[MovieCardInput, Any], rows: Sequence[MovieCardInput], config: EngineConfig
) -> list[str]:
    """One call of ``LLM.generate`` for each batch of the same size."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    sampling = SamplingParams(
        temperature=component.sampling.temperature,
        seed=component.sampling.seed,
        max_tokens=component.sampling.max_tokens,
        structured_outputs=StructuredOutputsParams(json=component.schema),
    )
    texts = []
    for first in range(0, len(rows), config.batch_size):
        batch = rows[first : first + config.batch_size]
        talks = [[message.model_dump() for message in component.messages(row)] for row in batch]
        texts += [output.outputs[0].text for output in llm.chat(talks, sampling, use_tqdm=False)]
    return texts


if __name__ == "__main__":
    main()
