"""The breaker: an endpoint that keeps failing is left alone for a while, then tried by one request at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from arena.errors import ArenaError, Busy, Unreachable, UpstreamBroken, UpstreamError, UpstreamTimeout
from arena.wire import EXHAUSTED

FAILURES = 5
"""Failures in a row that open the breaker."""
OPEN_S = 5.0
"""How long it stays open at first; twice as long each time, up to MAX_OPEN_S."""
MAX_OPEN_S = 60.0
TRIAL_S = 30.0
"""A trial that takes longer than this is followed by another; its own outcome counts no more."""

BAD_STATUSES = frozenset({502, 503, 504})
_NOT_ITS_FAULT = frozenset({"total_timeout", "answer_too_large", "line_too_long", EXHAUSTED})

BreakerState = Literal["closed", "open", "half-open"]


def is_failure(error: ArenaError | None, status: int | None) -> bool:
    """Does it count against the endpoint: 502, 503, 504, no connection, a reset, an early end, a time-out?"""
    if status in BAD_STATUSES:
        return True
    if isinstance(error, Busy):
        return status is None and error.code not in _NOT_ITS_FAULT  # with one it is 429, which tells of the caller
    if isinstance(error, Unreachable | UpstreamTimeout | UpstreamBroken):
        return error.code not in _NOT_ITS_FAULT and (error.upstream_status or 503) in BAD_STATUSES
    return isinstance(error, UpstreamError) and error.upstream_status in BAD_STATUSES


class Breaker:
    """Closed: all pass. Open: none. After a while half-open: one passes, and its outcome decides.

    A request takes a ticket when it begins and brings it back with its outcome. The ticket is the number of the
    state it began in, so that stragglers from before a change cannot change the state again.
    While it is `calm`, closed with no failure counted, it only needs to be told of failures: all pass with `ticket`.
    """

    __slots__ = ("_clock", "_jitter", "_open_s", "calm", "failures", "open_until_s", "state", "ticket")

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self.state: BreakerState = "closed"
        self.calm = True
        self.failures = 0
        self.open_until_s = 0.0
        self._open_s = OPEN_S
        self.ticket = 0
        self._clock = clock
        self._jitter = jitter

    def admits(self, now_s: float) -> bool:
        """May a request pass at `now_s`?"""
        return self.state == "closed" or now_s >= self.open_until_s

    def enter(self, now_s: float) -> int:
        """A request begins (in panic also where the breaker is open, and that one tries nothing); its ticket."""
        if self.state != "closed" and now_s >= self.open_until_s:
            self._become("half-open")
            self.open_until_s = now_s + TRIAL_S
        elif self.state != "closed":
            return -1
        return self.ticket

    def began(self, ticket: int) -> None:
        """An answer has begun: a trial has done its part, but the next failure opens the breaker again."""
        if self.state == "half-open" and ticket == self.ticket:
            self._become("closed")
            self.failures = FAILURES - 1

    def good(self, ticket: int) -> None:
        """A request has succeeded."""
        if ticket == self.ticket and self.state == "half-open":
            self._become("closed")
        if self.state == "closed":
            self.calm, self.failures, self._open_s = True, 0, OPEN_S

    def bad(self, ticket: int) -> None:
        """A request has failed, and it was the endpoint's fault."""
        if ticket != self.ticket:
            return
        self.calm = False
        self.failures += 1
        if self.state == "half-open" or self.failures >= FAILURES:
            self._become("open")
            self.open_until_s = self._clock() + self._open_s * (0.9 + 0.2 * self._jitter())
            self._open_s = min(2 * self._open_s, MAX_OPEN_S)

    def left(self, ticket: int) -> None:
        """A request has ended without saying anything about the endpoint."""
        if self.state == "half-open" and ticket == self.ticket:
            self._become("open")
            self.open_until_s = self._clock()

    def reset(self) -> None:
        """Begin anew, as with a server that was restarted."""
        if self.state != "closed":
            self._become("closed")
        self.calm, self.failures, self._open_s = True, 0, OPEN_S

    def _become(self, state: BreakerState) -> None:
        self.calm, self.state = False, state
        self.ticket += 1
        if state == "closed":
            self.failures, self.open_until_s = 0, 0.0
