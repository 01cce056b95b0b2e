"""A call whose body is taken block by block, when its reader wants more."""

from __future__ import annotations

import asyncio

from arena.wire.answer import Headers
from arena.wire.call import Call

HELD_BYTES = 256 * 1024
"""How much may lie here untaken before the endpoint is paused."""


class Stream:
    """An answer as an asynchronous iterator over its body, each block being all that has come since the last.

    It ends when the answer is complete, or raises as `Call.done` does, after the last bytes that came. `Pool.stream()`
    opens and ends it.
    """

    __slots__ = ("_held_bytes", "_news", "_parts", "call")

    call: Call

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._news = asyncio.Event()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.call.status

    @property
    def headers(self) -> Headers:
        """The answer's headers, with lower-case names."""
        return self.call.headers

    def take(self, data: bytes) -> None:
        """Keep what the call hands over, and pause it while too much lies here."""
        self._parts.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_BYTES:
            self.call.pause()
        self._news.set()

    def ended(self, _: asyncio.Future[None]) -> None:
        """The call has ended, one way or the other."""
        self._news.set()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self.call.done.done():
                self.call.done.result()
                raise StopAsyncIteration
            await self._news.wait()
            self._news.clear()
        block = b"".join(self._parts)
        self._parts.clear()
        self._held_bytes = 0
        self.call.resume()
        return block

    async def whole(self) -> bytes:
        """All that is left of the body, however much that is."""
        return b"".join([block async for block in self])
