"""Times that are the code's own: what a busy machine keeps from it does not count."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def family() -> set[int]:
    """The processes that this one has started, and those that they have: a browser is a dozen."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


class Stopwatch:
    """Measures from now, without the time in which this process, or the others named, waited for a core.

    Linux counts that for each thread; elsewhere nothing is taken off. On an idle machine it is next to nothing.
    """

    def __init__(self, *processes: int) -> None:
        self._processes = (os.getpid(), *processes)
        self._before = self._waited_ns()
        self.began_s = time.monotonic()

    def own_s(self, until_s: float | None = None) -> float:
        """The seconds up to now, or up to `until_s` of the monotonic clock. Never less than 0."""
        took_s = (time.monotonic() if until_s is None else until_s) - self.began_s
        # thread by thread: one that has ended meanwhile takes nothing from the others
        waited_ns = sum(waited - self._before.get(thread, 0) for thread, waited in self._waited_ns().items())
        return max(0.0, took_s - waited_ns / 1e9)

    def _waited_ns(self) -> dict[str, int]:
        """What each thread has waited so far."""
        waited = {}
        for process in self._processes:
            with suppress(OSError):  # it has ended, or this is no Linux
                for thread in Path(f"/proc/{process}/task").iterdir():
                    with suppress(OSError):
                        waited[thread.name] = int((thread / "schedstat").read_bytes().split()[1])
        return waited
