"""What does training cost as interactions grow? Seconds and peak memory, on synthetic interactions like the real ones.

    make benchmark WHAT=training_cost OPTIONS="--sizes 10000 100000 1000000"

The real margins of MovieLens 100K: each synthetic user is a real one, drawn, with that one's instants (moved by up to
a day) and number of ratings, and with items drawn by their real popularity, none twice. So the catalogue and the months
stay, and users grow. No features; the night's other settings. Each size runs in a process of its own; peak memory is
that of the process, the interpreter and PyTorch included (about 0.3 GiB).
"""

from __future__ import annotations

import argparse
import resource
import time
from multiprocessing import get_context

import numpy as np
import pyarrow as pa

from lakehouse.movielens import movielens
from models.interactions import DAY_US, Int64s
from models.recommender import RecommenderConfig, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| interactions | users | items | seconds | of CPU | microseconds an interaction | peak GiB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for size in options.sizes:
        with get_context("spawn").Pool(1) as alone:
            print(alone.apply(measured, (size, options.seed)), flush=True)


def measured(size: int, seed: int) -> str:
    """One row of the table."""
    table = synthetic(movielens().ratings, size, np.random.default_rng(seed))
    started, cpu = time.perf_counter(), time.process_time()
    model = fit(table, table, config=RecommenderConfig())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    made = model.summary
    return (
        f"| {made.interactions:,} | {made.users:,} | {made.items:,} | {seconds:.1f} | {cpu:.1f} "
        f"| {1e6 * seconds / made.interactions:.0f} | {peak:.2f} |"
    )


def synthetic(real: pa.Table, size: int, rng: np.random.Generator) -> pa.Table:
    """`size` interactions (user_id, item_id, rated_at) with the margins of the real ones."""
    real = real.sort_by([("user_id", "ascending"), ("rated_at", "ascending")])
    times = real["rated_at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    _, starts, counts = np.unique(real["user_id"].to_numpy(), return_index=True, return_counts=True)
    items, popularity = np.unique(real["item_id"].to_numpy(), return_counts=True)
    parts: list[tuple[Int64s, Int64s, Int64s]] = []
    left, user = size, 0
    while left > 0:
        drawn = int(rng.integers(len(starts)))
        mine = slice(starts[drawn], starts[drawn] + min(counts[drawn], left))
        at = times[mine] + int(rng.integers(-DAY_US, DAY_US))
        # The keys of a weighted draw without replacement (Efraimidis and Spirakis, 2006): the largest are drawn.
        keys = np.log(rng.random(len(items))) / popularity
        user += 1
        parts.append((np.full(len(at), user), rng.permutation(items[np.argpartition(keys, -len(at))[-len(at) :]]), at))
        left -= len(at)
    users, met, at = (np.concatenate(column) for column in zip(*parts, strict=True))
    return pa.table({"user_id": users, "item_id": met, "rated_at": pa.array(at, pa.timestamp("us", "UTC"))})


if __name__ == "__main__":
    main()
