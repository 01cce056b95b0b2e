"""Answers handed on raw: what the receiver is told, and when nothing more is."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from arena.errors import ShuttingDown, Unreachable, UpstreamBroken
from arena.wire import Pool, RawCall, RawHeaders
from tests.peer import DEADLINE_S, Peer, answers, chunked, endless, ok, once, served

pytestmark = pytest.mark.anyio


class Told:
    """A receiver that writes everything down. `at_head` is called at the head, with the call."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: RawHeaders = []
        self.body = b""
        self.ends: list[BaseException | None] = []
        self.over = asyncio.Event()
        self.news = asyncio.Event()

    def on_head(self, status: int, headers: RawHeaders) -> None:
        """The head."""
        assert not self.status, "a second head"
        self.status, self.headers = status, headers
        self.news.set()

    def on_data(self, data: bytes) -> None:
        """A piece of the body."""
        assert self.status, "a body without a head"
        assert not self.ends, "a body after the end"
        self.body += data

    def on_end(self, error: BaseException | None) -> None:
        """The end."""
        self.ends.append(error)
        self.over.set()


def forward(pool: Pool, told: Told, method: str = "POST", body: bytes = b"{}", fields: bytes = b"") -> RawCall:
    """Hand a request on."""
    return pool.forward(method, b"/api/chat?x=1", fields + b"Content-Length: %d\r\n" % len(body), body, told)


async def whole(pool: Pool, **more: Any) -> Told:
    """Everything that is told of one answer."""
    told = Told()
    forward(pool, told, **more)
    async with asyncio.timeout(DEADLINE_S):
        await told.over.wait()
    return told


async def test_the_request_goes_out_as_it_is() -> None:
    async with served(answers(ok(b"hi")), headers=[("Authorization", "Bearer x")]) as (peer, pool):
        await whole(pool, body=b'{"a":1}', fields=b"X-Odd:  1\r\n")
        request = peer.requests[0]
        assert request.line == "POST /api/chat?x=1 HTTP/1.1"
        assert request.body == b'{"a":1}'
        lines = request.head.split(b"\r\n")
        assert lines[1] == b"Host: " + peer.url.removeprefix("http://").encode()
        assert {b"Authorization: Bearer x", b"X-Odd:  1", b"Content-Length: 7"} <= set(lines)
        assert b"accept-encoding" not in request.head.lower()
        assert pool.own_headers == {b"authorization"}


async def test_headers_come_as_they_are_and_interim_answers_and_trailers_do_not() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    wire = chunked(b"\x1f\x8b").replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\nX-A: 1\r\nx-a: \xff\r\n\r\n", 1)
    wire = wire.replace(b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n")
    async with served(answers(interim + wire)) as (_, pool):
        for _ in range(2):
            told = await whole(pool)
            assert (told.status, told.body, told.ends) == (200, b"\x1f\x8b", [None])
            assert told.headers == [
                (b"transfer-encoding", b"chunked"),
                (b"content-encoding", b"gzip"),
                (b"x-a", b"1"),
                (b"x-a", b"\xff"),
            ]
        assert pool.open_connections == 1


@pytest.mark.parametrize(
    ("method", "wire", "body"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b""),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_answers_without_a_body(method: str, wire: bytes, body: bytes) -> None:
    async with served(answers(wire)) as (_, pool):
        told = await whole(pool, method=method)
        assert (told.body, told.ends) == (body, [None])


async def test_an_answer_that_ends_with_its_connection() -> None:
    async def script(guest: Any) -> None:
        await guest.request()
        await guest.say(b"HTTP/1.1 200 OK\r\n\r\nto the end")

    async with served(script) as (_, pool):
        told = await whole(pool)
        assert (told.body, told.ends) == (b"to the end", [None])


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 099 Early\r\n\r\n",
        b"HTTP/1.1 600 Late\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_is_no_answer(wire: bytes) -> None:
    async with served(answers(wire)) as (_, pool):
        told = await whole(pool)
        (error,) = told.ends
        assert isinstance(error, UpstreamBroken)


async def test_who_cancels_is_told_nothing_more() -> None:
    async with served(endless) as (peer, pool):
        told = Told()
        call = forward(pool, told)
        await told.news.wait()
        call.cancel()
        await peer.all_left(1)
        assert told.ends == []


async def test_who_lets_go_leaves_the_connection_to_others() -> None:
    class Enough(Told):
        call: RawCall

        def on_head(self, status: int, headers: RawHeaders) -> None:
            super().on_head(status, headers)
            self.call.release()

    async with served(answers(ok(b"not wanted"))) as (_, pool):
        told = Enough()
        told.call = forward(pool, told)
        await told.news.wait()
        assert (told.body, told.ends) == (b"", [])
        assert (await whole(pool)).body == b"not wanted"
        assert pool.open_connections == 1


async def test_a_closed_pool_and_a_closed_port_say_so() -> None:
    async with Peer(answers(ok())) as peer:
        pool = Pool(peer.url, name="peer")
        await pool.aclose()
        assert isinstance((await whole(pool)).ends[0], ShuttingDown)
        url = peer.url
    pool = Pool(url)
    try:
        assert isinstance((await whole(pool)).ends[0], Unreachable)
    finally:
        await pool.aclose()


async def test_an_answer_to_one_call_may_send_the_next_on_its_connection() -> None:
    class Next(Told):
        def __init__(self, pool: Pool) -> None:
            super().__init__()
            self.following = Told()
            self._pool = pool

        def on_end(self, error: BaseException | None) -> None:
            super().on_end(error)
            forward(self._pool, self.following)

    async with served(answers(ok(b"hi"))) as (_, pool):
        told = Next(pool)
        forward(pool, told)
        await told.following.over.wait()
        assert (told.following.body, pool.open_connections) == (b"hi", 1)


async def test_certificates_may_go_unverified_for_one_endpoint() -> None:
    checked, unchecked = Pool("https://h:1"), Pool("https://h:1", verify=False)
    contexts = [pool._tls for pool in (checked, unchecked)]
    assert [context.verify_mode for context in contexts if context] == [ssl.CERT_REQUIRED, ssl.CERT_NONE]
    for pool in (checked, unchecked):
        await pool.aclose()


async def test_calls_that_end_in_time_set_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(answers(ok(b"hi"))) as (_, pool):
        await whole(pool)
        alarms: list[float] = []
        monkeypatch.setattr("arena.wire.call.Alarm._set", lambda _, due_s: alarms.append(due_s))
        for _ in range(20):
            await whole(pool)
        assert alarms == []


async def test_who_lets_go_at_the_head_hears_nothing_of_what_is_wrong_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Leaving(Told):
        call: RawCall

        def on_head(self, status: int, headers: RawHeaders) -> None:
            super().on_head(status, headers)
            self.call.cancel()

    unsound = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n"
    async with served(lambda guest: once(guest, unsound)) as (peer, pool):
        told = Leaving()
        told.call = forward(pool, told)
        await told.news.wait()
        await peer.all_left(1)
        assert (told.ends, caplog.text) == ([], "")


@pytest.mark.parametrize("wire", [ok(b"hi"), chunked(b"hi")], ids=["whole", "in chunks"])
async def test_the_head_can_be_waited_for(wire: bytes) -> None:
    async with served(lambda guest: once(guest, wire)) as (_, pool):
        told = Told()
        head = forward(pool, told).head
        await told.over.wait()
        assert head.result() == (200, ())
