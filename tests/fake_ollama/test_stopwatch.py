"""What does not count as time of the code's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from tests.fake_ollama.stopwatch import Stopwatch, family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux counts for how long a thread waits")


def spin_s(seconds: float) -> None:
    """Work for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_waiting_for_a_core_does_not_count_whoever_ends_meanwhile() -> None:
    cores, waiting, over = os.sched_getaffinity(0), threading.Event(), threading.Event()

    def waits_and_ends() -> None:
        spin_s(2.0)
        waiting.set()
        over.wait(30)

    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        os.sched_setaffinity(0, {min(cores)})
        for rival in rivals:
            os.sched_setaffinity(rival.pid, {min(cores)})
        thread = threading.Thread(target=waits_and_ends)
        thread.start()
        assert waiting.wait(30)
        assert family() >= {rival.pid for rival in rivals}
        watch = Stopwatch()
        over.set()
        thread.join()
        spin_s(1.0)
        assert watch.own_s() < 0.8, "three others had the core most of the time"
    finally:
        os.sched_setaffinity(0, cores)
        for rival in rivals:
            rival.kill()
            rival.wait()
