"""Is an endpoint up? Marks from probes and from traffic, and the prober that asks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Literal

from arena.errors import ArenaError, Unreachable

log = logging.getLogger("arena.fleet")

HealthState = Literal["healthy", "unhealthy", "offline", "draining", "resting", "unknown"]

DOWN_CHECK_S = 1.0
"""An endpoint that is down is probed at least this often."""
IDLE_S = 60.0
"""A fleet that nobody has used for so long is probed only every IDLE_CHECK_S."""
IDLE_CHECK_S = 30.0


class Health:
    """What is known about an endpoint's being up. Probes count in rows, traffic counts at once.

    `offline`: it takes no connections. `unhealthy`: it does, but does not answer as it should.
    """

    __slots__ = (
        "_bad",
        "_clock",
        "_down_after",
        "_good",
        "_up_after",
        "checked_s",
        "latency_s",
        "next_check_s",
        "since_s",
        "state",
        "up",
    )

    def __init__(self, clock: Callable[[], float], up_after: int = 1, down_after: int = 2) -> None:
        self.state: Literal["healthy", "unhealthy", "offline", "unknown"] = "unknown"
        self.up = True
        self.since_s = clock()
        self.checked_s: float | None = None
        self.next_check_s: float | None = None
        self.latency_s: float | None = None
        self._clock = clock
        self._good = self._bad = 0
        self.limits(up_after, down_after)

    def limits(self, up_after: int, down_after: int) -> None:
        """So many good (bad) probes in a row bring it up (down)."""
        self._up_after, self._down_after = up_after, down_after

    def good(self) -> bool:
        """It has answered a probe; was that what brought it back?"""
        self._good, self._bad = self._good + 1, 0
        if self.state == "healthy" or (not self.up and self._good < self._up_after):
            return False
        return self._become("healthy")

    def bad(self, error: ArenaError) -> None:
        """It has not answered a probe; one that gets no connection needs no second one."""
        if isinstance(error, Unreachable):
            self.refused()
            return
        self._good, self._bad = 0, self._bad + 1
        if self._bad >= self._down_after or self.state == "unknown":
            self._become("unhealthy")

    def alive(self) -> None:
        """A request was answered."""
        self._bad = 0
        if self.state != "healthy":
            self._become("healthy")

    def checked(self, now_s: float, latency_s: float, next_s: float) -> None:
        """A probe has ended at `now_s`, however it went."""
        self.checked_s, self.latency_s, self.next_check_s = now_s, latency_s, next_s

    def refused(self) -> None:
        """It took no connection, for a probe or a request."""
        self._good = 0
        self._bad = max(self._bad, self._down_after)
        self._become("offline")

    def _become(self, state: Literal["healthy", "unhealthy", "offline"]) -> bool:
        """Change the state; True if it is up now and was not."""
        was_up = self.up
        if state != self.state:
            self.state, self.since_s = state, self._clock()
        self.up = state == "healthy"
        return self.up and not was_up


class Prober:
    """Asks one endpoint at its own interval until it is closed; `hurry()` asks soon.

    A probe that fails by a fault of ours is logged, and the next one comes all the same: a host must be found again.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[object]],
        delay_s: Callable[[], float],
        *,
        at_once: bool = True,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._probe = probe
        self._delay_s = delay_s
        self._jitter = jitter
        self._hurry = asyncio.Event()
        if at_once:
            self._hurry.set()
        self._closed = False
        self._task = self._begun()

    def hurry(self) -> None:
        """Something has changed: ask now."""
        self._hurry.set()

    async def aclose(self) -> None:
        """Stop asking."""
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])

    def _begun(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(), name=f"probe {self._name}")
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("a fault in a probe", exc_info=fault, extra={"endpoint": self._name})
            if not self._closed:
                self._task = self._begun()

    async def _run(self) -> None:
        """Rest for the interval, or a little less, so that many endpoints do not march in step; then probe."""
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(self._delay_s() * (0.9 + 0.1 * self._jitter()), self._hurry.set)
            try:
                await self._hurry.wait()
            finally:
                timer.cancel()
            self._hurry.clear()
            await self._probe()
