"""The arena in a process of its own, as its command serves it but without the page, which takes seconds to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from arena import log
from arena.app import create_app
from arena.server import Limits, serve
from arena.settings import load

ROOT = Path(__file__).resolve().parent.parent.parent
STALL_S = 1.0
"""Seconds after which a client that reads nothing is dropped."""


class Child(Struct, frozen=True):
    """A running arena."""

    process: subprocess.Popen[str]
    url: str

    def memory_bytes(self) -> int:
        """What it holds in memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def ended(self) -> None:
        """Wait for its end, but let it be asked still how long it waited for a core."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def warnings(self) -> list[dict[str, str]]:
        """The serious lines of its log, but those about endpoints that are slow to answer; only after its end."""
        assert self.process.stderr is not None
        lines = [json.loads(line) for line in self.process.stderr]
        return [line for line in lines if line["level"] not in ("info", "debug") and line["logger"] != "arena.fleet"]


@contextmanager
def child(*endpoints: str, **environment: str) -> Iterator[Child]:
    """Run an arena on `endpoints`; it is killed at the end if it still lives."""
    settings = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "ARENA_PORT": "0", "ARENA_ENGINE": "off",
        "ARENA_ENDPOINTS": ",".join(endpoints), "ARENA_LOG_FORMAT": "json", **environment,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.child"],
        cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Ollama Arena is running on http://127.0.0.1:"), line
            yield Child(process, line.split()[-1])
        finally:
            process.kill()


if __name__ == "__main__":
    settings = load()
    log.configure(settings)
    serve(lambda given: create_app(given, page=False), settings, limits=Limits(write_stall_s=STALL_S, sweep_s=0.1))
