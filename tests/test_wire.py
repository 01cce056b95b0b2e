"""The push client against a peer that says exactly the bytes each test wants, on both event loops."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import ArenaError, BudgetExceeded, ShuttingDown, Unreachable, UpstreamBroken, UpstreamTimeout
from arena.wire import Call, Pool, Resolver, Timeouts
from arena.wire import call as call_module
from arena.wire import pool as pool_module
from arena.wire.answer import HEAD_BYTES, Answer
from tests.peer import DEADLINE_S, Guest, Peer, Script, answers, chunked, ok

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops: their transports differ where it hurts."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@asynccontextmanager
async def served(script: Script, **settings: Any) -> AsyncIterator[tuple[Peer, Pool]]:
    """A peer and a pool to it; afterwards no connection is left."""
    async with Peer(script) as peer:
        pool = Pool(peer.url, name="peer", **settings)
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield peer, pool
        finally:
            await pool.aclose()
        assert pool.open_connections == 0


class Catch:
    """What a call handed over, and a gate that opens at the first bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.came = asyncio.Event()

    def __call__(self, data: bytes) -> None:
        self.parts.append(data)
        self.came.set()

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)


def caught(pool: Pool, path: str = "/", **settings: Any) -> tuple[Call, Catch]:
    """Start a call that keeps what comes."""
    catch = Catch()
    return pool.call("GET", path, on_data=catch, **settings), catch


async def failure(pool: Pool, **settings: Any) -> ArenaError:
    """The error that a fetch ends with."""
    with pytest.raises(ArenaError) as caught_error:
        await pool.fetch("GET", "/", **settings)
    return caught_error.value


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


# framing

CHUNKED = chunked(b"one ", b"two")
GOOD = {
    "length": ok(b"one two"),
    "chunks": CHUNKED,
    "chunk extension and trailer": CHUNKED.replace(b"4\r\n", b"4;x=y\r\n").replace(
        b"0\r\n\r\n", b"0\r\nX-T: 1\r\n\r\n"
    ),
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + CHUNKED,
    "odd case": CHUNKED.replace(b"Transfer-Encoding", b"tRANSFER-eNCODING"),
    "identity": ok(b"one two", "Content-Encoding: identity"),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("wire", GOOD.values(), ids=GOOD.keys())
async def test_sound_answers_come_whole_and_the_connection_is_used_again(wire: bytes, split: bool) -> None:
    async with served(answers(*(bytewise(wire) if split else [wire]))) as (peer, pool):
        for _ in range(3):
            assert (await pool.fetch("GET", "/"))[::2] == (200, b"one two")
        assert (len(peer.guests), pool.idle_connections) == (1, 1)


@pytest.mark.parametrize(
    ("method", "wire", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304),
        ("GET", ok(b""), 200),
    ],
)
async def test_answers_without_a_body_end_with_their_head(method: str, wire: bytes, status: int) -> None:
    async with served(answers(wire)) as (peer, pool):
        for _ in range(2):
            assert (await pool.fetch(method, "/"))[::2] == (status, b"")
        assert len(peer.guests) == 1


async def once(guest: Guest, *wire: bytes) -> None:
    await guest.request()
    await guest.say(*wire)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_an_answer_without_length_ends_with_its_connection(head: bytes) -> None:
    async with served(lambda guest: once(guest, head, b"one ", b"two")) as (peer, pool):
        for _ in range(2):
            assert (await pool.fetch("GET", "/")).body == b"one two"
        assert len(peer.guests) == 2


NOT_REUSED = {
    "asked to close": ok(b"ok", "Connection: close"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "garbage behind": ok() + b"garbage",
    "another answer behind": ok() + ok(b"PUSHED"),
    "surplus of a closing answer": ok(b"ok", "Connection: close") + b"more",
}


@pytest.mark.parametrize("wire", NOT_REUSED.values(), ids=NOT_REUSED.keys())
async def test_a_connection_in_doubt_is_not_used_again(wire: bytes) -> None:
    async with served(answers(wire)) as (peer, pool):
        for _ in range(2):
            assert (await pool.fetch("GET", "/")).body == b"ok"
        await peer.all_left(2)
        assert pool.idle_connections == 0


async def test_a_head_request_needs_no_length() -> None:
    async with served(answers(b"HTTP/1.1 200 OK\r\n\r\n")) as (_, pool):
        assert (await pool.fetch("HEAD", "/"))[::2] == (200, b"")


async def test_a_body_after_a_head_request_spoils_the_connection() -> None:
    async with served(answers(ok(b"body that must not be there"))) as (peer, pool):
        assert (await pool.fetch("HEAD", "/")).body == b""
        await peer.all_left(1)
        assert pool.idle_connections == 0


async def test_bytes_on_an_idle_connection_close_it() -> None:
    push = asyncio.Event()

    async def script(guest: Guest) -> None:
        await once(guest, ok())
        await push.wait()
        await guest.say(ok(b"PUSHED"))
        await guest.gone()

    async with served(script) as (peer, pool):
        await pool.fetch("GET", "/")
        push.set()
        await peer.all_left(1)
        assert pool.open_connections == 0


BROKEN = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": chunked(b"ab").replace(b"\r\n", b"\r\nContent-Length: 2\r\n", 1),
    "bad chunk size": chunked(b"ab", end=False) + b"zz\r\nab\r\n",
    "huge chunk size": chunked(end=False) + b"f" * 20 + b"\r\n",
    "other coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "compressed": ok(b"\x1f\x8b", "Content-Encoding: gzip"),
    "no HTTP": b"\x16\x03\x01 hello\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nzzz",
    "bare upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "head too large": b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES,
    "endless interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    "endless chunk extension": chunked(b"ab", end=False) + b"2;" + b"x" * 1_000_000,
    "endless trailer": chunked(b"ab", end=False) + b"0\r\nX: " + b"x" * 1_000_000,
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_ends_its_connection_and_harms_no_other(wire: bytes) -> None:
    async def script(guest: Guest) -> None:
        if guest.number == 0:
            await once(guest, wire)
            await guest.gone()
        else:
            await answers(ok())(guest)

    async with served(script) as (peer, pool):
        error = await failure(pool)
        assert isinstance(error, UpstreamBroken)
        assert (error.code, error.status, error.endpoint) == ("upstream_broken", 502, "peer")
        await peer.all_left(1)
        for _ in range(20):
            assert (await pool.fetch("GET", "/")).body == b"ok"
        assert len(peer.guests) == 2


async def test_what_came_before_the_fault_is_handed_over() -> None:
    async with served(lambda guest: once(guest, BROKEN["bad chunk size"])) as (_, pool):
        call, catch = caught(pool)
        with pytest.raises(UpstreamBroken):
            await call.done
        assert catch.body == b"ab"


@given(st.sampled_from(sorted(GOOD)), st.lists(st.integers(1, 40), max_size=30), st.sampled_from([b"", b"garbage"]))
def test_any_split_of_the_bytes_gives_the_same_answer(name: str, sizes: list[int], behind: bytes) -> None:
    rest, answer, body = GOOD[name] + behind, Answer("GET"), b""
    for size in [*sizes, len(rest)]:
        body += answer.feed(rest[:size])
        rest = rest[size:]
        if answer.complete:
            break
    assert (body, answer.status, answer.complete, answer.error) == (b"one two", 200, True, None)
    assert answer.keep_alive
    assert not answer.until_eof


# what is sent


async def test_the_request_as_it_goes_out() -> None:
    async with served(answers(ok()), headers=[("Authorization", "Bearer x")]) as (peer, pool):
        await pool.fetch("GET", "/a?b=c")
        await pool.fetch("POST", "/b", b"{}", headers=[("X-Id", "7")])
        await pool.fetch("PUT", "/c", b"\x00", headers=[("Content-Type", "application/octet-stream")])
        await pool.fetch("DELETE", "/d")
        common = f" HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\nAccept-Encoding: identity\r\nAuthorization: Bearer x\r\n"
        heads = [request.head.decode().split(common) for request in peer.requests]
        assert heads == [
            ["GET /a?b=c", "\r\n"],
            ["POST /b", "X-Id: 7\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"],
            ["PUT /c", "Content-Type: application/octet-stream\r\nContent-Length: 1\r\n\r\n"],
            ["DELETE /d", "Content-Length: 0\r\n\r\n"],
        ]
        assert [request.body for request in peer.requests] == [b"", b"{}", b"\x00", b""]


async def test_a_base_url_may_hold_a_path() -> None:
    async with Peer(answers(ok())) as peer:
        pool = Pool(peer.url + "/prefix/")
        await pool.fetch("GET", "/api/tags")
        await pool.aclose()
        assert peer.requests[0].line == "GET /prefix/api/tags HTTP/1.1"


async def test_nothing_breaks_out_of_its_line() -> None:
    async with served(answers(ok())) as (peer, pool):
        for method, path in [("GET", "/a b"), ("GET", "/a\r\nX: y"), ("GET", "a"), ("GET", "/ä"), ("G T", "/")]:
            with pytest.raises(ValueError, match="target"):
                await pool.fetch(method, path)
        for header in [("X", "a\r\nY: b"), ("X Y", "z"), ("X", "ä"), ("", "z")]:
            with pytest.raises(ValueError, match="header"):
                await pool.fetch("GET", "/", headers=[header])
        assert peer.guests == []
    for url in ["ftp://h", "http://", "127.0.0.1:11434"]:
        with pytest.raises(ValueError, match="base_url"):
            Pool(url)


async def test_a_large_body_goes_out_whole_and_an_early_answer_spoils_the_connection() -> None:
    async def script(guest: Guest) -> None:
        if guest.number == 0:
            await answers(ok())(guest)
        await guest.say(ok(b"early"))
        await guest.gone()

    async with served(script) as (peer, pool):
        body = bytes(range(256)) * 20_000
        assert (await pool.fetch("POST", "/", body)).body == b"ok"
        assert peer.requests[0].body == body
        assert pool.idle_connections == 1
        fetched = await pool.fetch("POST", "/", body * 4, resend=False)
        assert fetched.body == b"early"
        assert pool.idle_connections == 1, "half a request is still on its way on the other"


# reuse, and the faults that come with it


async def gated(guest: Guest, gate: asyncio.Event) -> None:
    """Begin an answer, and end it when the gate opens; then serve on."""
    await once(guest, chunked(b"begin ", end=False))
    await gate.wait()
    await guest.say(b"3\r\nend\r\n0\r\n\r\n")
    await answers(ok(b"next"))(guest)


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


async def endless(guest: Guest) -> None:
    """Begin an answer and wait for the client to leave."""
    await once(guest, chunked(b"begin", end=False))
    await guest.gone()


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


class Silent(Resolver):
    """A name server that never answers."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        raise AssertionError


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
    monkeypatch.undo()

    async def script(guest: Guest) -> None:
        await once(guest, chunked(b"begin", end=False))
        while True:
            await guest.say(b"400\r\n" + bytes(1024) + b"\r\n")

    async with served(script) as (peer, pool):
        await released(pool)
        await peer.all_left(1)


# time limits


async def trickle(guest: Guest) -> None:
    """Never silent, never done."""
    await once(guest, chunked(b"begin", end=False))
    while True:
        await guest.say(b"1\r\nx\r\n")
        await asyncio.sleep(0)


async def endless_head(guest: Guest) -> None:
    """A head that goes on and on, a space at a time, and never fast enough to be too large."""
    await once(guest, b"HTTP/1.1 200 OK\r\nX:")
    while True:
        await guest.say(b" ")
        await asyncio.sleep(0)


LIMITS: dict[str, tuple[Script, Timeouts, str, str]] = {
    "no answer": (
        lambda guest: guest.gone(),
        Timeouts(first_byte_s=0.05),
        "timeout",
        "did not begin to answer in 0.05 s",
    ),
    "half a head": (
        endless_head,
        Timeouts(first_byte_s=0.05, idle_s=0.01),
        "timeout",
        "did not begin to answer in 0.05 s",
    ),
    "silence": (endless, Timeouts(idle_s=0.05), "timeout", "fell silent for 0.05 s while answering"),
    "in all": (trickle, Timeouts(total_s=0.05), "total_timeout", "took longer than 0.05 s to answer"),
}


@pytest.mark.parametrize(("script", "timeouts", "code", "text"), LIMITS.values(), ids=LIMITS.keys())
async def test_every_phase_has_its_limit(script: Script, timeouts: Timeouts, code: str, text: str) -> None:
    async with served(script, timeouts=timeouts) as (peer, pool):
        error = await failure(pool)
        assert isinstance(error, UpstreamTimeout)
        assert (error.code, error.status, error.message) == (code, 504, f"peer {text}")
        await peer.all_left(1)


async def test_a_connection_that_does_not_come_about_is_unreachable() -> None:
    pool = Pool("http://127.0.0.1:9", name="far", timeouts=Timeouts(connect_s=0.05), resolver=Silent())
    error = await failure(pool)
    assert isinstance(error, Unreachable)
    assert error.message == "far is not reachable: no connection in 0.05 s"
    await pool.aclose()


class HandLoop:
    """The part of an event loop that a call needs, with a clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.armed: list[tuple[float, Callable[[], None]]] = []
        self._real = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now_s

    def create_future(self) -> asyncio.Future[Any]:
        return self._real.create_future()

    def call_at(self, when_s: float, callback: Callable[[], None]) -> asyncio.Handle:
        self.armed.append((when_s, callback))
        return asyncio.Handle(callback, (), self._real)

    def fire(self) -> None:
        """Move to the time armed last and do what is due."""
        self.now_s, callback = self.armed[-1]
        callback()


def by_hand(monkeypatch: pytest.MonkeyPatch, timeouts: Timeouts) -> tuple[HandLoop, Call]:
    loop = HandLoop()
    monkeypatch.setattr("arena.wire.call.asyncio.get_running_loop", lambda: loop)
    call = Call("peer", "GET", (b"", b""), lambda _: None, resend=True, timeouts=timeouts)
    monkeypatch.undo()
    call.watch("head", timeouts.first_byte_s)
    call.began(200, ())
    return loop, call


async def test_tokens_do_not_touch_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, call = by_hand(monkeypatch, Timeouts(idle_s=120))
    armed = len(loop.armed)
    for _ in range(1000):
        loop.now_s += 0.1
        call.touched(loop.now_s)
    assert len(loop.armed) == armed
    last_s = loop.now_s
    loop.fire()
    assert not call.done.done()
    loop.fire()
    assert (call.done.done(), loop.now_s) == (True, last_s + 120)


async def test_a_pause_is_not_the_endpoints_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, call = by_hand(monkeypatch, Timeouts(idle_s=10, total_s=None))
    call.pause()
    for _ in range(5):
        loop.fire()
    assert not call.done.done()
    call.resume()
    resumed_s = loop.now_s
    loop.fire()
    assert (call.done.done(), loop.now_s) == (True, resumed_s + 10)
    assert isinstance(call.done.exception(), UpstreamTimeout)


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


# names, addresses, TLS


class Book(Resolver):
    """Addresses from a list."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self.addresses = addresses

    async def resolve(self, host: str) -> tuple[str, ...]:
        return self.addresses


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with Peer(answers(ok())) as peer:
        pool = Pool(f"http://somewhere:{peer.port}", resolver=Book("127.0.0.2", "127.0.0.1"))
        assert (await pool.fetch("GET", "/")).body == b"ok"
        assert peer.requests[0].head.split(b"\r\n")[1] == f"Host: somewhere:{peer.port}".encode()
        await pool.aclose()


async def test_ipv6() -> None:
    peer = Peer(answers(ok()), host="::1")
    try:
        await peer.__aenter__()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    for url in (peer.url, f"http://localhost:{peer.port}"):
        pool = Pool(url)
        assert (await pool.fetch("GET", "/")).body == b"ok"
        await pool.aclose()
    await peer.__aexit__(None, None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
async def test_addresses_are_not_looked_up(host: str) -> None:
    assert await Resolver().resolve(host) == (host,)


class NameServer(asyncio.DatagramProtocol):
    """Knows `known.test` (127.0.0.1), says that nothing else exists, or is silent."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question_end = data.index(b"\0", 12) + 5
        name, kind = data[12 : question_end - 5], data[question_end - 4 : question_end - 2]
        self.asked.append(name)
        known = b"known" in name
        found = known and kind == b"\0\1"
        head = (
            data[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + (b"\0\1" if found else b"\0\0") + b"\0" * 4
        )
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if found else b""
        if not self.silent:
            self.transport.sendto(head + data[12:question_end] + record, addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, str]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    try:
        yield server, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    finally:
        transport.close()
        await asyncio.sleep(0)


async def test_names_are_looked_up_and_a_missing_one_is_not_asked_for_again_at_once() -> None:
    now_s = 0.0
    async with name_server() as (server, address), Peer(answers(ok())) as peer:
        resolver = Resolver([address], clock=lambda: now_s)
        known = Pool(f"http://known.test:{peer.port}", resolver=resolver)
        missing = Pool("http://missing.test", name="far", resolver=resolver)
        assert (await known.fetch("GET", "/")).body == b"ok"
        for _ in range(3):
            error = await failure(missing)
            assert isinstance(error, Unreachable)
            assert error.message == "far is not reachable: the name missing.test was not found"
        asked = len(server.asked)
        now_s = 4.9
        await failure(missing)
        assert len(server.asked) == asked
        now_s = 5.1
        await failure(missing)
        await known.aclose()
        await missing.aclose()
        await resolver.aclose()
        await resolver.aclose()


async def test_a_silent_name_server_delays_only_its_own_endpoint() -> None:
    async with name_server() as (server, address), served(answers(ok())) as (_, healthy):
        server.silent = True
        resolver = Resolver([address])
        lost = Pool("http://lost.test", resolver=resolver, timeouts=Timeouts(connect_s=0.2))
        waiting = [caught(lost)[0] for _ in range(40)]
        assert (await healthy.fetch("GET", "/")).body == b"ok"
        assert not any(call.done.done() for call in waiting)
        for call in waiting:
            with pytest.raises(Unreachable):
                await call.done
        await lost.aclose()
        await resolver.aclose()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A self-signed certificate for localhost, with its key in the same file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl program to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    names = ["-subj", "/CN=arena test", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command = [program, "req", "-x509", *key, *names, "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return str(path)


async def test_tls_is_spoken_and_verified(certificate: str) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with Peer(answers(ok()), tls=server) as peer:
        by_name = peer.url.replace("127.0.0.1", "localhost")
        pool = Pool(by_name, tls=trusting)
        for _ in range(2):
            assert (await pool.fetch("GET", "/")).body == b"ok"
        assert len(peer.guests) == 1
        await pool.aclose()
        for refused in (Pool(by_name), Pool(peer.url, tls=trusting)):
            error = await failure(refused)
            assert isinstance(error, Unreachable)
            assert error.message.endswith("is not reachable: its certificate is not trusted")
            await refused.aclose()


async def test_cancel_hangs_up_under_tls_too(certificate: str) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    async with Peer(endless, tls=server) as peer:
        pool = Pool(peer.url.replace("127.0.0.1", "localhost"), tls=ssl.create_default_context(cafile=certificate))
        call, catch = caught(pool)
        await catch.came.wait()
        call.cancel()
        await peer.all_left(1)
        await pool.aclose()
