"""Time limits, names, addresses and TLS of the push client."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from arena.errors import Unreachable, UpstreamTimeout
from arena.wire import Call, Pool, Resolver, Timeouts
from arena.wire.answer import Answer
from arena.wire.resolve import NameNotFound
from tests.peer import (
    Guest,
    Peer,
    Script,
    Silent,
    answers,
    caught,
    chunked,
    endless,
    failure,
    ok,
    once,
    served,
)

pytestmark = pytest.mark.anyio


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
    call.began(Answer("GET"), has_body=True)
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
        lost = Pool("http://lost.test", resolver=resolver, timeouts=Timeouts(connect_s=1))
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


async def test_names_of_the_local_network_are_asked_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def system(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        if host == "gone.local":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", system)
    resolver = Resolver()
    assert await resolver.resolve("box.local") == ("127.0.0.7",)
    for _ in range(2):
        with pytest.raises(NameNotFound):
            await resolver.resolve("gone.local")
    assert asked == ["box.local", "gone.local"]
    await resolver.aclose()
