"""What do int8, bfloat16 and torch.compile bring the ranker? How fast it then trains and answers, and how good it is.

    make demo && make benchmark WHAT=precision
    make benchmark WHAT=precision OPTIONS="--data interactions.parquet"

One thread. Trained on all before the last windows of the rolling replay, judged by NDCG@10 on those windows (paired
with float32, 95 % bootstrap intervals over users and windows). Training is the ranker's epochs over questions that are
ready; the time to compile is in it, as in a night. An answer is the ranker's over the whole catalogue for one user,
whose signals are ready: medians. The service does not use this path: its sums are worked out with numpy for one user
(models/live.py), and what an answer of that takes in all is printed beside.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from benchmarks.recommender import VARIANTS, BareWorld, World
from models.anchors import training_batches
from models.evaluation import Float64s, NewestInteractions, interval, ndcg
from models.interactions import Interactions, Query
from models.live import History, LiveScorer
from models.protocols import rolling_replay
from models.ranker import Batch, Ranker, deterministic, train
from models.recommender import Recommender, RecommenderConfig, fit

ROUNDS = 3
#: The layers of the ranker that are matrix products of an input; `linear` is a vector of weights that is added to.
PRODUCTS = {"gate", "bend", "user_tower", "item_tower"}


class Bf16(nn.Module):
    """The ranker under autocast."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, signals: torch.Tensor, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            scores: torch.Tensor = self.ranker(signals, user, item)
        return scores.float()


def int8(ranker: Ranker) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own quantization deprecated, for a package that is not here
        made: nn.Module = torch.ao.quantization.quantize_dynamic(copy.deepcopy(ranker), PRODUCTS, dtype=torch.qint8)
    return made


ANSWERS: dict[str, Callable[[Ranker], nn.Module]] = {
    "float32": lambda ranker: ranker,
    "int8, dynamic": int8,
    "bfloat16, autocast": Bf16,
    "torch.compile": torch.compile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--data", type=Path, help="Parquet or CSV with user_id, item_id, rated_at")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        world = BareWorld(options.data) if options.data else World(Path(folder))
        config = RecommenderConfig.model_validate({} if options.data else VARIANTS["model"])
        tests = list(rolling_replay(world.interactions, windows=options.windows, days=options.days))
        asked = [(test, world.query(test)) for test in tests]
        models = [fit(test.train, test.train, config=config) for test in tests]
        print(f"torch {torch.__version__}, one thread, {len(tests)} windows of {options.days} days\n")
        training(models, asked)
        answering(models, asked)


def training(models: list[Recommender], asked: list[tuple[NewestInteractions, Query]]) -> None:
    batches = [questions(model, test) for model, (test, _) in zip(models, asked, strict=True)]
    print("| training | seconds | NDCG@10 | 95 % interval | minus float32, paired |\n|---|---:|---:|---:|---:|")
    first: Float64s | None = None
    for name in ("float32", "bfloat16, autocast", "torch.compile"):
        took: list[float] = []
        for _ in range(ROUNDS):
            values: list[Float64s] = []
            seconds = 0.0
            for model, ready, (test, query) in zip(models, batches, asked, strict=True):
                ranker, spent = trained(model, ready, name)
                seconds += spent
                values.append(ndcg(replace(model, ranker=ranker).scores(query), test, query.item_ids()))
            took.append(seconds / len(models))
        found = np.concatenate(values)
        first = found if first is None else first
        print(f"| {name} | {statistics.median(took):.2f} | {quality(found, first)} |", flush=True)


def questions(model: Recommender, test: NewestInteractions) -> list[Batch]:
    """The training questions, as `fit` makes them."""
    config = model.config
    with deterministic(config.seed, config.threads):
        return training_batches(
            Interactions.of(test.train),
            test.train,
            model.user_encoder,
            model.item_encoder,
            config.signals(),
            anchors=config.anchors,
            horizon_days=config.horizon_days,
            next_items=config.next_items,
            rng=np.random.default_rng(config.seed),
            sequence=None,
        )


def trained(model: Recommender, batches: list[Batch], name: str) -> tuple[Ranker, float]:
    """A ranker of the model's shape, trained in one of the ways, and the seconds that took."""
    config, inputs = model.config, model.ranker.inputs
    torch.compiler.reset()
    with deterministic(config.seed, config.threads):
        ranker = Ranker(inputs["signal"], inputs["user"], inputs["item"], hidden=config.hidden, factors=config.factors)
        ranker.standardise(batches)
        stepped = copy.deepcopy(ranker)
        if name == "torch.compile":
            stepped.compile()
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if name.startswith("bf") else nullcontext():
            train(
                stepped,
                batches,
                epochs=config.epochs,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                progress=None,
            )
        seconds = time.perf_counter() - started
        ranker.load_state_dict(stepped.state_dict())
    return ranker.eval(), seconds


def answering(models: list[Recommender], asked: list[tuple[NewestInteractions, Query]]) -> None:
    print("\n| answering | ms of the ranker | NDCG@10 | 95 % interval | minus float32, paired |")
    print("|---|---:|---:|---:|---:|")
    first: Float64s | None = None
    for name, changed in ANSWERS.items():
        torch.compiler.reset()
        values, took = [], []
        for model, (test, query) in zip(models, asked, strict=True):
            ranker = changed(model.ranker)
            took += milliseconds(model, ranker, query)
            values.append(ndcg(replace(model, ranker=ranker).scores(query), test, query.item_ids()))
        found = np.concatenate(values)
        first = found if first is None else first
        print(f"| {name} | {statistics.median(took):.3f} | {quality(found, first)} |", flush=True)
    whole = statistics.median(served(models[-1], asked[-1][1]))
    print(f"\nAn answer in all, as the service works it out: {whole:.3f} ms")


def milliseconds(model: Recommender, ranker: nn.Module, query: Query) -> list[float]:
    took: list[float] = []
    with torch.inference_mode():
        for given in model.inputs(query):
            for row in range(len(given.histories)):
                signals, user = given.signals[row : row + 1], given.user[row : row + 1]
                if not took:
                    ranker(signals, user, given.item)  # compiled here, if at all
                started = time.perf_counter()
                ranker(signals, user, given.item)
                took.append(1000 * (time.perf_counter() - started))
    return took


def served(model: Recommender, query: Query) -> list[float]:
    scorer, histories = LiveScorer(model, query.items), query.histories
    known = {row["user_id"]: row for row in query.users.to_pylist()}
    took = []
    for row, user in enumerate(histories.user_ids.tolist()):
        own = histories.rows == row
        history = History(histories.item_ids[own], histories.rated_at[own])
        started = time.perf_counter()
        scorer.scores(history, known.get(user), query.at)
        took.append(1000 * (time.perf_counter() - started))
    return took


def quality(values: Float64s, first: Float64s) -> str:
    own, gap = interval(values, metric=""), interval(values - first, metric="")
    paired = "" if values is first else f"{gap.value:+.5f} ({gap.low:+.5f} to {gap.high:+.5f})"
    return f"{own.value:.4f} | {own.low:.4f} to {own.high:.4f} | {paired}"


if __name__ == "__main__":
    main()
