"""One accepted connection on raw bytes: it must be able to break HTTP, so no HTTP library is used."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

HEAD_LIMIT_BYTES = 1024 * 1024
RST_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for zero seconds: close() answers with RST instead of FIN

Parting = Literal["fin", "rst"]


class ClientGone(Exception):
    """The client closed or reset the connection."""


class Capped(Exception):
    """The fake's own limit of time or bytes was reached."""


class BadMessage(Exception):
    """The client's bytes are not HTTP/1.x."""


@dataclass(frozen=True)
class Request:
    """One request as it came. `headers` keeps order and repetitions, names in lower case."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str, default: str = "") -> str:
        """The first header of that (lower case) name."""
        return next((value for key, value in self.headers if key == name), default)

    def parsed(self) -> Any:
        """The body as JSON where it is JSON, else its bytes; None when empty."""
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body


class Connection(asyncio.Protocol):
    """Bytes in, bytes out, and exactly when and how the other side left."""

    def __init__(self, number: int, serve: Callable[[Connection], Awaitable[None]], lost: Callable[[Connection], None]):
        self.number = number
        self.accepted_at = time.monotonic()
        self.parting: Parting | None = None
        self.parted_at: float | None = None
        self.bytes_in = self.bytes_out = 0
        self.limit_bytes = 256 * 1024 * 1024
        self.deadline = float("inf")
        self.idle = True
        self.task: asyncio.Task[None] | None = None
        self._serve, self._lost = serve, lost
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._news: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._drained: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    # what the event loop tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start serving; a write counts as done when the kernel has all of it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self.task = self._loop.create_task(self._run(), name=f"fake connection {self.number}")

    def data_received(self, data: bytes) -> None:
        """Keep what came; reading never pauses, so that a leaving client is seen at once."""
        self.bytes_in += len(data)
        self._buffer += data
        self._wake()

    def eof_received(self) -> bool:
        """The client sent FIN: like Ollama we take that as leaving."""
        self._leave("fin")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed: by RST when there is an error, otherwise by us."""
        if exc is not None:
            self._leave("rst")
        self._transport = None
        if not self._gone.done():
            self._gone.set_result(None)
        self._wake()

    def pause_writing(self) -> None:
        """The kernel's buffer is full."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """The kernel took everything."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _leave(self, how: Parting) -> None:
        if self.parting is None:
            self.parting, self.parted_at = how, time.monotonic()
        if not self._gone.done():
            self._gone.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _run(self) -> None:
        try:
            await self._serve(self)
        except (ClientGone, Capped, BadMessage):
            pass
        finally:
            self.close()
            self._lost(self)

    # reading

    async def more(self) -> bool:
        """Wait for bytes; False when none will come."""
        if self._gone.done():
            return False
        self._news = self._loop.create_future()
        await self._news
        self._news = None
        return True

    async def any_bytes(self) -> None:
        """Wait until something of a next request is there, or the client has left."""
        while not self._buffer and await self.more():
            pass

    async def request(self) -> Request | None:
        """The next request with its whole body; None when the client left before one was complete."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise BadMessage("head too long")
            if not await self.more():
                return None
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        request = parse_head(head)
        if request.header("expect").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(request)
        if body is None:
            return None
        return Request(request.method, request.target, request.version, request.headers, body)

    async def _body(self, request: Request) -> bytes | None:
        if "chunked" in request.header("transfer-encoding").lower():
            return await self._chunks()
        return await self._exactly(whole_number(request.header("content-length", "0")))

    async def _chunks(self) -> bytes | None:
        body = bytearray()
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                if not await self.more():
                    return None
            size = whole_number(bytes(self._buffer[:end]).split(b";")[0].decode("latin-1"), 16)
            del self._buffer[: end + 2]
            chunk = await self._exactly(size + 2)
            if chunk is None:
                return None
            if size == 0:
                return bytes(body)
            body += chunk[:-2]
            if len(body) > self.limit_bytes:
                raise Capped

    async def _exactly(self, count: int) -> bytes | None:
        if count > self.limit_bytes:
            raise Capped
        while len(self._buffer) < count:
            if not await self.more():
                return None
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    # writing and waiting; each ends with ClientGone when the client has left, with Capped at the limit

    @property
    def gone(self) -> bool:
        """Has the client left, or the connection been closed?"""
        return self._gone.done()

    async def wait(self, awaited: asyncio.Future[Any] | None = None, seconds: float | None = None) -> None:
        """Wait for `awaited`, or `seconds`, or for ever."""
        left = self.deadline - time.monotonic()
        timeout = left if seconds is None else min(left, seconds)
        futures = {self._gone} if awaited is None else {self._gone, awaited}
        if not self._gone.done():
            await asyncio.wait(futures, timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise ClientGone
        if (awaited is None or not awaited.done()) and timeout == left:
            raise Capped

    async def breathe(self) -> None:
        """Let the loop run once, so that an endless stream still sees its client leave."""
        await asyncio.sleep(0)
        if self._gone.done():
            raise ClientGone
        if time.monotonic() > self.deadline:
            raise Capped

    async def send(self, data: bytes) -> None:
        """Write bytes as one segment (as far as TCP allows) and wait until the kernel has them."""
        if self._gone.done() or self._transport is None:
            raise ClientGone
        if self.bytes_out + len(data) > self.limit_bytes:
            raise Capped
        self._transport.write(data)
        self.bytes_out += len(data)
        if self._drained is not None:
            await self.wait(self._drained)

    def finish(self) -> None:
        """Send FIN and go on reading."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def reset(self) -> None:
        """Close with RST."""
        if self._transport is not None:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            self._transport.abort()

    def drop(self) -> None:
        """Close at once, whatever waits to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close with FIN; unsent bytes are dropped when the client has left."""
        if self._transport is not None:
            if self.parting is None:
                self._transport.close()
            else:
                self.drop()


def whole_number(text: str, base: int = 10) -> int:
    """A length as it stands in a message; raises BadMessage."""
    try:
        return int(text, base)
    except ValueError:
        raise BadMessage(f"not a length: {text[:20]}") from None


def parse_head(head: bytes) -> Request:
    """Read request line and headers, leniently; raises BadMessage."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise BadMessage(lines[0][:80])
    headers = tuple(
        (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])
    )
    return Request(parts[0], parts[1], parts[2], headers)
