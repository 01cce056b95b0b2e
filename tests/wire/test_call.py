"""The push client's connections and calls: used again, cut, paused, released, closed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from arena.errors import BudgetExceeded, ShuttingDown, Unreachable, UpstreamBroken
from arena.wire import Pool
from arena.wire import call as call_module
from arena.wire import pool as pool_module
from arena.wire.connection import Connection
from tests.peer import (
    DEADLINE_S,
    Guest,
    Peer,
    Silent,
    answers,
    caught,
    chunked,
    endless,
    failure,
    gated,
    ok,
    once,
    served,
)

pytestmark = pytest.mark.anyio


# reuse, and the faults that come with it


async def test_cancelling_an_ended_call_does_not_touch_the_next_one_on_its_connection() -> None:
    gate = asyncio.Event()

    async def script(guest: Guest) -> None:
        await once(guest, ok())
        await gated(guest, gate)

    async with served(script) as (peer, pool):
        first, _ = caught(pool)
        await first.done
        second, catch = caught(pool)
        await catch.came.wait()
        first.cancel()
        first.release()
        first.pause()
        gate.set()
        await second.done
        assert (catch.body, len(peer.guests)) == (b"begin end", 1)


async def test_a_connection_never_goes_back_paused() -> None:
    async with served(answers(ok())) as (peer, pool):
        call = pool.call("GET", "/", on_data=lambda _: call.pause())
        await call.done
        assert call.paused
        assert (await pool.fetch("GET", "/")).body == b"ok"
        assert len(peer.guests) == 1


async def test_status_and_headers_stay_the_calls_own() -> None:
    async def script(guest: Guest) -> None:
        await once(guest, ok(b"1", "X-Number: 1"))
        await once(guest, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-Number: 2\r\n\r\n")

    async with served(script) as (_, pool):
        first, _ = caught(pool)
        await first.done
        second, _ = caught(pool)
        await second.done
        assert [(c.status, dict(c.headers)["x-number"]) for c in (first, second)] == [(200, "1"), (404, "2")]


async def test_one_tls_context_serves_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []
    build = ssl.create_default_context

    def count() -> ssl.SSLContext:
        made.append(build())
        return made[-1]

    monkeypatch.setattr("arena.wire.pool.ssl.create_default_context", count)
    async with Peer(lambda guest: guest.say(ok())) as peer:
        pool = Pool(peer.url.replace("http", "https"))
        for _ in range(3):
            assert (await failure(pool)).message.endswith("it does not speak TLS")
        await pool.aclose()
    assert len(made) == 1


def stale(guest: Guest, *, end: Callable[[], None], after: bytes = b"") -> Any:
    """Serve one request; then read the next, say `after` and end the connection."""

    async def script() -> None:
        if guest.number == 0:
            await once(guest, ok(b"first"))
            await once(guest, after)
            end()
        else:
            await answers(ok(b"second"))(guest)

    return script()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_request_on_a_dead_kept_alive_connection_is_sent_once_more(how: str) -> None:
    async with served(lambda guest: stale(guest, end=getattr(guest, how))) as (peer, pool):
        assert (await pool.fetch("GET", "/")).body == b"first"
        assert (await pool.fetch("POST", "/x", b"{}")).body == b"second"
        assert [request.line[:7] for request in peer.requests] == ["GET / H", "POST /x", "POST /x"]


async def test_a_request_is_sent_once_more_only_once() -> None:
    async def script(guest: Guest) -> None:
        if guest.number == 0:
            await once(guest, ok())
        await guest.request()

    async with served(script) as (peer, pool):
        await pool.fetch("GET", "/")
        assert (await failure(pool)).code == "upstream_eof"
        assert len(peer.requests) == 3


async def test_after_the_first_byte_nothing_is_sent_again() -> None:
    async with served(lambda guest: stale(guest, end=guest.close, after=b"H")) as (peer, pool):
        await pool.fetch("GET", "/")
        assert (await failure(pool)).code == "upstream_eof"
        assert len(peer.requests) == 2


async def test_what_must_not_happen_twice_gets_a_new_connection_and_is_never_sent_again() -> None:
    async def script(guest: Guest) -> None:
        await (answers(ok())(guest) if guest.number == 0 else guest.request())

    async with served(script) as (peer, pool):
        await pool.fetch("GET", "/")
        assert (await failure(pool, resend=False)).code == "upstream_eof"
        assert (len(peer.guests), len(peer.requests)) == (2, 2)


async def test_a_connection_known_to_be_closed_is_passed_over() -> None:
    async with served(lambda guest: once(guest, ok())) as (peer, pool):
        for number in range(3):
            await pool.fetch("GET", "/")
            await peer.all_left(number + 1)
        assert len(peer.requests) == 3


async def test_idle_connections_are_few_and_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_IDLE", 2)
    async with served(answers(ok())) as (peer, pool):
        calls = [caught(pool)[0] for _ in range(4)]
        for call in calls:
            await call.done
        assert (len(peer.guests), pool.idle_connections) == (4, 2)
    monkeypatch.setattr(pool_module, "IDLE_S", 0.05)
    async with served(answers(ok())) as (peer, pool):
        calls = [caught(pool)[0] for _ in range(2)]
        for call in calls:
            await call.done
        await peer.all_left(2)
        assert pool.idle_connections == 0


# endings


async def test_a_closed_port_is_unreachable() -> None:
    async with Peer(answers(ok())) as peer:
        pass
    pool = Pool(peer.url, name="gone")
    error = await failure(pool)
    assert isinstance(error, Unreachable)
    assert (error.message, error.status) == ("gone is not reachable: connection refused", 502)
    await pool.aclose()


ENDINGS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "upstream_eof"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Ty", "upstream_eof"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "upstream_eof"),
    "half the chunks": (chunked(b"half", end=False), "upstream_eof"),
}


@pytest.mark.parametrize(("wire", "code"), ENDINGS.values(), ids=ENDINGS.keys())
async def test_an_early_end_is_told_apart_from_an_end(wire: bytes, code: str) -> None:
    async with served(lambda guest: once(guest, wire)) as (_, pool):
        error = await failure(pool)
        assert isinstance(error, UpstreamBroken)
        assert error.code == code


@pytest.mark.parametrize(
    "wire", [b"", b"HTTP/1.1 200 OK\r\n", chunked(b"half", end=False), b"HTTP/1.1 200 OK\r\n\r\nhalf"]
)
async def test_a_broken_off_connection_is_told_apart_from_a_closed_one(wire: bytes) -> None:
    go = asyncio.Event()

    async def script(guest: Guest) -> None:
        await once(guest, wire)
        await go.wait()
        guest.reset()

    async with served(script) as (_, pool):
        call, catch = caught(pool)
        if b"half" in wire:
            await catch.came.wait()
        go.set()
        with pytest.raises(UpstreamBroken) as error:
            await call.done
        assert error.value.code == "upstream_reset"


async def test_redirects_are_not_followed() -> None:
    async with Peer(answers(ok())) as canary:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {canary.url}/\r\nContent-Length: 0\r\n\r\n"
        async with served(answers(moved.encode())) as (_, pool):
            assert (await pool.fetch("GET", "/")).status == 302
        assert canary.guests == []


async def test_a_whole_answer_has_a_limit_and_an_error_is_cut_instead() -> None:
    async with served(answers(ok(b"x" * 1001))) as (peer, pool):
        assert len((await pool.fetch("GET", "/", limit_bytes=1001)).body) == 1001
        assert (await failure(pool, limit_bytes=1000)).code == "answer_too_large"
        await peer.all_left(1)
    big = ok(b"x" * 10_000_000).replace(b"200 OK", b"500 Oh")
    async with served(answers(big)) as (_, pool):
        fetched = await pool.fetch("GET", "/", limit_bytes=1000)
        assert fetched.status == 500
        assert 64 * 1024 <= len(fetched.body) < 1_000_000


async def test_an_error_raised_in_on_data_ends_the_call_with_it() -> None:
    async with served(endless) as (peer, pool):

        def refuse(_: bytes) -> None:
            raise BudgetExceeded("enough")

        with pytest.raises(BudgetExceeded, match="enough"):
            await pool.call("GET", "/", on_data=refuse).done
        await peer.all_left(1)


async def test_a_fault_of_our_own_in_on_data_is_not_blamed_on_the_endpoint() -> None:
    async with served(endless) as (peer, pool):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)

        def stumble(_: bytes) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await pool.call("GET", "/", on_data=stumble).done
        await peer.all_left(1)


# cancelling


async def test_cancel_while_the_name_is_looked_up() -> None:
    pool = Pool("http://127.0.0.1:9", resolver=Silent())
    call, _ = caught(pool)
    call.cancel()
    assert call.done.cancelled()
    await pool.aclose()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", chunked(b"begin", end=False)], ids=["", "head", "body"])
async def test_cancel_hangs_up_at_once(said: bytes) -> None:
    asked = asyncio.Event()

    async def script(guest: Guest) -> None:
        await once(guest, said)
        asked.set()
        await guest.gone()

    async with served(script) as (peer, pool):
        call, catch = caught(pool)
        await asked.wait()
        if b"begin" in said:
            await catch.came.wait()
        call.cancel()
        call.cancel()
        await peer.all_left(1)
        assert call.done.cancelled()
        assert call.on_data is None
        assert pool.open_connections == 0


async def test_cancelling_the_task_that_fetches_hangs_up() -> None:
    async with served(endless) as (peer, pool):
        task = asyncio.ensure_future(pool.fetch("GET", "/"))
        await peer.asked.wait()
        task.cancel()
        await peer.all_left(1)
        assert task.cancelled()


async def test_cancel_from_within_on_data_is_the_last_that_is_heard() -> None:
    async with served(answers(chunked(b"a", b"b"))) as (peer, pool):
        call, catch = caught(pool)

        def once_only(data: bytes) -> None:
            catch(data)
            call.cancel()

        call.on_data = once_only
        with pytest.raises(asyncio.CancelledError):
            await call.done
        await peer.all_left(1)
        assert len(catch.parts) == 1


# back-pressure


async def test_a_paused_call_holds_its_endpoint_back_and_nobody_else() -> None:
    total = 64 * 2**20
    sent = 0

    async def script(guest: Guest) -> None:
        nonlocal sent
        request = await guest.request()
        if request.line.startswith("GET /small"):
            await guest.say(ok())
            return
        await guest.say(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n".encode())
        block = bytes(2**18)
        while sent < total:
            await guest.say(block)
            sent += len(block)

    got = 0

    def take(data: bytes) -> None:
        nonlocal got
        got += len(data)
        if got == len(data):
            call.pause()
            call.pause()

    async with served(script) as (_, pool):
        call = pool.call("GET", "/", on_data=take)
        for _ in range(50):
            await pool.fetch("GET", "/small", resend=False)
        assert 0 < got <= 2**18
        assert sent < total
        call.resume()
        call.resume()
        await call.done
        assert got == total


async def test_a_call_may_be_paused_before_it_is_connected() -> None:
    async with served(answers(ok())) as (peer, pool):
        call, catch = caught(pool)
        call.pause()
        await pool.fetch("GET", "/", resend=False)
        assert (len(peer.guests), catch.parts) == (2, [])
        call.resume()
        await call.done
        assert catch.body == b"ok"


# letting go early


async def released(pool: Pool) -> None:
    call, catch = caught(pool)
    await catch.came.wait()
    call.release()
    call.release()
    call.cancel()
    await call.done


async def test_a_released_call_ends_well_and_its_connection_serves_on() -> None:
    gate = asyncio.Event()
    async with served(lambda guest: gated(guest, gate)) as (peer, pool):
        await released(pool)
        gate.set()
        await pool.fetch("GET", "/", resend=False)
        assert pool.idle_connections == 2
        assert (await pool.fetch("GET", "/")).body == b"next"
        assert len(peer.guests) == 2


async def test_a_released_call_waits_neither_long_nor_for_much(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(endless) as (peer, pool):
        monkeypatch.setattr(call_module, "REST_S", 0.02)
        await released(pool)
        await peer.all_left(1)
    monkeypatch.setattr(call_module, "REST_S", 3600)

    async def script(guest: Guest) -> None:
        await once(guest, chunked(b"begin", end=False))
        while True:
            await guest.say(b"400\r\n" + bytes(1024) + b"\r\n")

    async with served(script) as (peer, pool):
        await released(pool)
        await peer.all_left(1)


# heads


async def test_the_head_comes_before_the_body_is_complete() -> None:
    gate = asyncio.Event()
    async with served(lambda guest: gated(guest, gate)) as (_, pool):
        call, _ = caught(pool)
        assert (await call.head)[0] == 200
        assert not call.done.done()
        gate.set()
        await call.done
        assert call.head.result() == (200, (("transfer-encoding", "chunked"),))


async def test_the_head_is_known_afterwards_too() -> None:
    async with served(answers(ok())) as (_, pool):
        call, _ = caught(pool)
        await call.done
        assert (await call.head)[0] == 200


async def test_no_head_ends_as_the_call_ends() -> None:
    async with served(lambda guest: once(guest)) as (_, pool):
        early, _ = caught(pool)
        head = early.head
        with pytest.raises(UpstreamBroken):
            await head
        with pytest.raises(UpstreamBroken):
            await early.head
        late, _ = caught(pool)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late.head


# closing


async def test_closing_a_pool_ends_its_calls_and_refuses_new_ones() -> None:
    async with Peer(endless) as peer:
        pool = Pool(peer.url)
        call, catch = caught(pool)
        await catch.came.wait()
        dialling, _ = caught(pool)
        await pool.aclose()
        assert pool.open_connections == 0
        for ended in (call, dialling, caught(pool)[0]):
            with pytest.raises(ShuttingDown):
                await ended.done
        await peer.all_left(1)
        await pool.aclose()


async def test_an_answer_that_completes_while_its_pool_closes_keeps_no_connection() -> None:
    async with Peer(answers(ok())) as peer:
        pool = Pool(peer.url)
        closing: list[asyncio.Task[None]] = []
        call = pool.call("GET", "/", on_data=lambda _: closing.append(asyncio.ensure_future(pool.aclose())))
        await call.done
        await closing[0]
        assert (pool.open_connections, pool.idle_connections) == (0, 0)


async def test_a_time_out_at_the_moment_of_connecting_leaves_no_connection_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop then closes the transport and tells its protocol nothing."""
    async with Peer(endless) as peer:
        pool = Pool(peer.url)
        opened = pool.opened

        def opened_too_late(connection: Connection) -> None:
            opened(connection)
            next(task for task in asyncio.all_tasks() if task.get_name().startswith("connect ")).cancel()

        monkeypatch.setattr(pool, "opened", opened_too_late)
        async with asyncio.timeout(DEADLINE_S):
            call, _ = caught(pool)
            with pytest.raises(UpstreamBroken) as broken:
                await call.done
            assert broken.value.code == "upstream_reset"
            await pool.aclose()
        assert pool.open_connections == 0


async def test_a_pool_may_be_closed_twice_at_once() -> None:
    async with Peer(answers(ok())) as peer:
        pool = Pool(peer.url)
        await caught(pool)[0].done
        assert pool.idle_connections == 1
        async with asyncio.timeout(5), asyncio.TaskGroup() as both:
            both.create_task(pool.aclose())
            both.create_task(pool.aclose())
        assert pool.open_connections == 0
