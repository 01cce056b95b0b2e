"""The routes that we answer ourselves: what is known is told at once, and for the rest a coroutine runs in a task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import lru_cache
from time import monotonic
from typing import Final

from arena.errors import ArenaError
from arena.exchange import Headers, Inbound, Sink, header_lines
from arena.proxy import headers as head
from arena.proxy.dialect import JSON, Dialect, backend_of, dialect_of, error_body, last_words, own_headers
from arena.proxy.failures import retry_headers
from arena.proxy.reply import Reply
from arena.proxy.routing import model_named

log = logging.getLogger(__name__)

OURS: Final = ("/olla/", "/internal/", "/version/")
"""What the proxy answers; whatever its dialect is, its answers have the proxy's headers."""
BUG: Final = ArenaError("An unexpected error occurred")


def turned_away(path: str, request_id: str, error: ArenaError) -> tuple[Headers, bytes] | None:
    """Headers and JSON of a refusal at the door, where no route was looked for; None where the path is not ours."""
    dialect = dialect_of(path)
    if dialect == "native" and not f"{path}/".startswith(OURS):
        return None
    ours = head.told(request_id, None, 0) + head.unrouted(backend_of(path), "none", error.code)
    ours += own_headers(dialect, request_id)
    return ours, error_body(dialect, error, request_id)


def tell(reply: Reply, inbound: Inbound, dialect: Dialect, sink: Sink, since_s: float, reason: str = "") -> None:
    """Write a `reply` whose body is whole to a request that came at `since_s`. `reason`: why it is a refusal."""
    body = reply.body
    assert isinstance(body, bytes)
    headers, lines = _head(inbound, dialect, reply.headers, since_s, reason)
    sink.start(reply.status, [*headers, (b"content-length", b"%d" % len(body))], lines)
    if inbound.method != "HEAD":
        sink.write(body)
    sink.end()


def _head(
    inbound: Inbound, dialect: Dialect, headers: Headers, since_s: float, reason: str = ""
) -> tuple[Headers, bytes]:
    """`headers` and those that every answer has, in the two forms that a sink takes."""
    request_id = inbound.caller.request_id
    seen, steady = _steady(backend_of(inbound.path), reason, *headers)
    own = (request_id.encode("ascii", "replace"), (monotonic() - since_s) * 1000)
    lines = b"%bx-olla-request-id: %b\r\nx-olla-response-time: %dms\r\n" % (steady, *own)
    return seen, lines if dialect == "native" else lines + header_lines(own_headers(dialect, request_id))


@lru_cache(256)
def _steady(backend: str, reason: str, *headers: tuple[bytes, bytes]) -> tuple[Headers, bytes]:
    """What of it many answers share: the headers that the guard looks at, and the lines of the others."""
    ours = [(b"x-olla-model", head.NONE), (b"via", head.VIA)]
    ours += head.unrouted(backend, "none", reason) if reason else head.answered(backend)
    named = [pair for pair in headers if pair[0].startswith(b"x-olla-")]
    others = [pair for pair in headers if not pair[0].startswith(b"x-olla-")]
    return others, header_lines(named + head.lacking([*headers], ours))


class Answering:
    """The session of such a route. `ended` is called once, whatever comes of it."""

    __slots__ = ("_body", "_dialect", "_ended", "_inbound", "_room", "_since_s", "_sink", "_started", "_task")

    def __init__(
        self,
        inbound: Inbound,
        dialect: Dialect,
        sink: Sink,
        ended: Callable[[Answering], object],
        body: bytes = b"",
    ) -> None:
        self._inbound = inbound
        self._body = body
        self._dialect: Dialect = dialect
        self._sink = sink
        self._ended = ended
        self._room: asyncio.Event | None = None
        self._since_s = monotonic()
        self._started = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, work: Callable[[], Awaitable[Reply]]) -> Answering:
        """Start the work."""
        self._task = asyncio.create_task(self._run(work), name="proxy answer")
        self._task.add_done_callback(self._over)
        return self

    def refuse(self, error: ArenaError, headers: Headers = []) -> None:  # noqa: B006 - never changed
        """An error is the whole answer."""
        self._started = True
        inbound, dialect = self._inbound, self._dialect
        body = error_body(dialect, error, inbound.caller.request_id)
        model = model_named(inbound.path, self._body)
        about: Headers = [(b"x-olla-model", head.header_value(model))] if model else []
        reply = Reply(error.status, [JSON, *about, *headers, *retry_headers(error)], body)
        tell(reply, inbound, dialect, self._sink, self._since_s, error.code)

    def pause(self) -> None:
        """The client is slow: no further piece is asked for."""
        if self._room is None:
            self._room = asyncio.Event()

    def resume(self) -> None:
        """The client has caught up."""
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def left(self) -> None:
        """The client has hung up: the work is cancelled, which ends what it had begun."""
        if self._task is not None:
            self._task.cancel()

    def stop(self, error: ArenaError) -> None:
        """End it for a reason of our own."""
        self.left()
        if self._started:
            self._sink.abort()
        else:
            self.refuse(error)

    async def _run(self, work: Callable[[], Awaitable[Reply]]) -> None:
        try:
            reply = await work()
        except ArenaError as error:
            self.refuse(error)
            return
        if isinstance(reply.body, bytes):
            self._started = True
            tell(reply, self._inbound, self._dialect, self._sink, self._since_s)
        else:
            await self._stream(reply, reply.body)

    async def _stream(self, reply: Reply, pieces: AsyncIterator[bytes]) -> None:
        self._started = True
        headers, lines = _head(self._inbound, self._dialect, reply.headers, self._since_s)
        self._sink.start(reply.status, [*headers], lines)
        media_type, piece = dict(reply.headers).get(b"content-type", b""), b""
        try:
            async with aclosing(pieces) as body:  # type: ignore[type-var]
                async for piece in body:
                    self._sink.write(piece)
                    if self._room is not None:
                        await self._room.wait()
        except ArenaError as error:
            log.warning("an answer of the proxy was cut: %s", error.message, extra={"code": error.code})
            self._sink.write(last_words(self._dialect, media_type, error, piece))
            self._sink.abort()
        else:
            self._sink.end()

    def _over(self, task: asyncio.Task[None]) -> None:
        """A fault of ours must not leave the client waiting."""
        self._ended(self)
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None:
            log.error("a fault in an answer of the proxy", exc_info=fault)
            if self._started:
                self._sink.abort()
            else:
                self.refuse(BUG)
