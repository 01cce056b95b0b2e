"""The push client's answers as a reader pulls them: in order, at its pace, cut when it leaves."""

from __future__ import annotations

import asyncio
import math

import pytest

from arena.errors import ShuttingDown, Unreachable, UpstreamBroken
from arena.wire import Call, Pool, Timeouts
from arena.wire.stream import HELD_BYTES
from tests.peer import Guest, answers, chunked, endless, gated, ok, once, served

pytestmark = pytest.mark.anyio

PATIENT = Timeouts(connect_s=math.inf, first_byte_s=math.inf, idle_s=math.inf, total_s=None)


async def test_blocks_come_in_order_with_status_and_headers() -> None:
    gate = asyncio.Event()
    async with served(lambda guest: gated(guest, gate)) as (_, pool), pool.stream("GET", "/") as stream:
        assert (stream.status, stream.headers) == (200, (("transfer-encoding", "chunked"),))
        blocks = []
        async for block in stream:
            blocks.append(block)
            gate.set()
        assert blocks == [b"begin ", b"end"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_the_connection_of_a_whole_answer_serves_again() -> None:
    async with served(answers(ok(b"one"))) as (peer, pool):
        for _ in range(2):
            async with pool.stream("POST", "/x", b"{}") as stream:
                assert await stream.whole() == b"one"
        assert (len(peer.guests), len(peer.requests)) == (1, 2)


async def test_leaving_hangs_up_at_once() -> None:
    async with served(endless) as (peer, pool):
        async with pool.stream("GET", "/") as stream:
            assert await anext(stream) == b"begin"
        await peer.all_left(1)


async def test_cancelling_the_wait_for_the_head_hangs_up() -> None:
    async def silent(guest: Guest) -> None:
        await guest.request()
        await guest.gone()

    async with served(silent, timeouts=PATIENT) as (peer, pool):

        async def ask() -> None:
            async with pool.stream("GET", "/"):
                raise AssertionError

        asking = asyncio.create_task(ask())
        await peer.asked.wait()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        await peer.all_left(1)


async def test_a_slow_reader_holds_the_endpoint_back_and_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = chunked(*[b"x" * 65536] * 256)
    sent, full = asyncio.Event(), asyncio.Event()
    pause = Call.pause

    def paused(call: Call) -> None:
        pause(call)
        full.set()

    async def script(guest: Guest) -> None:
        await once(guest, flood)
        sent.set()
        await guest.gone()

    monkeypatch.setattr(Call, "pause", paused)
    async with served(script) as (_, pool), pool.stream("GET", "/") as stream:
        await full.wait()
        assert not sent.is_set()
        largest, size = 0, 0
        async for block in stream:
            largest, size = max(largest, len(block)), size + len(block)
        assert size == 256 * 65536
        assert largest < 2 * HELD_BYTES


async def test_what_came_before_a_break_is_taken_first() -> None:
    async def script(guest: Guest) -> None:
        await once(guest, chunked(b"half", end=False))
        guest.close()

    async with served(script) as (_, pool), pool.stream("GET", "/") as stream:
        await asyncio.wait({stream.call.done})
        assert await anext(stream) == b"half"
        for _ in range(2):
            with pytest.raises(UpstreamBroken, match="before its answer was complete"):
                await anext(stream)


async def test_a_closed_pool_ends_the_reader() -> None:
    async with served(endless) as (_, pool), pool.stream("GET", "/") as stream:
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await pool.aclose()
        with pytest.raises(ShuttingDown):
            await waiting


async def test_no_connection_is_told_before_the_block_is_entered() -> None:
    pool = Pool("http://127.0.0.1:1", timeouts=PATIENT)
    with pytest.raises(Unreachable, match="connection refused"):
        async with pool.stream("GET", "/"):
            raise AssertionError
    await pool.aclose()
