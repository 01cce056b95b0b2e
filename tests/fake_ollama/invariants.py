"""What must never happen around any request, as far as it shows from outside: a hang, a leak, work for nobody."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

TICK_S = 0.005
FDS = next((path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.is_dir()), None)


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


@dataclass(frozen=True)
class Level:
    """What is in use at one moment."""

    requests: int
    tasks: int
    fds: int
    connections: int


def level(*fakes: Watched) -> Level:
    """Count what is in use. The fake's own tasks do not count."""
    tasks = [task for task in asyncio.all_tasks() if not task.get_name().startswith("fake ")]
    fds = len(os.listdir(FDS)) if FDS is not None else 0
    return Level(sum(f.open for f in fakes), len(tasks), fds, sum(f.connections for f in fakes))


def leak(before: Level, now: Level) -> str:
    """What is left over, in words; empty when nothing is.

    A kept-alive connection to a fake in this process is no leak: it holds one descriptor at each end.
    """
    pooled = 2 * max(0, now.connections - before.connections)
    left = {
        "requests still served": now.requests - before.requests,
        "tasks": now.tasks - before.tasks,
        "descriptors": now.fds - before.fds - pooled,
    }
    return ", ".join(f"{count} {what}" for what, count in left.items() if count > 0)


@asynccontextmanager
async def invariants(
    *fakes: Watched, within_s: float = 5, settle_s: float = 1, pooled: int = 64
) -> AsyncIterator[None]:
    """Around any test: it ends within `within_s`, and within `settle_s` nothing it began is left over.

    Requests at the fakes, tasks of this loop and descriptors must be back at their level; at most `pooled` kept-alive
    connections may be added. Raises AssertionError naming what is left.
    """
    before = level(*fakes)
    try:
        async with asyncio.timeout(within_s) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise AssertionError(f"no end within {within_s} s") from None
        raise
    await settled(lambda: leak(before, level(*fakes)), settle_s)
    grown = level(*fakes).connections - before.connections
    assert grown <= pooled, f"{grown} connections more than before"


async def settled(left_over: Callable[[], str], within_s: float) -> None:
    """Wait until `left_over()` is empty; raises AssertionError with its words.

    Descriptors and tasks tell nobody when they go, so this asks again each few milliseconds.
    """
    deadline = time.monotonic() + within_s
    never = asyncio.get_running_loop().create_future()
    while what := left_over():
        assert time.monotonic() < deadline, f"left over after {within_s} s: {what}"
        await asyncio.wait({never}, timeout=TICK_S)
