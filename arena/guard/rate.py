"""A token bucket for each caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from arena.errors import TooManyRequests
from arena.guard.asgi import Refused

PER_MINUTE: Final = 120
BURST: Final = 30
MAX_CALLERS: Final = 10_000


class Rate:
    """At most BURST requests at once and PER_MINUTE in the long run for each caller."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._levels: dict[str | bytes, tuple[float, float]] = {}

    def take(self, caller: str | bytes) -> None:
        """Count one request. Raises Refused (429) when the caller's bucket is empty."""
        now = self._clock()
        level, since = self._levels.pop(caller, (float(BURST), now))
        level = min(float(BURST), level + (now - since) * PER_MINUTE / 60)
        allowed = level >= 1
        if len(self._levels) >= MAX_CALLERS:
            del self._levels[next(iter(self._levels))]
        self._levels[caller] = (level - 1 if allowed else level, now)
        if not allowed:
            wait_s = int((1 - level) * 60 / PER_MINUTE) + 1
            raise Refused(
                TooManyRequests("Too many requests; slow down"),
                [
                    (b"retry-after", b"%d" % wait_s),
                    (b"ratelimit-limit", b"%d" % PER_MINUTE),
                    (b"ratelimit-remaining", b"0"),
                    (b"ratelimit-reset", b"%d" % wait_s),
                ],
            )
