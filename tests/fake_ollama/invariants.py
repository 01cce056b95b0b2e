"""What must never happen around any request, as far as it shows from outside: a hang, a leak, work for nobody."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.fake_ollama.stopwatch import Stopwatch

TICK_S = 0.005
HEALTH_EVERY_S = 0.05
HEALTH_WITHIN_S = 1.0
"""Longest time a health check may take meanwhile."""
FAKES_OWN = "socket.send() raised exception."
"""What the fake's loop logs when a client has left it in mid-answer."""
FDS = Path("/proc/self/fd")
"""This process's descriptors, where the system lists them so; elsewhere they are not counted."""
ESTABLISHED = 1
"""The state of a TCP connection whose both ends are open, as TCP_INFO tells it first."""


class Watched(Protocol):
    """A fake in this loop or in a thread."""

    @property
    def open(self) -> int:
        """Requests being served now."""
        ...

    @property
    def connections(self) -> int:
        """Connections open now."""
        ...

    @property
    def port(self) -> int:
        """Where it listens."""
        ...


@dataclass(frozen=True)
class Level:
    """What is in use at one moment."""

    requests: int
    tasks: int
    fds: int
    """Descriptors, without both ends of the whole connections to a fake: a client may keep those alive."""
    connections: int


def level(*fakes: Watched, beside: Sequence[Watched] = ()) -> Level:
    """Count what is in use. The fake's own tasks do not count, nor connections to fakes of others in this process."""
    tasks = [task for task in asyncio.all_tasks() if not task.get_name().startswith("fake ")]
    fds = _descriptors({f.port for f in (*fakes, *beside)})
    return Level(sum(f.open for f in fakes), len(tasks), fds, sum(f.connections for f in fakes))


def _descriptors(ports: set[int]) -> int:
    """How many there are beside those of kept connections to these ports.

    Each is looked at by itself: with a connection that closes just now, its count at the fake and its two descriptors
    go at three moments, so that numbers of each, taken meanwhile, would not agree.
    """
    listed = os.listdir(FDS) if FDS.is_dir() else []
    return sum(not _kept(int(number), ports) for number in listed)


def _kept(number: int, ports: set[int]) -> bool:
    """Is this descriptor an end of a whole connection to one of these ports, or gone?"""
    try:
        end = socket.socket(fileno=number)
    except OSError as no:
        return no.errno == errno.EBADF
    try:
        if end.type != socket.SOCK_STREAM or end.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        whole = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED
        return whole and not ports.isdisjoint({end.getsockname()[1], end.getpeername()[1]})
    except OSError:
        return False
    finally:
        end.detach()


def leak(before: Level, now: Level) -> str:
    """What is left over, in words; empty when nothing is."""
    left = {
        "requests still served": now.requests - before.requests,
        "tasks": now.tasks - before.tasks,
        "descriptors": now.fds - before.fds,
    }
    return ", ".join(f"{count} {what}" for what, count in left.items() if count > 0)


@asynccontextmanager
async def invariants(
    *fakes: Watched, within_s: float = 5, settle_s: float = 1, pooled: int = 64
) -> AsyncIterator[None]:
    """Around any test: it ends within `within_s` of its own time, and within `settle_s` nothing it began is left over.

    Requests at the fakes, tasks of this loop and descriptors must be back at their level; at most `pooled` kept-alive
    connections may be added. Raises AssertionError naming what is left.
    """
    before, watch, loop = level(*fakes), Stopwatch(), asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if (left_s := within_s - watch.own_s()) > 0:
            timer = loop.call_later(left_s, look)
        else:
            limit.reschedule(loop.time())

    timer = loop.call_later(within_s, look)
    try:
        async with asyncio.timeout(None) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise AssertionError(f"no end within {within_s} s") from None
        raise
    finally:
        timer.cancel()
    await settled(lambda: leak(before, level(*fakes)), settle_s)
    grown = level(*fakes).connections - before.connections
    assert grown <= pooled, f"{grown} connections more than before"


async def settled(left_over: Callable[[], str], within_s: float) -> None:
    """Wait until `left_over()` is empty; raises AssertionError with its words.

    Descriptors and tasks tell nobody when they go, so this asks again each few milliseconds.
    """
    watch, never = Stopwatch(), asyncio.get_running_loop().create_future()
    while what := left_over():
        assert watch.own_s() < within_s, f"left over after {within_s} s: {what}"
        await asyncio.wait({never}, timeout=TICK_S)


class Serving(Protocol):
    """A whole server in a thread of this process."""

    def level(self) -> Level:
        """What it and its endpoints have in use now."""
        ...

    def unfinished(self) -> list[str]:
        """The requests that its endpoints still serve, in words."""
        ...

    def health(self) -> int:
        """Ask for its health on a connection of its own; the status."""
        ...

    @property
    def log(self) -> Sequence[Mapping[str, Any]]:
        """The structured lines of its log so far."""
        ...

    def outside(self) -> int:
        """How many requests have reached places that nothing may ever contact."""
        ...


@dataclass
class Case:
    """One fault under way. The test fills in what it learns: the failures that must be told, and by which request."""

    request_id: str | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    health: list[tuple[int, float]] = field(default_factory=list)

    def failed(self, endpoint: str, code: str) -> None:
        """One failure happened at `endpoint`."""
        self.failures.append((endpoint, code))


@contextmanager
def seven_nevers(server: Serving, *, within_s: float, settle_s: float = 1) -> Iterator[Case]:
    """Around one fault at a real server, whichever door it came in by.

    It ends within `within_s`; meanwhile health answers; within `settle_s` nothing is left of it; nobody was sent
    elsewhere; and the log has exactly one line for each failure, with request, endpoint and cause, and no traceback.
    What depends on the door (documented statuses, truncated success, harm to a neighbour) is the test's to assert.
    """
    before, lines, outside = server.level(), len(server.log), server.outside()
    case, over = Case(), threading.Event()
    prober = threading.Thread(target=_probe, args=(server, case, over), name="health probe")
    watch = Stopwatch()
    prober.start()
    try:
        yield case
        took_s = watch.own_s()
    finally:
        over.set()
        prober.join()
    assert took_s <= within_s, f"ended after {took_s:.2f} s, over {within_s} s"
    assert [status for status, _ in case.health] == [200] * len(case.health)
    assert max(seconds for _, seconds in case.health) < HEALTH_WITHIN_S
    _settle(server, before, settle_s)
    assert server.outside() == outside, "something was sent elsewhere"
    _check_log(case, server.log[lines:])


def _probe(server: Serving, case: Case, over: threading.Event) -> None:
    while True:
        watch = Stopwatch()
        try:
            status = server.health()
        except OSError:
            status = 0
        case.health.append((status, watch.own_s()))
        if over.wait(HEALTH_EVERY_S):
            return


def _settle(server: Serving, before: Level, within_s: float) -> None:
    """Wait until nothing is left over, asking across the threads' border."""
    watch, never = Stopwatch(), threading.Event()
    while what := leak(before, server.level()):
        assert watch.own_s() < within_s, f"left over after {within_s} s: {what}; {server.unfinished()}"
        never.wait(TICK_S)


def _check_log(case: Case, lines: Sequence[Mapping[str, Any]]) -> None:
    """Exactly one line a failure. That an endpoint has stopped answering is told apart, once, in a line of its own."""
    serious = [line for line in lines if line["level"] in ("warning", "error", "critical")]
    serious = [line for line in serious if line["event"] != FAKES_OWN]
    assert not any("exception" in line for line in serious), serious
    told = [line for line in serious if line["logger"] != "arena.fleet"]
    assert sorted((line["endpoint"], line["code"]) for line in told) == sorted(case.failures), told
    for line in told:
        assert line["event"], "no cause"
        assert float(line["elapsed_s"]) >= 0
        assert case.request_id is None or line["request_id"] == case.request_id
