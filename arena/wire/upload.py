"""A call whose request body is written piece by piece, at the endpoint's pace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from arena.wire.call import Call, Timeouts

if TYPE_CHECKING:
    from arena.wire.connection import Connection

ANSWER_BYTES = 64 * 1024
"""How much of an answer is kept."""


class Upload(Call):
    """A POST being written. `Pool.upload()` opens and ends it; leaving before `end()` cuts the connection.

    Silence of the endpoint, its reading included, is limited by `first_byte_s`. Without a length the body is chunked.
    """

    __slots__ = ("_chunked", "_parts", "_ready", "_size_bytes")

    def __init__(self, endpoint: str, head: bytes, *, chunked: bool, timeouts: Timeouts) -> None:
        super().__init__(endpoint, "POST", (head, b""), self._keep, resend=False, timeouts=timeouts)
        self.whole = False
        self._chunked = chunked
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._ready: asyncio.Future[Connection] = self._loop.create_future()

    def attached(self, connection: Connection) -> None:
        """The head goes out on `connection` now; the body may follow."""
        super().attached(connection)
        self._ready.set_result(connection)

    async def write(self, data: bytes) -> bool:
        """Send a piece; waits while the endpoint does not keep up. False: it has answered already and wants no more.

        Raises Unreachable, UpstreamTimeout or UpstreamBroken.
        """
        return not data or await self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> tuple[int, bytes]:
        """The body is whole: (status, body) of the answer, which is cut after 64 KiB. Raises as `write()`."""
        if await self._send(b"0\r\n\r\n" if self._chunked else b""):
            self.whole = True
        await self.done
        return self.status, b"".join(self._parts)

    async def _send(self, data: bytes) -> bool:
        await self._until(self._ready)
        if self.done.done():
            self.done.result()
            return False
        self._since_s = self._loop.time()
        room = self._ready.result().write(data)
        if room is not None:
            await self._until(room)
        return True

    async def _until(self, event: asyncio.Future[Connection] | asyncio.Future[None]) -> None:
        """Wait for `event`, or for the call's end."""
        if not event.done():
            await asyncio.wait({event, self.done}, return_when=asyncio.FIRST_COMPLETED)

    def _keep(self, data: bytes) -> None:
        self._parts.append(data)
        self._size_bytes += len(data)
        if self._size_bytes >= ANSWER_BYTES:
            self.release()
