"""HTTP to a runner on loopback: one connection a request, cut at once when the caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httptools

READ_BYTES = 64 * 1024


class Gone(ConnectionError):
    """The runner closed the connection before its answer was complete, or does not accept one."""


class Answer:
    """One response as it arrives. Use as httptools' receiver of events, too."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._blocks: list[bytes] = []
        self._headers_complete = False
        self._complete = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self._parser.get_status_code())

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._headers_complete = True

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._blocks.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._complete = True

    async def head(self) -> None:
        """Wait for status and headers. Raises Gone."""
        while not self._headers_complete:
            await self._receive()

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """The body in the pieces in which it arrives. Raises Gone when it ends too early."""
        while True:
            if self._blocks:
                block, self._blocks = b"".join(self._blocks), []
                yield block
            elif self._complete:
                return
            else:
                await self._receive()

    async def body(self) -> bytes:
        """The whole body. Raises Gone when it ends too early."""
        return b"".join([block async for block in self.blocks()])

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(READ_BYTES)
            if data:
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            raise Gone(str(error)) from None
        if not data:
            raise Gone("unexpected EOF")


@asynccontextmanager
async def request(port: int, key: str, method: str, path: str, body: bytes = b"") -> AsyncIterator[Answer]:
    """Send one request and wait for its head; leaving the block closes the connection at once. Raises Gone."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES)
    except OSError as error:
        raise Gone(str(error)) from None
    try:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = Answer(reader)
        await answer.head()
        yield answer
    finally:
        # abort, not close: the runner must notice now, not when its buffers have drained
        writer.transport.abort()


async def fetch(port: int, key: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request with a short answer: its status and body. Raises Gone."""
    async with request(port, key, method, path, body) as answer:
        return answer.status, await answer.body()
