"""A scripted HTTP peer on loopback: says exactly the bytes a test wants, and knows when its client has left."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple

import pytest

from arena.errors import ArenaError
from arena.wire import Call, Pool, Resolver

DEADLINE_S = 30.0
NO_UVLOOP = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="no uvloop on this system")
LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=NO_UVLOOP),
]


class Request(NamedTuple):
    """One request as it came in."""

    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        """Method, target and version."""
        return self.head.split(b"\r\n", 1)[0].decode("ascii")


class Guest:
    """One accepted connection. `left` is set when the client has closed it or broken it off."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        self.number = len(peer.guests)
        self.left = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._peer = peer

    async def request(self) -> Request:
        """Read one request whole."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        request = Request(head, await self._reader.readexactly(int(length.split(b":")[1])))
        self._peer.requests.append(request)
        self._peer.asked.set()
        return request

    async def say(self, *parts: bytes) -> None:
        """Send, one segment after the other."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the client has left."""
        while await self._reader.read(65536):
            pass

    def close(self) -> None:
        """Close in good order (FIN)."""
        self._writer.close()

    def reset(self) -> None:
        """Break off (RST)."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Guest], Awaitable[None]]


class Peer:
    """`async with Peer(script) as peer:` runs `script` for every connection; a script that returns closes it.

    `asked` is set at the first request.
    """

    def __init__(self, script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.guests: list[Guest] = []
        self.asked = asyncio.Event()
        self._host = host
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The base url."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._welcome, self._host, 0, ssl=self._tls, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def all_left(self, count: int) -> None:
        """Wait until `count` connections were accepted and all of them are over."""
        async with asyncio.timeout(DEADLINE_S):
            for number in range(count):
                await self.guests[number].left.wait()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = Guest(reader, writer, self)
        self.guests.append(guest)
        task = asyncio.get_running_loop().create_task(self._serve(guest, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, guest: Guest, writer: asyncio.StreamWriter) -> None:
        try:
            await self.script(guest)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            guest.left.set()
            writer.transport.abort() if writer.transport.is_closing() else writer.close()


def answers(*wire: bytes) -> Script:
    """A script that gives the same answer to every request, and then waits for the next."""

    async def script(guest: Guest) -> None:
        while True:
            await guest.request()
            await guest.say(*wire)

    return script


def ok(body: bytes = b"ok", *fields: str) -> bytes:
    """A sound answer with a Content-Length."""
    extra = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    """A sound answer in chunks."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + (b"0\r\n\r\n" if end else b"")


async def once(guest: Guest, *wire: bytes) -> None:
    await guest.request()
    await guest.say(*wire)


async def gated(guest: Guest, gate: asyncio.Event) -> None:
    """Begin an answer, and end it when the gate opens; then serve on."""
    await once(guest, chunked(b"begin ", end=False))
    await gate.wait()
    await guest.say(b"3\r\nend\r\n0\r\n\r\n")
    await answers(ok(b"next"))(guest)


async def endless(guest: Guest) -> None:
    """Begin an answer and wait for the client to leave."""
    await once(guest, chunked(b"begin", end=False))
    await guest.gone()


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


class Silent(Resolver):
    """A name server that never answers."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        raise AssertionError
