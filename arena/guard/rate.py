"""How much each caller gets: a token bucket for requests, and a number of answers at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import ceil
from typing import Final

from arena.errors import ArenaError, Busy, TooManyRequests
from arena.guard.asgi import Refused

MAX_CALLERS: Final = 10_000
_OPERATOR: Final = "The operator can change this limit"
_KEY: Final = "or a key with limits of its own"


class Rate:
    """At most `burst` requests at once and `per_minute` in the long run for each caller; `per_minute` 0: any number.

    `clock` tells seconds.
    """

    def __init__(self, per_minute: int, burst: int, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._burst = float(burst)
        self._clock = clock
        self._levels: dict[str | bytes, tuple[float, float]] = {}

    def take(self, caller: str | bytes) -> None:
        """Count one request. Raises Refused (429) when the caller's bucket is empty."""
        if not self._per_minute:
            return
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
                TooManyRequests(f"Too many requests; slow down. {_OPERATOR} (ARENA_REQUESTS_PER_MINUTE, {_KEY})"),
                [
                    (b"retry-after", b"%d" % wait_s),
                    (b"ratelimit-limit", b"%d" % self._per_minute),
                    (b"ratelimit-remaining", b"0"),
                    (b"ratelimit-reset", b"%d" % wait_s),
                ],
            )


class Answers:
    """Answers under way to callers that are counted: at most `each` at a time for one (0: any number), and `in_all`
    for all of them together.
    """

    def __init__(self, each: int, in_all: int) -> None:
        self._each = each
        self._in_all = in_all
        self._running: Counter[str | bytes] = Counter()

    def begin(self, caller: str | bytes) -> None:
        """Count one in. Raises Refused: 429 when the caller has all of its own, 503 when everybody together has."""
        if 0 < self._each <= self._running[caller]:
            text = f"You have {self._each} answers under way; wait for one to end, or stop one. "
            text += f"{_OPERATOR} (ARENA_ANSWERS_PER_CALLER, {_KEY})"
            raise Refused(TooManyRequests(text), [(b"retry-after", b"5")])
        if self._running.total() >= self._in_all:
            raise Refused(Busy("The server has too many answers under way; try again"), [(b"retry-after", b"5")])
        self._running[caller] += 1

    def end(self, caller: str | bytes) -> None:
        """Count one out."""
        self._running[caller] -= 1
        if not self._running[caller]:
            del self._running[caller]


def refused_key(error: ArenaError) -> Refused:
    """The refusal of what a named key may not do, or not now."""
    wait_s = error.retry_after_s if isinstance(error, TooManyRequests) else None
    return Refused(error, [] if wait_s is None else [(b"retry-after", b"%d" % max(1, ceil(wait_s)))])
