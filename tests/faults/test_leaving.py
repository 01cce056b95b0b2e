"""F25, F30: clients who leave at any moment, with FIN or RST. Upstream is free at once, every time."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from msgspec import Struct

from arena.server.protocol import LimitedProtocol
from tests.fake_ollama import Record
from tests.fake_ollama.badclient import BadClient, Parting, Stage
from tests.fake_ollama.invariants import seven_nevers
from tests.fake_ollama.stopwatch import Stopwatch
from tests.faults.doors import HELLO
from tests.faults.serving import ServedArena
from tests.faults.table import GONE

TIMES = 14
"""Repetitions: with nine moments, two routes and two ways to part a little over 500."""
FREED_S = 1.0
"""Longest time until upstream is free; mostly it is less than a tenth."""
HANGS_S = 60.0
"""Longer than anything here takes on the busiest machine."""
P99_S = 0.5
"""The same for 99 of 100."""
TICK_S = 0.002


class Moment(Struct, frozen=True):
    """When to leave: what upstream does meanwhile, how far a reader of the stream gets, how far upstream must be."""

    stage: Stage
    model: str = "fx-ok"
    tokens: int = 0
    endpoint: str = "fake"
    lines: int = 0
    asks: bool = True


MOMENTS: dict[str, Moment] = {
    "in_head": Moment(Stage.IN_HEAD, asks=False),
    "in_body": Moment(Stage.IN_BODY, asks=False),
    "queued": Moment(Stage.REQUEST, "fx-hang"),
    "connecting": Moment(Stage.REQUEST, GONE, endpoint="other", asks=False),
    "first_byte": Moment(Stage.REQUEST, "fx-hang"),
    "mid_line": Moment(Stage.MID_LINE, "fx-stall:at-3", 3),
    "lines": Moment(Stage.LINES, "fx-slow:n-1000_ms-10", 3, lines=2),
    "paused": Moment(Stage.PAUSED, "fx-endless:size-20000", 20),
    "last_token": Moment(Stage.LINES, "fx-stall:n-5", 5, lines=5),
}


@pytest.fixture
def arena(patient: ServedArena) -> Iterator[ServedArena]:
    """The patient arena, its endpoints well again afterwards."""
    patient.ask("GET", "/api/models")
    yield patient
    for fake in patient.fakes:
        fake.reset()


@pytest.fixture(scope="module")
def freed() -> list[float]:
    """The seconds from each client's leaving to the end of its work upstream."""
    return []


def until(condition: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait for something on the other side of the threads' border; when it was."""
    deadline, never = time.monotonic() + within_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        never.wait(TICK_S)
    return time.monotonic()


def request_at(moment: Moment, name: str) -> dict[str, object]:
    """The body to send: for `queued`, a second answer waits behind the first."""
    instances = [{"id": "a", "model": moment.model, "endpoint": moment.endpoint}]
    if name == "queued":
        instances.append({"id": "b", "model": "fx-ok", "endpoint": "fake"})
    return {"history": HELLO, "model_instances": instances, "order": "one_after_another"}


def reach(arena: ServedArena, client: BadClient, route: str, name: str, before: int) -> None:
    """Bring `client` and everything behind it to the moment."""
    moment = MOMENTS[name]
    request = client.request("POST", route, request_at(moment, name))
    whole = route == "/api/chat" and moment.stage not in (Stage.IN_HEAD, Stage.IN_BODY)  # shows nothing before the end
    client.advance_to(Stage.REQUEST if whole else moment.stage, request, lines=moment.lines)
    if moment.asks:
        arena.fake.until(lambda: told(arena, before) >= moment.tokens, HANGS_S, name)
    elif name == "connecting":
        until(lambda: arena.arena.compare.running > 0, HANGS_S, "connecting")
    else:
        until(lambda: len(arena.server.server_state.connections) > 0, HANGS_S, "connected")
    if name == "paused" and not whole:
        until(lambda: arena.call(lambda: stuck(arena)), HANGS_S, "the server waits for the client")


def chats(arena: ServedArena) -> list[Record]:
    """The answers that upstream was asked for."""
    return [record for record in arena.fake.log if record.path == "/api/chat"]


def told(arena: ServedArena, number: int) -> int:
    """How many tokens upstream has told of its answer number `number`; -1 before it was asked."""
    asked = chats(arena)
    return asked[number].tokens if len(asked) > number else -1


def stuck(arena: ServedArena) -> bool:
    """Does the server wait for a client to read?"""
    connections = [each for each in arena.server.server_state.connections if isinstance(each, LimitedProtocol)]
    return any(each.flow.write_paused for each in connections)


def free(arena: ServedArena, cut: int) -> bool:
    """Has the client's work ended: no answer in the arena, and its request upstream cut?"""
    return arena.arena.compare.running == 0 and arena.fake.fake.cut == cut


@pytest.mark.parametrize("parting", ["fin", "rst"])
@pytest.mark.parametrize("route", ["/api/chat", "/api/stream_chat"], ids=["chat", "stream_chat"])
@pytest.mark.parametrize("name", MOMENTS)
def test_leaving_frees_upstream(
    arena: ServedArena, freed: list[float], name: str, route: str, parting: Parting
) -> None:
    asks = MOMENTS[name].asks
    if name == "connecting":
        arena.other.fall("blackhole")
    with seven_nevers(arena, within_s=HANGS_S):
        for number in range(TIMES):
            with BadClient(arena.url, receive_buffer=4096 if name == "paused" else None) as client:
                reach(arena, client, route, name, number if asks else 0)
                watch = Stopwatch()
                client.leave(parting)
                ended_s = until(lambda number=number: free(arena, (number + 1) * asks), HANGS_S, "free")  # type: ignore[misc]
            freed.append(watch.own_s((asks and chats(arena)[-1].parted_at) or ended_s))
    assert max(freed[-TIMES:]) < FREED_S
    assert len(chats(arena)) == TIMES * asks, "whoever waits behind one who left is not asked either"


def test_all_who_left_together(freed: list[float], record_testsuite_property: Callable[[str, object], None]) -> None:
    """G03: the figures over every disconnect of this module."""
    p50_s, p99_s = (statistics.quantiles(freed, n=100)[cut - 1] for cut in (50, 99))
    figures = f"p50 {p50_s * 1e3:.1f} ms, p99 {p99_s * 1e3:.1f} ms, max {max(freed) * 1e3:.1f} ms"
    record_testsuite_property("disconnects", f"{len(freed)}: {figures}")
    assert p99_s < P99_S


@pytest.mark.parametrize("parting", ["fin", "rst"])
@pytest.mark.parametrize("route", ["/api/chat", "/api/stream_chat"], ids=["chat", "stream_chat"])
def test_a_firehose_stops_when_its_reader_leaves(arena: ServedArena, route: str, parting: Parting) -> None:
    """F25: no pauses upstream, a client that reads as fast as it can, and then none."""
    body = {"history": HELLO, "model_instances": [{"id": "a", "model": "fx-endless", "endpoint": "fake"}]}
    with seven_nevers(arena, within_s=HANGS_S):
        for number in range(5):
            with BadClient(arena.url) as client:
                client.send(client.request("POST", route, body))
                if route == "/api/stream_chat":
                    while len(client.received) < 100_000:
                        client.read_until(b"\n")
                        client.received += client.socket.recv(65536)
                else:
                    arena.fake.until(lambda number=number: told(arena, number) > 2000, HANGS_S, "under way")  # type: ignore[misc]
                watch = Stopwatch()
                client.leave(parting)
                arena.fake.closed(number + 1, within_s=HANGS_S)
            parted_at = chats(arena)[-1].parted_at
            assert parted_at is not None
            assert watch.own_s(parted_at) < FREED_S
