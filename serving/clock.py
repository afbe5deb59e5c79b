"""What time is it for the service? The wall's, that of a lake that replays the past, or what a simulation says."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Instants in UTC that never go back; ``offset`` is added to the time on the wall.

    Args:
        start: what time it is now; default: what the wall says. A replay starts where its lake ends.
    """

    def __init__(self, start: datetime | None = None) -> None:
        wall = datetime.now(UTC)
        self.offset = (start or wall) - wall
        self._origin = start or wall
        self._started = time.monotonic()

    def now(self) -> datetime:
        """The time, with microseconds."""
        return self._origin + timedelta(seconds=time.monotonic() - self._started)

    @property
    def replays(self) -> bool:
        """Whether it shows another time than the wall's."""
        return abs(self.offset) > timedelta(seconds=1)


class VirtualClock(Clock):
    """Stands still until somebody moves it on."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._at = start

    def now(self) -> datetime:
        """The instant it was moved to last."""
        return self._at

    def move_to(self, at: datetime) -> None:
        """Go on to a later instant."""
        assert at >= self._at, "a clock does not go back"
        self._at = at
