"""The counts of the benchmark as tests: nothing lost, all alive, all cut, through the arena as shipped.

No times are asserted, machines are shared; those are the gates that `python bench/run.py` prints.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("fake_ollama", "loadgen")
STREAMS = 200
DEADLINE_S = 30.0
PHASES = {
    "streaming": "bench-d20000-n4000",
    "slow": "bench-d2000000-n10",
    "before the first token": "bench-t60000000-d20000-n10",
}

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark's programs use epoll: Linux only"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the benchmark's programs need gcc"),
]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C programs, compiled afresh; a warning fails."""
    folder = tmp_path_factory.mktemp("bench")
    for name in PROGRAMS:
        source = ROOT / "bench" / f"{name}.c"
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", folder / name, source], check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def servers(programs: Path) -> Iterator[Servers]:
    """The fake Ollama and the arena before it, as two processes."""
    with ExitStack() as stack:
        upstream = stack.enter_context(running([programs / "fake_ollama", "0", "16"], {}, "listening on "))
        environment = {
            "ARENA_PORT": "0",
            "ARENA_ENDPOINTS": upstream,
            "ARENA_ENGINE": "off",
            "ARENA_DATA": str(programs / "data"),
        }
        arena = stack.enter_context(running([sys.executable, ROOT / "arena_app.py"], environment, "running on "))
        yield Servers(programs / "loadgen", upstream, arena)


class Servers:
    """Where the two listen, and the load client that knows what every stream must hold."""

    def __init__(self, loadgen: Path, upstream: str, arena: str) -> None:
        self.loadgen = loadgen
        self.upstream = upstream
        self.arena = arena

    def load(self, word: str, streams: int, *flags: object) -> Json:
        """One run of loadgen: the fake server is told by `word` what to answer."""
        body = {
            "history": [{"role": "user", "content": f"Why is the sky blue? {word}"}],
            "model_instances": [{"id": f"m{i}", "model": f"bench-m{i}:1b"} for i in range(streams)],
        }
        port = self.arena.rpartition(":")[2]
        command = [self.loadgen, port, "-p", "/api/stream_chat", "-b", json.dumps(body), "-s", streams, *flags]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=True)
        return dict(json.loads(done.stdout))

    def control(self, path: str) -> Any:
        """What the fake server counted."""
        with requests.Session() as session:
            session.trust_env = False
            method = "POST" if path == "/_reset" else "GET"
            return session.request(method, f"{self.upstream}{path}", timeout=10).json()


@contextmanager
def running(command: list[str | Path], environment: dict[str, str], says: str) -> Iterator[str]:
    """A process; yields the address it names on its standard output after `says`."""
    # coverage of a child that serves for half a minute is measured elsewhere; here it would only slow it down
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE"))}
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**inherited, **environment},
        cwd=Path(environment.get("ARENA_DATA", command[0])).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if says in line:
                yield line.rpartition(says)[2].strip()
                break
        else:
            pytest.fail(f"{command} ended with {process.wait(10)} before it listened")
    finally:
        process.terminate()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(reached: Callable[[], bool]) -> bool:
    """Ask the other process until it says so, or the deadline has passed."""
    end = time.monotonic() + DEADLINE_S
    while not reached():
        if time.monotonic() > end:
            return False
    return True


def assert_all_right(got: Json, streams: int) -> None:
    """Every stream complete, in order and unchanged, and nothing else came."""
    troubles = {key: got[key] for key in ("wrong", "incomplete", "failed", "stray", "errors", "non200", "open")}
    assert troubles == dict.fromkeys(troubles, 0)
    assert got["complete"] == streams


@pytest.mark.parametrize("streams", [1, 2, 6, 16])
def test_nothing_is_lost_at_full_speed(servers: Servers, streams: int) -> None:
    """Bursts of 64 tokens a write, as fast as they go: every token arrives once, in order, with its text unchanged."""
    tokens = 48_000 // streams
    tokens = min(tokens, 30_000)

    got = servers.load(f"bench-n{tokens}-b64", streams, "-n", 2, "-c", 2, "-e", tokens)

    assert_all_right(got, 2 * streams)
    assert got["tokens"] == 2 * streams * tokens


def test_many_slow_streams_stay_alive_and_in_order(servers: Servers) -> None:
    """200 clients, one slow stream each, all open at once."""
    servers.control("/_reset")

    got = servers.load("bench-d250000-n10", 1, "-n", STREAMS, "-c", STREAMS, "-e", 10, "-r", 500)

    assert_all_right(got, STREAMS)
    assert got["tokens"] == STREAMS * 10
    assert servers.control("/_stats")["peak"] == STREAMS


def test_a_reader_that_rests_loses_nothing(servers: Servers) -> None:
    """Two clients read nothing for a second in the middle of a flood, then the rest."""
    got = servers.load("bench-n20000-b64", 4, "-n", 2, "-c", 2, "-e", 20_000, "-w", 1000)

    assert_all_right(got, 8)


@pytest.mark.parametrize("phase", PHASES)
def test_every_upstream_is_freed_when_its_client_leaves(servers: Servers, phase: str) -> None:
    """12 clients hang up on three models each: 36 of 36 connections close upstream, and nothing runs on."""
    servers.control("/_reset")

    got = servers.load(f"{PHASES[phase]}-g__TAG__", 3, "-n", 12, "-c", 4, "-x", 300)

    assert until(lambda: len(servers.control("/_aborts")) >= 36), servers.control("/_stats")
    cut = sorted(abort["tag"] for abort in servers.control("/_aborts"))
    assert cut == sorted([*range(1, 13)] * 3)
    assert len(got["cuts"]) == 12
    assert servers.control("/_stats")["active"] == 0
