"""A scripted HTTP peer on loopback: says exactly the bytes a test wants, and knows when its client has left."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple

DEADLINE_S = 10.0


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
