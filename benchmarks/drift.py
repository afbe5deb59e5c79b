"""How often does drift raise a false alarm, and how large a shift does it see? Simulated, with a fixed seed.

    python -m benchmarks.drift [--rounds 1000]

False alarms: two samples of one distribution are compared, seven columns at once. Power: one of the seven columns has
moved. A share is that of the comparisons in which the column (or any of the seven) was called drifted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from features.drift import drift

SIZES = (300, 1_000, 10_000)
Column = Callable[[np.random.Generator, int, float], pa.Array]
_WORDS = np.array(list("abcdefghijklmnopqrst"))


def normal(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    return pa.array(random.normal(shift, 1, rows))


def skewed(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    return pa.array(random.lognormal(shift, 1, rows))


def counts(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    return pa.array(random.geometric(0.1 / (1 + shift), rows))


def holed(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    return pa.array(random.normal(size=rows), mask=random.random(rows) < 0.1 + shift / 4)


def flag(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    return pa.array(random.random(rows) < 0.3 + shift / 4)


def word(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    return pa.array(_WORDS[np.minimum(random.geometric(0.2 / (1 + shift), rows), 20) - 1])


def tags(random: np.random.Generator, rows: int, shift: float) -> pa.Array:
    lists = pa.ListArray.from_arrays(np.arange(0, 2 * rows + 1, 2, dtype=np.int32), word(random, 2 * rows, shift))
    return lists


#: What a shift of 1 means for each column.
COLUMNS: dict[str, tuple[Column, str]] = {
    "normal": (normal, "mean up by 1 standard deviation"),
    "skewed": (skewed, "log-normal, times e"),
    "counts": (counts, "geometric, mean doubled"),
    "holed": (holed, "nulls from 10 % to 35 %"),
    "flag": (flag, "true from 30 % to 55 %"),
    "word": (word, "20 words, mean rank doubled"),
    "tags": (tags, "lists of two such words"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=1000, help="comparisons a figure (a fifth of it for power)")
    rounds = parser.parse_args().rounds
    print(f"False alarms in {rounds} comparisons of seven columns\n")
    print("| rows a side | any of the seven | by column | p < 0.05 alone, any of the seven |")
    print("| ---: | ---: | ---: | ---: |")
    for size in SIZES:
        random = np.random.default_rng(1)
        found = [drift(table(random, size), table(random, size), list(COLUMNS)) for _ in range(rounds)]
        nights = sum(any(one.drifted for one in night) for night in found)
        columns = sum(one.drifted for night in found for one in night)
        naive = sum(any(one.p_value < 0.05 for one in night) for night in found)
        print(f"| {size:,} | {nights} | {columns} of {7 * rounds:,} | {naive / rounds:.0%} |")
    shifts = (0.1, 0.25, 0.5, 0.75, 1.0)
    print(f"\nPower: share of {rounds // 5} comparisons in which the moved column was called drifted\n")
    print("| column | a shift of 1 | rows a side | " + " | ".join(map(str, shifts)) + " |")
    print("| --- | --- | ---: |" + " ---: |" * len(shifts))
    for name, (_, meaning) in COLUMNS.items():
        for size in SIZES[:2]:
            shares = [power(name, size, shift, rounds // 5) for shift in shifts]
            print(f"| {name} | {meaning} | {size:,} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


def table(random: np.random.Generator, rows: int, moved: str = "", shift: float = 0.0) -> pa.Table:
    return pa.table({name: make(random, rows, shift if name == moved else 0.0) for name, (make, _) in COLUMNS.items()})


def power(name: str, rows: int, shift: float, rounds: int) -> float:
    random = np.random.default_rng(2)
    place = list(COLUMNS).index(name)
    pairs = ((table(random, rows), table(random, rows, name, shift)) for _ in range(rounds))
    return sum(drift(*pair, list(COLUMNS))[place].drifted for pair in pairs) / max(rounds, 1)


if __name__ == "__main__":
    main()
