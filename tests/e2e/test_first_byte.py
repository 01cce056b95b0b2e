"""The page itself comes at once, whatever the model servers do."""

from __future__ import annotations

import socket
from pathlib import Path
from statistics import median

import requests

from tests.e2e.conftest import served
from tests.fake_ollama.stopwatch import Stopwatch

QUICK_S = 0.5


def test_the_page_is_there_at_once_when_its_server_is_silent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with served(address, data=tmp_path) as url:
            requests.get(url, timeout=60).raise_for_status()  # the first one compiles the template
            times = []
            for _ in range(5):
                watch = Stopwatch()
                requests.get(url, timeout=60).raise_for_status()
                times.append(watch.own_s())
    assert median(times) < QUICK_S
