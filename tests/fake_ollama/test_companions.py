"""The bad client, the hand-moved clock and the invariants, each seen to do its work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, RunningFake
from tests.fake_ollama.badclient import BadClient, Stage, dawdling_shapes, framing_attacks
from tests.fake_ollama.clock import NOON, Clock
from tests.fake_ollama.invariants import invariants, leak, level, settled
from tests.fake_ollama.raw import ask_chat, chat, connect, request

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("stage", list(Stage))
def test_the_bad_client_leaves_at_each_stage(fake_thread: RunningFake, stage: Stage, how: str) -> None:
    model = {Stage.REQUEST: "fx-hang", Stage.PAUSED: "fx-bigline", Stage.LAST_TOKEN: "fx-slowclose"}.get(
        stage, "fx-stall:n-3"
    )
    with BadClient(fake_thread.url) as client:
        client.advance_to(stage, client.request("POST", "/api/chat", chat(model)))
        fake_thread.until(lambda: fake_thread.fake.connections == 1, 1)
        complete = stage not in (Stage.CONNECTED, Stage.IN_HEAD, Stage.IN_BODY)
        if complete:
            fake_thread.arrived(1)
        client.leave("fin" if how == "fin" else "rst")
        fake_thread.until(lambda: fake_thread.fake.connections == 0, 2)
    assert [record.ended for record in fake_thread.log] == ([how] if complete else [])


def test_the_bad_client_reads_lines_and_all(fake_thread: RunningFake) -> None:
    with BadClient(fake_thread.url, receive_buffer=4096) as client:
        client.advance_to(Stage.LINES, client.request("POST", "/api/chat", chat("fx-eof:n-3")), lines=3)
        assert client.read_all().count(b'"done":false') == 3
        assert client.closed_by_server()
        with pytest.raises(EOFError):
            client.read_until(b"never")
    with BadClient(fake_thread.url) as client:
        client.send(client.request("POST", "/api/chat", chat("fx-rst0"), {"X-More": "1"}))
        assert client.closed_by_server()
    with BadClient(fake_thread.url, timeout_s=0.05) as client:
        assert not client.closed_by_server()
    assert fake_thread.log[-1].headers["x-more"] == "1"


def test_shapes_and_attacks_are_what_they_say() -> None:
    shapes = dawdling_shapes("localhost:1")
    assert len(shapes) == 5
    assert all(b"\r\n\r\n" not in shapes[name][0] for name in ("silent", "half_head", "trickled_head"))
    assert all(shapes[name][0].count(b"\r\n\r\n") == 1 for name in ("stalled_body", "trickled_body"))
    attacks = framing_attacks("localhost:1")
    assert attacks["two_hosts"].count(b"Host:") == 2
    assert attacks["length_and_chunked"].count(b"Content-Length") == 1
    assert b"\r" not in attacks["bare_line_feeds"]
    assert len(attacks["33_kib_header"]) > 33 * 1024
    assert attacks["101_headers"].count(b"X-") == 101


def test_the_clock_moves_by_hand() -> None:
    clock = Clock(10)
    clock.advance(2.5)
    assert (clock(), clock.now()) == (12.5, NOON + timedelta(seconds=2.5))
    clock.jump(-3600)
    assert (clock(), clock.now()) == (12.5, NOON + timedelta(seconds=2.5 - 3600))
    assert clock.time() == clock.now().timestamp()
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


async def test_invariants_hold_for_good_manners(fake: FakeOllama) -> None:
    async with invariants(fake):
        await ask_chat(fake, "fx-ok")
        await ask_chat(fake, "fx-rst:n-2")


async def test_invariants_allow_a_kept_alive_connection(fake: FakeOllama) -> None:
    async with invariants(fake, settle_s=0.05):
        _, writer = await connect(fake)
        writer.write(request("GET", "/", close=False))
        await fake.arrived()
    writer.close()


async def leave_behind(fake: FakeOllama, left: list[Callable[[], object]], model: str, **limits: Any) -> None:
    """Break an invariant: a request that is still served, or with "idle" only its kept-alive connection."""
    async with invariants(fake, settle_s=0.05, **limits):
        _, writer = await connect(fake)
        left.append(writer.close)
        writer.write(request("POST", "/api/chat", chat(model), close=False))
        await fake.arrived()


async def leave_a_task(left: list[Callable[[], object]]) -> None:
    """Break an invariant: a task that never ends."""
    async with invariants(settle_s=0.05):
        left.append(asyncio.create_task(asyncio.Event().wait()).cancel)


async def leave_descriptors(left: list[Callable[[], object]]) -> None:
    """Break an invariant: the two ends of a pipe."""
    async with invariants(settle_s=0.05):
        for end in os.pipe():
            left.append(partial(os.close, end))


async def last_for_ever() -> None:
    """Break an invariant: no end."""
    async with invariants(within_s=0.02):
        await asyncio.Event().wait()


async def run_into_a_timeout_of_its_own() -> None:
    """Break no invariant."""
    async with invariants():
        raise TimeoutError


async def test_invariants_see_what_is_left_behind(fake: FakeOllama) -> None:
    left: list[Callable[[], object]] = []
    with pytest.raises(AssertionError, match="1 requests still served"):
        await leave_behind(fake, left, "fx-hang")
    with pytest.raises(AssertionError, match="1 connections more"):
        await leave_behind(fake, left, "fx-ok:n-1", pooled=0)
    with pytest.raises(AssertionError, match="1 tasks"):
        await leave_a_task(left)
    with pytest.raises(AssertionError, match="2 descriptors"):
        await leave_descriptors(left)
    for undo in left:
        undo()


async def test_invariants_see_what_never_ends(fake: FakeOllama) -> None:
    with pytest.raises(AssertionError, match="no end within"):
        await last_for_ever()
    with pytest.raises(TimeoutError):
        await run_into_a_timeout_of_its_own()
    assert leak(level(fake), level(fake)) == ""


async def test_a_connection_that_is_closing_when_the_level_is_taken_is_no_leak_later(fake_thread: RunningFake) -> None:
    fake = fake_thread.fake
    with BadClient(fake_thread.url) as client:
        await settled(lambda: "" if fake.connections else "not yet connected", 10)
        open_ = level(fake)
        with fake_thread.standing_still():
            client.leave("fin")
            before = level(fake)
    await settled(lambda: "still connected" if fake.connections else "", 10)
    assert (before.connections, level(fake).connections) == (1, 0)
    assert leak(before, level(fake)) == ""
    assert level(fake).fds == open_.fds


async def test_a_connection_closed_at_one_end_alone_is_left_over(fake_thread: RunningFake) -> None:
    fake = fake_thread.fake
    before = level(fake)
    with BadClient(fake_thread.url):
        await settled(lambda: "" if fake.connections else "not yet connected", 10)
        assert leak(before, level(fake)) == ""
        fake_thread.state(accept="refuse")
        await settled(lambda: "still connected" if fake.connections else "", 10)
        assert leak(before, level(fake)) == "1 descriptors"
