"""F20, F29, F32: a real process, its memory, its descriptors and its end."""

from __future__ import annotations

import http.client
import json
import signal
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

from tests.fake_ollama import RunningFake
from tests.fake_ollama.badclient import BadClient
from tests.fake_ollama.stopwatch import Stopwatch
from tests.faults.child import STALL_S, Child, child
from tests.faults.doors import HELLO
from tests.faults.test_leaving import HANGS_S, until

MEGABYTE = 1024 * 1024
STREAMS = 100
DEAF = 24
DRAIN_S = 5


def streaming(stack: ExitStack, server: Child, model: str, *, receive_buffer: int | None = None) -> BadClient:
    """A client that has asked for a stream."""
    client = stack.enter_context(BadClient(server.url, timeout_s=HANGS_S, receive_buffer=receive_buffer))
    client.send(client.request("POST", "/api/stream_chat", {"history": HELLO, "models": [model]}))
    return client


def health_s(server: Child) -> float:
    """Seconds that a health check takes."""
    watch = Stopwatch(server.process.pid)
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=HANGS_S)
    try:
        connection.request("GET", "/api/health")
        assert connection.getresponse().status == 200
    finally:
        connection.close()
    return watch.own_s()


def last_line(received: bytes) -> dict[str, object]:
    """The last line of a chunked stream, which must have ended as it should."""
    assert received.endswith(b"\r\n0\r\n\r\n"), received[-200:]
    line = received.removesuffix(b"\r\n0\r\n\r\n").removesuffix(b"\n").rpartition(b"\n")[2]
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_signal_lets_a_hundred_streams_end_well(fake_thread: RunningFake) -> None:
    """G19: every stream ends with a whole last line, the process with status 0 in time, and upstream is free."""
    with child(fake_thread.url, ARENA_DRAIN=str(DRAIN_S)) as server, ExitStack() as stack:
        clients = [streaming(stack, server, "fx-slow:n-1000_ms-100") for _ in range(STREAMS)]
        for client in clients:
            client.read_until(b'"done":false}\n')
        watch = Stopwatch(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        ends = [last_line(client.read_all()) for client in clients]
        server.ended()
        took_s = watch.own_s()
        assert server.process.wait() == 0
        assert took_s < DRAIN_S + 1
        fake_thread.closed(STREAMS, within_s=HANGS_S)
        assert [(end["done"], end["error_code"]) for end in ends] == [(True, "server_shutting_down")] * STREAMS
        assert all(isinstance(end["metrics"], dict) for end in ends)
        assert server.warnings() == []


def test_a_second_signal_does_not_wait_for_a_deaf_client(fake_thread: RunningFake) -> None:
    """G19: a client that reads nothing may hold up the first signal for the drain's time, but never the second."""
    with child(fake_thread.url, ARENA_DRAIN="60", ARENA_MAX_ANSWER_TOKENS="1000000000") as server, ExitStack() as stack:
        streaming(stack, server, "fx-endless:size-20000", receive_buffer=4096)
        listening = streaming(stack, server, "fx-hang")
        fake_thread.arrived(2, within_s=HANGS_S, path="/api/chat")
        server.process.terminate()
        assert last_line(listening.read_all())["error_code"] == "server_shutting_down"
        watch = Stopwatch(server.process.pid)
        server.process.terminate()
        server.ended()
        assert watch.own_s() < 1
        assert server.process.wait() == 0


def test_clients_that_never_read_cost_little_and_are_dropped(fake_thread: RunningFake) -> None:
    """G20: two dozen of them on firehoses; memory stands still, others are served, and in the end all is as before."""
    endless = {"ARENA_MAX_ANSWER_TOKENS": "1000000000", "ARENA_MAX_ANSWER_BYTES": "1000000000000"}
    with child(fake_thread.url, **endless) as server, ExitStack() as stack:
        health_s(server)
        before, descriptors = server.memory_bytes(), server.descriptors()
        for _ in range(DEAF):
            streaming(stack, server, "fx-endless:size-20000", receive_buffer=4096)
        fake_thread.arrived(DEAF, within_s=HANGS_S, path="/api/chat")
        grown, slowest_s = 0, 0.0
        deadline_s = time.monotonic() + STALL_S + HANGS_S
        while fake_thread.cut < DEAF:
            assert time.monotonic() < deadline_s, "not dropped"
            slowest_s = max(slowest_s, health_s(server))
            grown = max(grown, server.memory_bytes() - before)
        assert grown / DEAF < 1.5 * MEGABYTE
        assert slowest_s < 1
        until(lambda: server.descriptors() <= descriptors + 2, HANGS_S, "descriptors back")


def test_a_line_without_end_costs_no_more_than_the_limit(fake_thread: RunningFake) -> None:
    """F20: 100 MB without a line end; the answer fails at 8 MiB, and that is what it costs."""
    with child(fake_thread.url) as server, ExitStack() as stack:
        health_s(server)
        before = server.memory_bytes()
        end = last_line(streaming(stack, server, "fx-bigline:mb-100").read_until(b"\r\n0\r\n\r\n"))
        assert end["error_code"] == "line_too_long"
        assert server.memory_bytes() - before < 20 * MEGABYTE
