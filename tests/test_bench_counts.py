"""The counts of the benchmark as tests: nothing lost, all alive, all cut, through the arena and the proxy as shipped.

Where a second and a third one run, they go without the page, which takes seconds to import.
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
PLACES = 2
ARENA: list[str | Path] = [sys.executable, ROOT / "arena_app.py"]
PAGELESS: list[str | Path] = [sys.executable, "-m", "tests.pageless"]
ASGI: list[str | Path] = [
    *(sys.executable, "-m", "uvicorn", "tests.pageless:app", "--factory"),
    *("--port", "0", "--http", "httptools", "--loop", "uvloop", "--no-access-log"),
]
ANSWER = "The quick brown fox jumps over the lazy dog."
"""What the fake server says when it is not to stream."""
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
        arena = stack.enter_context(running(ARENA, settings(programs / "data", upstream), "running on "))
        yield Servers(programs / "loadgen", upstream, arena)


@pytest.fixture(scope="module", params=["connection", "asgi"])
def proxy(request: pytest.FixtureRequest, servers: Servers, programs: Path) -> Iterator[Servers]:
    """The proxy before the same fake Ollama: answered on the connection itself, and under plain uvicorn."""
    if request.param == "connection":
        yield servers
        return
    with running(ASGI, settings(programs / "asgi", servers.upstream), "running on ") as address:
        yield Servers(servers.loadgen, servers.upstream, address.split()[0])


@pytest.fixture(scope="module")
def fleet(programs: Path) -> Iterator[Fleet]:
    """The proxy before two fake Ollamas with two places each, of which the second can be ended and started again."""
    with ExitStack() as stack:
        one = stack.enter_context(running([programs / "fake_ollama", "0", "16"], {}, "listening on "))
        other = stack.enter_context(running([programs / "fake_ollama", "0", "16"], {}, "listening on "))
        environment = settings(programs / "fleet", "")
        data = Path(environment["ARENA_DATA"])
        data.mkdir()
        hosts = "".join(
            f"  - {{name: {name}, url: {url}, max_in_flight: {PLACES}, check_interval: 200ms}}\n"
            for name, url in (("one", one), ("other", other))
        )
        (data / "fleet.yaml").write_text(f"endpoints:\n{hosts}")
        program: list[str | Path] = [programs / "fake_ollama", other.rpartition(":")[2], "16"]
        arena = stack.enter_context(running(PAGELESS, environment, "running on "))
        yield Fleet(Servers(programs / "loadgen", one, arena), Servers(programs / "loadgen", other, arena), program)


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
        return ended(self._start("-p", "/api/stream_chat", "-b", json.dumps(body), "-s", streams, *flags))

    def chat(self, word: str, *flags: object, stream: bool = True) -> subprocess.Popen[str]:
        """loadgen in the background, asking the proxy as a client of Ollama does."""
        messages = [{"role": "user", "content": f"Why is the sky blue? {word}"}]
        body = json.dumps({"model": "bench-m0:1b", "messages": messages, "stream": stream})
        return self._start("-p", "/olla/ollama/api/chat", "-f", "content", "-b", body, *flags)

    def get(self, path: str, *flags: object) -> Json:
        """One run of loadgen that GETs `path`."""
        return ended(self._start("-m", "GET", "-p", path, *flags))

    def _start(self, *flags: object) -> subprocess.Popen[str]:
        command = [str(part) for part in (self.loadgen, self.arena.rpartition(":")[2], *flags)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def control(self, path: str) -> Any:
        """What the fake server counted."""
        with requests.Session() as session:
            session.trust_env = False
            method = "GET" if path in ("/_stats", "/_aborts") else "POST"
            return session.request(method, f"{self.upstream}{path}", timeout=10).json()

    def chats(self) -> int:
        """Chats that the fake server was asked for."""
        return int(self.control("/_stats")["chats"])


class Fleet:
    """The two hosts behind one proxy. `program` starts the second one again."""

    def __init__(self, one: Servers, other: Servers, program: list[str | Path]) -> None:
        self.one = one
        self.other = other
        self.program = program

    def end_other(self) -> None:
        """The second host dies at once, with all that it was answering."""
        with pytest.raises(requests.ConnectionError):
            self.other.control("/_quit")


def settings(data: Path, upstream: str) -> dict[str, str]:
    """The environment of an arena before `upstream`."""
    named = {"ARENA_ENDPOINTS": upstream} if upstream else {}
    return {"ARENA_PORT": "0", "ARENA_ENGINE": "off", "ARENA_DATA": str(data), "PYTHONPATH": str(ROOT), **named}


def ended(load: subprocess.Popen[str]) -> Json:
    """What a run of loadgen has counted."""
    try:
        output, _ = load.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        load.kill()
        load.wait()
        raise
    return dict(json.loads(output))


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
        stderr=subprocess.STDOUT if command is ASGI else subprocess.DEVNULL,
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
    """200 clients, one slow stream each, all open at once: the first does not end before the last has begun."""
    servers.control("/_reset")

    got = servers.load("bench-d250000-n10-w5000000", 1, "-n", STREAMS, "-c", STREAMS, "-e", 10, "-r", 500)

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


def test_no_stream_through_the_proxy_loses_a_token(proxy: Servers) -> None:
    """16 streams as fast as they go, 64 tokens a write."""
    got = ended(proxy.chat("bench-n4000-b64", "-n", 32, "-c", 16, "-e", 4000))

    assert_all_right(got, 32)
    assert got["tokens"] == 32 * 4000


def test_every_small_request_through_the_proxy_is_answered(proxy: Servers) -> None:
    """32 connections that are kept alive: each answer is whole, and its own."""
    posted = ended(proxy.chat("", "-n", 800, "-c", 32, "-k", ANSWER, stream=False))
    got = proxy.get("/olla/ollama/api/version", "-n", 400, "-c", 32, "-k", '"version":"0.13.5"')

    assert_all_right(posted, 800)
    assert_all_right(got, 400)


def test_many_slow_streams_of_the_proxy_stay_alive_and_in_order(proxy: Servers) -> None:
    """200 clients, one slow stream each, all open at once: the first does not end before the last has begun."""
    proxy.control("/_reset")

    got = ended(proxy.chat("bench-d200000-n8-w5000000", "-n", STREAMS, "-c", STREAMS, "-e", 8, "-r", 500))

    assert_all_right(got, STREAMS)
    assert proxy.control("/_stats")["peak"] == STREAMS


def test_a_caller_with_one_request_is_not_made_to_wait_for_a_flood(fleet: Fleet) -> None:
    """16 requests of one caller before two places; the other caller's next one is never behind more than a few."""
    there = ("-H", "X-Olla-Endpoint: one")
    fleet.one.control("/_reset")
    flood = fleet.one.chat("bench-t20000-n1", "-n", 400, "-c", 16, "-a", "127.0.0.2", *there)
    assert until(lambda: fleet.one.chats() > 16)
    before = fleet.one.chats()

    got = ended(fleet.one.chat("bench-t20000-n1", "-n", 20, "-c", 1, "-a", "127.0.0.3", "-e", 1, *there))

    assert_all_right(got, 20)
    # one after the other in a single line it would be 320
    assert fleet.one.chats() - before < 20 * 6
    assert_all_right(ended(flood), 400)


def test_a_host_that_dies_fails_no_request_and_serves_again_when_it_is_back(fleet: Fleet) -> None:
    """Requests under way at a host that is killed are answered by the other one; started again, it is asked again."""
    fleet.other.control("/_reset")
    load = fleet.one.chat("bench-t20000-n3", "-n", 300, "-c", 4, "-e", 3)
    assert until(lambda: fleet.other.chats() > 20)

    fleet.end_other()

    assert_all_right(ended(load), 300)
    with running(fleet.program, {}, "listening on "):
        assert until(lambda: served_by(fleet.other))


def served_by(host: Servers) -> bool:
    """Ask a few times; has this host had any of it?"""
    assert_all_right(ended(host.chat("bench-t20000-n3", "-n", 4, "-c", 4, "-e", 3)), 4)
    return host.chats() > 0
