"""Does a slot keep its promises? A window over its last answers: the share that failed, and the 99th percentile."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

#: Answers before which nothing is concluded.
_ENOUGH = 50
#: The bounds are looked at once in so many answers: a percentile costs more than an answer's share of it.
_EVERY = 10


class Bounds(NamedTuple):
    """What is promised: the largest share of failures, the largest 99th percentile in ms, and over how many answers."""

    error_share: float
    latency_ms: float
    window: int


class Burn(NamedTuple):
    """A promise that was broken, in one sentence, with the numbers."""

    reason: str
    inputs: dict[str, float]


class Watch:
    """The last answers of one slot since it began to answer."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._ms: deque[float] = deque(maxlen=bounds.window)
        self._ok: deque[bool] = deque(maxlen=bounds.window)
        self.answers = 0
        self.failures = 0

    def note(self, ok: bool, ms: float) -> Burn | None:
        """Count an answer; a burn if a bound is now broken."""
        self.answers += 1
        self.failures += not ok
        self._ms.append(ms)
        self._ok.append(ok)
        if len(self._ok) < min(_ENOUGH, self._bounds.window) or self.answers % _EVERY:
            return None
        share = self._ok.count(False) / len(self._ok)
        p99 = float(np.percentile(self._ms, 99))
        inputs = {"answers": float(len(self._ok)), "error_share": share, "p99_ms": p99}
        if share > self._bounds.error_share:
            reason = f"{share:.1%} of the last {len(self._ok)} answers failed; {self._bounds.error_share:.1%} may."
            return Burn(reason, {**inputs, "limit": self._bounds.error_share})
        if p99 > self._bounds.latency_ms:
            reason = (
                f"The 99th percentile of the last {len(self._ms)} answers is {p99:.1f} ms; "
                f"{self._bounds.latency_ms:g} ms are allowed."
            )
            return Burn(reason, {**inputs, "limit": self._bounds.latency_ms})
        return None

    def p99(self) -> float | None:
        """The 99th percentile in milliseconds; None before the first answer."""
        return float(np.percentile(self._ms, 99)) if self._ms else None
