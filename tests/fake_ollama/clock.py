"""A clock that only the test moves: monotonic seconds, and wall time that can jump on its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class Clock:
    """Stands in for `time.monotonic` (call it) and for the wall clock (`now`, `time`)."""

    def __init__(self, start_s: float = 1000.0, wall: datetime = NOON) -> None:
        self._monotonic_s, self._wall = start_s, wall

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self._monotonic_s

    def now(self) -> datetime:
        """Wall time, in UTC."""
        return self._wall

    def time(self) -> float:
        """Wall time as seconds since 1970."""
        return self._wall.timestamp()

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks; raises ValueError for a negative time."""
        if seconds < 0:
            raise ValueError("monotonic time never goes back; use jump for the wall clock")
        self._monotonic_s += seconds
        self._wall += timedelta(seconds=seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or a time server would."""
        self._wall += timedelta(seconds=seconds)
