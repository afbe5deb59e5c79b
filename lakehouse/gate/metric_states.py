"""How do a table's metrics follow from those of the version before? Deequ's states are kept, added and taken away.

A commit adds files and removes files. What Deequ computes of the added ones is added to the state of the version
before, what it computes of the removed ones is taken away; rows that a commit merely copies are in both. Counts and
moments can be taken away (for the second moment: Chan, Golub and LeVeque, 1983). A minimum, a maximum and a sketch of
distinct values can't; they stand where the removed rows did not carry them or the added ones carry them as well. What
can't be said so is left out, to be computed anew.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse

#: A difference this much smaller than what it was made from has lost too many digits.
CANCELLED = 1e-6

#: After so many steps the metrics are computed anew, so that rounding can't add up.
MAX_STEPS = 100

#: Versions of a table whose states are kept.
KEPT = 20

Kind = Literal["count", "share", "mean", "sum", "deviation", "min", "max", "distinct"]


class State(BaseModel):
    """What Deequ keeps of one analyzer, enough to go on from.

    Attributes:
        kind: which of Deequ's states.
        values: its numbers in Deequ's order (count: rows; share: matches, rows; mean: sum, count; sum; deviation: n,
            mean, sum of squared differences; min; max); of a sketch of distinct values its words.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    values: tuple[int | float, ...]


#: States by analyzer, as Deequ prints it; None where no row had a value.
States = dict[str, State | None]


class KeptStates(BaseModel):
    """The states of one version.

    Attributes:
        unique: whether the key was unique.
        steps: commits since the metrics were last computed from all rows.
        states: by analyzer.
    """

    unique: bool
    steps: int
    states: States


def kept_states(lake: Lakehouse, table: str, version: int) -> KeptStates | None:
    """What was kept of a version; None if nothing was, or it can't be read."""
    try:
        return KeptStates.model_validate_json(lake.storage.read(_key(table, version)))
    except (FileNotFoundError, ValueError):
        return None


def keep_states(lake: Lakehouse, table: str, version: int, states: KeptStates) -> None:
    """Keep a version's states, and let go of those long past."""
    lake.storage.write(_key(table, version), states.model_dump_json().encode(), overwrite=True)
    past = sorted(key for key in lake.storage.keys(_folder(table)) if key < _key(table, version))
    for key in past[:-KEPT]:
        lake.storage.delete(key)


def after(before: State | None, removed: State | None, added: State | None) -> tuple[bool, State | None]:
    """One analyzer's state after a commit: whether it can be said, and the state."""
    if removed is None:
        known, rest = True, before
    elif before is None:
        return False, None
    else:
        known, rest = _without(before, removed, added)
    if not known:
        return False, None
    return (True, rest or added) if rest is None or added is None else _both(rest, added)


def advanced(before: States, removed: States, added: States) -> tuple[States, set[str]]:
    """The states after a commit, and the analyzers of which they can't be said."""
    states: States = {}
    unknown = set()
    for name, state in before.items():
        known, states[name] = after(state, removed.get(name), added.get(name))
        if not known:
            del states[name]
            unknown.add(name)
    return states, unknown


def _without(before: State, removed: State, added: State | None) -> tuple[bool, State | None]:
    """What is left when rows go; of extremes and sketches, only if ``added`` rows make up for them."""
    values = before.values
    gone = removed.values
    if before.kind in ("count", "share"):
        left = tuple(int(a) - int(b) for a, b in zip(values, gone, strict=True))
        return min(left) >= 0, State(kind=before.kind, values=left) if left[-1] or before.kind == "count" else None
    if before.kind == "sum":
        return _difference(before.kind, values[0], gone[0])
    if before.kind == "mean":
        count = int(values[1]) - int(gone[1])
        return (True, None) if count == 0 else _difference(before.kind, values[0], gone[0], count)
    if before.kind == "deviation":
        return _deviation_without(values, gone)
    if before.kind in ("min", "max"):
        sign = 1 if before.kind == "min" else -1
        made_up = added is not None and sign * added.values[0] <= sign * gone[0]
        return made_up or sign * gone[0] > sign * values[0], before
    return added is not None and _distinct(gone, added.values) == added.values, before


def _difference(kind: Kind, total: float, part: float, *count: int) -> tuple[bool, State | None]:
    rest = total - part
    exact = math.isfinite(rest) and (part == 0 or abs(rest) > CANCELLED * max(abs(total), abs(part)))
    return exact, State(kind=kind, values=(rest, *count))


def _deviation_without(values: tuple[int | float, ...], gone: tuple[int | float, ...]) -> tuple[bool, State | None]:
    (n, mean, squares), (n_gone, mean_gone, squares_gone) = values, gone
    left = n - n_gone
    if left <= 0:
        return left == 0, None
    rest = (n * mean - n_gone * mean_gone) / left
    squares_left = squares - squares_gone - (rest - mean_gone) ** 2 * left * n_gone / n
    exact = math.isfinite(rest) and squares_left > CANCELLED * squares and abs(rest) >= CANCELLED * abs(mean)
    return exact, State(kind="deviation", values=(left, rest, squares_left))


def _both(one: State, other: State) -> tuple[bool, State | None]:
    """The state of two disjoint sets of rows; a sum over what is not finite is not trusted."""
    a, b = one.values, other.values
    if one.kind in ("count", "share", "mean", "sum"):
        total = tuple(x + y for x, y in zip(a, b, strict=True))
        return all(map(math.isfinite, total)), State(kind=one.kind, values=total)
    if one.kind == "deviation":
        n = a[0] + b[0]
        mean = (a[0] * a[1] + b[0] * b[1]) / n
        squares = a[2] + b[2] + (b[1] - a[1]) ** 2 * a[0] * b[0] / n
        return math.isfinite(squares), State(kind="deviation", values=(n, mean, squares))
    if one.kind in ("min", "max"):
        extreme = min(a[0], b[0]) if one.kind == "min" else max(a[0], b[0])
        return math.isfinite(extreme), State(kind=one.kind, values=(extreme,))
    return True, State(kind="distinct", values=_distinct(a, b))


def _distinct(a: tuple[int | float, ...], b: tuple[int | float, ...]) -> tuple[int, ...]:
    """Two HyperLogLog++ sketches as one: register by register the larger; Spark packs ten of six bits into a word."""
    words = []
    for x, y in zip(map(int, a), map(int, b), strict=True):
        word = 0
        for place in range(0, 60, 6):
            mask = 63 << place
            word |= max(x & mask, y & mask)
        words.append(word)
    return tuple(words)


def _folder(table: str) -> str:
    return f"_states/{table}"


def _key(table: str, version: int) -> str:
    return f"{_folder(table)}/{version:020d}.json"
