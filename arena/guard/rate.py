"""A token bucket for each caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from arena.errors import TooManyRequests
from arena.guard.asgi import Refused

MAX_CALLERS: Final = 10_000


class Rate:
    """At most `burst` requests at once and `per_minute` in the long run for each caller. `clock` tells seconds."""

    def __init__(self, per_minute: int, burst: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._burst = float(burst)
        self._clock = clock
        self._levels: dict[str | bytes, tuple[float, float]] = {}

    def take(self, caller: str | bytes) -> None:
        """Count one request. Raises Refused (429) when the caller's bucket is empty."""
        now = self._clock()
        level, since = self._levels.pop(caller, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._per_minute / 60)
        allowed = level >= 1
        if len(self._levels) >= MAX_CALLERS:
            del self._levels[next(iter(self._levels))]
        self._levels[caller] = (level - 1 if allowed else level, now)
        if not allowed:
            wait_s = int((1 - level) * 60 / self._per_minute) + 1
            raise Refused(
                TooManyRequests("Too many requests; slow down"),
                [
                    (b"retry-after", b"%d" % wait_s),
                    (b"ratelimit-limit", b"%d" % self._per_minute),
                    (b"ratelimit-remaining", b"0"),
                    (b"ratelimit-reset", b"%d" % wait_s),
                ],
            )
