"""Peers that are gone without a word, and peers that only take long."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from arena.errors import Busy, Unreachable, UpstreamBroken, UpstreamTimeout
from arena.fleet.breaker import is_failure
from arena.wire import EXHAUSTED, Pool, RawCall, RawHeaders, Timeouts, keepalive
from arena.wire.connection import REST_BYTES, Connection
from tests.peer import DEADLINE_S, Guest, Peer, answers, caught, chunked, failure, ok, once, served

pytestmark = pytest.mark.anyio

LINUX = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has the option")


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sockets that connections are made of, from now on."""
    seen: list[Any] = []
    real = keepalive.ask_after

    def ask_after(connection: Any) -> None:
        seen.append(connection)
        real(connection)

    monkeypatch.setattr(keepalive, "ask_after", ask_after)
    return seen


def user_timeout_ms(connection: Any) -> int:
    """For how long Linux waits until what was sent is acknowledged."""
    value = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert isinstance(value, int)
    return value


# gone


async def test_the_system_asks_after_every_peer(sockets: list[Any]) -> None:
    async with served(answers(ok(b"hi"))) as (_, pool):
        await pool.fetch("GET", "/")
        (connection,) = sockets
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined,unused-ignore]
        options = (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [connection.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [15, 5, 3]


@LINUX
async def test_what_was_sent_is_acknowledged_in_time_or_the_peer_is_gone(sockets: list[Any]) -> None:
    async with served(answers(ok(b"hi"))) as (_, pool):
        await pool.fetch("POST", "/", b"{}")
        assert user_timeout_ms(sockets[0]) == keepalive.GONE_S * 1000


@LINUX
async def test_a_peer_may_take_its_time_to_read_much(sockets: list[Any]) -> None:
    async with served(answers(ok(b"hi"))) as (_, pool):
        await pool.fetch("POST", "/", b"x" * REST_BYTES)
        async with pool.upload("/", 2) as upload:
            await upload.write(b"hi")
            assert await upload.end() == (200, b"hi")
        assert [user_timeout_ms(connection) for connection in sockets] == [0, 0]


class Closed:
    """A socket that takes no options any more."""

    def setsockopt(self, *_: int) -> None:
        raise OSError(errno.EBADF, "closed")


def test_a_connection_that_is_closed_already_is_left_alone() -> None:
    keepalive.ask_after(Closed())
    keepalive.bear_with(Closed())


class Watched(Pool):
    """A pool that shows its connections."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.seen: list[Connection] = []

    def opened(self, connection: Connection) -> None:
        """A connection is open."""
        self.seen.append(connection)
        super().opened(connection)


async def silent(guest: Guest) -> None:
    """Take the request and say nothing."""
    await guest.request()
    await guest.gone()


async def test_whose_peer_is_gone_learns_so() -> None:
    async with Peer(silent) as peer:
        pool = Watched(peer.url, name="peer")
        told = Told()
        forward(pool, told)
        async with asyncio.timeout(DEADLINE_S):
            await peer.asked.wait()
        (connection,) = pool.seen
        connection.connection_lost(TimeoutError(errno.ETIMEDOUT, "timed out"))
        (error,) = told.ends
        assert isinstance(error, UpstreamBroken)
        assert (error.code, error.message.split(":")[0]) == ("upstream_reset", "peer is gone")
        await pool.aclose()


async def test_what_has_waited_for_a_first_byte_is_known_and_can_be_given_up() -> None:
    async with served(silent) as (peer, pool):
        told, now_s = Told(), asyncio.get_running_loop().time()
        before_s, after_s = now_s - 1, now_s + DEADLINE_S
        call = forward(pool, told)
        call.elsewhere = lambda: True
        await peer.asked.wait()
        stay = []
        for elsewhere in (None, lambda: False):
            peer.asked.clear()
            stay.append(pool.call("POST", "/", b"{}", on_data=print))
            stay[-1].elsewhere = elsewhere
            await peer.asked.wait()
        assert (pool.unheard(before_s), pool.unheard(after_s)) == ([], [call])
        call.pause()
        assert pool.unheard(after_s) == [], "what may have come has not been read"
        call.resume()
        for one in stay:
            one.give_up(after_s)
        call.give_up(before_s)
        assert not told.ends
        assert not any(one.done.done() for one in stay)
        call.give_up(after_s)
        (error,) = told.ends
        assert isinstance(error, UpstreamTimeout)
        assert error.message == "peer did not begin to answer, and answers no checks either"
        for one in stay:
            one.cancel()


@pytest.mark.parametrize("whole", [True, False], ids=["another answer", "a piece of one"])
async def test_a_peer_that_says_anything_to_anybody_is_not_gone(whole: bool) -> None:
    async def script(guest: Guest) -> None:
        request = await guest.request()
        if request.line.startswith("GET"):
            await guest.say(ok(b"hi") if whole else chunked(b"hi", end=False))
        await guest.gone()

    async with served(script) as (peer, pool):
        call = forward(pool, Told())
        call.elsewhere = lambda: True
        await peer.asked.wait()
        since_s = asyncio.get_running_loop().time()
        other, catch = caught(pool)
        await (other.done if whole else catch.came.wait())
        assert pool.unheard(since_s) == []
        assert pool.unheard(asyncio.get_running_loop().time() + 1) == [call]
        call.cancel()
        other.cancel()


# slow


class Told:
    """A receiver that keeps what it is told. `begun` is set at the head, `over` at the end."""

    def __init__(self) -> None:
        self.body = b""
        self.ends: list[BaseException | None] = []
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    def on_head(self, status: int, headers: RawHeaders) -> None:
        """The head."""
        self.begun.set()

    def on_data(self, data: bytes) -> None:
        """A piece of the body."""
        self.body += data

    def on_end(self, error: BaseException | None) -> None:
        """The end."""
        self.ends.append(error)
        self.over.set()


def forward(pool: Pool, told: Told, may_wait: Callable[[], bool] | None = None) -> RawCall:
    """Hand a request on."""
    return pool.forward("POST", b"/api/chat", b"Content-Length: 2\r\n", b"{}", told, may_wait=may_wait)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"
BRIEF = Timeouts(first_byte_s=0.02, idle_s=0.01)


class Patience:
    """Says so often that an answer may be waited for; `over` is set when it is said for the last time."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.over = asyncio.Event()

    def __call__(self) -> bool:
        """May it?"""
        self.left -= 1
        if self.left <= 0:
            self.over.set()
        return self.left >= 0


PROCESSING = b"HTTP/1.1 102 Processing\r\nX-Odd: 1\r\n\r\n"


@pytest.mark.parametrize("early", [b"", HEAD, PROCESSING], ids=["no head", "a head at once", "an interim answer"])
async def test_a_whole_answer_may_take_long_whenever_its_head_comes(early: bytes) -> None:
    patience = Patience(4)

    async def slow(guest: Guest) -> None:
        await once(guest, early)
        await patience.over.wait()
        await guest.say(b"" if early == HEAD else HEAD, b"finished")
        await guest.gone()

    async with served(slow, timeouts=BRIEF) as (_, pool):
        told = Told()
        forward(pool, told, lambda: patience() or True)
        await told.over.wait()
        assert (told.body, told.ends) == (b"finished", [None])


@pytest.mark.parametrize("early", [b"", HEAD], ids=["no head", "a head at once"])
async def test_a_host_that_is_down_is_not_waited_for_any_longer(early: bytes) -> None:
    async def never(guest: Guest) -> None:
        await once(guest, early)
        await guest.gone()

    async with served(never, timeouts=BRIEF) as (peer, pool):
        told, patience = Told(), Patience(3)
        forward(pool, told, patience)
        await told.over.wait()
        (error,) = told.ends
        assert isinstance(error, UpstreamTimeout)
        assert (error.message, patience.over.is_set()) == ("peer did not begin to answer in 0.02 s", True)
        await peer.all_left(1)


@pytest.mark.parametrize(
    "wire", [(HEAD + b"half",), (HEAD, b"half"), (chunked(b"half", end=False),)], ids=["at once", "later", "chunked"]
)
async def test_a_whole_answer_that_falls_silent_in_the_middle_is_not_waited_for(wire: tuple[bytes, ...]) -> None:
    async def stalls(guest: Guest) -> None:
        await guest.request()
        for part in wire:
            await guest.say(part)
            await told.begun.wait()
        await guest.gone()

    told = Told()
    async with served(stalls, timeouts=Timeouts(idle_s=0.05)) as (_, pool):
        forward(pool, told, lambda: True)
        await told.over.wait()
        (error,) = told.ends
        assert isinstance(error, UpstreamTimeout)
        assert (error.message, told.body) == ("peer fell silent for 0.05 s while answering", b"half")


async def test_a_head_that_stops_in_the_middle_is_not_waited_for() -> None:
    async def stalls(guest: Guest) -> None:
        await once(guest, HEAD[:-9])
        await guest.gone()

    async with served(stalls, timeouts=BRIEF) as (_, pool):
        told, patience = Told(), Patience(10**9)
        async with asyncio.timeout(DEADLINE_S):
            forward(pool, told, patience)
            await told.over.wait()
        (error,) = told.ends
        assert isinstance(error, UpstreamTimeout)


# none to be had here


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL], ids=["no descriptor", "no port"])
async def test_a_machine_without_connections_to_give_is_not_the_hosts_failure(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def none(*_: Any, **__: Any) -> None:
        raise OSError(number, "none left")

    monkeypatch.setattr(Pool, "_open", none)
    async with served(answers(ok())) as (_, pool):
        error = await failure(pool)
        assert (type(error), error.code) == (Busy, EXHAUSTED)
        assert error.message == "The server cannot open one more connection (none left); try again"
        assert not is_failure(error, None)


@pytest.mark.parametrize(
    ("url", "numbers", "said"),
    [
        ("http://[::1]:1", {"::1": errno.EADDRNOTAVAIL}, "none left"),
        ("http://localhost:1", {"127.0.0.1": errno.EADDRNOTAVAIL, "::1": errno.ENETUNREACH}, "none left"),
        ("http://localhost:1", {"127.0.0.1": errno.ECONNREFUSED, "::1": errno.EADDRNOTAVAIL}, "connection refused"),
    ],
    ids=["IPv6 is off", "another reason", "and it is off"],
)
async def test_a_host_is_at_fault_where_there_is_any_other_reason(
    monkeypatch: pytest.MonkeyPatch, url: str, numbers: dict[str, int], said: str
) -> None:
    async def none(_pool: Pool, _call: Any, address: str) -> None:
        raise OSError(numbers[address], "none left")

    monkeypatch.setattr(Pool, "_open", none)
    pool = Pool(url, name="peer")
    error = await failure(pool)
    assert (type(error), error.message) == (Unreachable, f"peer is not reachable: {said}")
    await pool.aclose()
