"""The queue for places on endpoints that are at their limit: bounded, and fair between callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from math import ceil

from arena.errors import ArenaError, Busy
from arena.fleet.lease import Lease, Wanted
from arena.fleet.spec import QueueSpec

MAX_RETRY_S = 60.0
"""Nobody is told to come back later than this."""

Serve = Callable[[Wanted, frozenset[str]], Lease | None]
Need = tuple[str | None, str | None, frozenset[str] | None, frozenset[str]]


class Waiter:
    """One request that waits. `position` is how many would be served before it, plus one, when it came."""

    __slots__ = ("future", "need", "position", "since_s", "tried", "wanted")

    def __init__(self, wanted: Wanted, tried: frozenset[str], since_s: float, position: int) -> None:
        self.wanted = wanted
        self.tried = tried
        self.since_s = since_s
        self.position = position
        self.need: Need = (wanted.model, wanted.endpoint, wanted.kinds, tried)
        self.future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()


class Queue:
    """One line for each caller; whoever was served goes behind the other callers.

    No caller can fill it for good: where it is full, the last of the longest line gives way to those with shorter ones.
    """

    def __init__(self, spec: QueueSpec, serve: Serve, clock: Callable[[], float]) -> None:
        self.spec = spec
        self.waiting = 0
        self._serve = serve
        self._clock = clock
        self._lines: dict[str | bytes, list[Waiter]] = {}
        self._service_s = 1.0

    def __iter__(self) -> Iterator[Waiter]:
        """All that wait, caller by caller."""
        for line in self._lines.values():
            yield from line

    def served(self, total_s: float) -> None:
        """An answer took this long; the mean of the last ones tells newcomers when to come back."""
        self._service_s += 0.1 * (total_s - self._service_s)

    async def wait(self, wanted: Wanted, tried: frozenset[str]) -> Lease:
        """A lease as soon as it is this request's turn. Raises Busy when too many wait, or after `max_wait_s`."""
        if self.waiting >= self.spec.max_waiting and not self._room_for(wanted.caller):
            raise self._full()
        waiter = self._join(wanted, tried)
        timer = asyncio.get_running_loop().call_later(self.spec.max_wait_s, self._give_up, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                waiter.future.result().close()  # its turn came in the very moment in which it left
            raise
        finally:
            timer.cancel()
            self._leave(waiter)

    def retry_after_s(self) -> float:
        """Whole seconds after which a newcomer may well find a place in the queue."""
        return float(min(max(1, ceil(self._service_s)), MAX_RETRY_S))

    def offer(self) -> None:
        """There may be a place now: serve whom it suits, one of each caller in turn.

        Nothing happens between this and the next turn of the loop, so no newcomer can overtake.
        """
        in_vain: set[Need] = set()
        served = True
        while served and self._lines:
            served = False
            for caller in tuple(self._lines):
                served |= self._serve_one(caller, in_vain)

    def _serve_one(self, caller: str | bytes, in_vain: set[Need]) -> bool:
        for waiter in self._lines[caller]:
            if waiter.need in in_vain or waiter.future.done():
                continue
            try:
                lease = self._serve(waiter.wanted, waiter.tried)
            except ArenaError as error:
                self._leave(waiter)
                waiter.future.set_exception(error)
                return True
            if lease is None:
                in_vain.add(waiter.need)
                continue
            self._leave(waiter)
            if caller in self._lines:
                self._lines[caller] = self._lines.pop(caller)
            lease.position = waiter.position
            lease.queued_s = self._clock() - waiter.since_s
            waiter.future.set_result(lease)
            return True
        return False

    def _room_for(self, caller: str | bytes) -> bool:
        """Has somebody with a longer line given way?"""
        longest = max(self._lines.values(), key=len, default=[])
        if len(longest) <= len(self._lines.get(caller, ())) + 1:
            return False
        last = longest[-1]
        self._leave(last)
        if not last.future.done():
            last.future.set_exception(self._full())
        return True

    def _full(self) -> Busy:
        text = "Too many requests are waiting for a place on an endpoint."
        return Busy(text, code="queue_full", retry_after_s=self.retry_after_s())

    def _join(self, wanted: Wanted, tried: frozenset[str]) -> Waiter:
        line = self._lines.setdefault(wanted.caller, [])
        mine = len(line)
        ahead = 0
        for caller, other in self._lines.items():
            if caller == wanted.caller:
                ahead += mine
                mine -= 1  # the callers behind come one round later
            else:
                ahead += min(len(other), mine + 1)
        waiter = Waiter(wanted, tried, self._clock(), ahead + 1)
        line.append(waiter)
        self.waiting += 1
        return waiter

    def _leave(self, waiter: Waiter) -> None:
        caller = waiter.wanted.caller
        line = self._lines.get(caller, [])
        if waiter in line:
            line.remove(waiter)
            self.waiting -= 1
            if not line:
                del self._lines[caller]

    def _give_up(self, waiter: Waiter) -> None:
        if not waiter.future.done():
            text = f"No endpoint had a place within {self.spec.max_wait_s:g} s."
            error = Busy(text, code="queue_timeout", retry_after_s=self.retry_after_s())
            self._leave(waiter)
            waiter.future.set_exception(error)
