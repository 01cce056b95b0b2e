"""What is written to a sink, carried over ASGI: for every server but our own, and for what our own does not take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arena.api import errors
from arena.api.body import ClientLeft, read
from arena.api.stream import ClientWatch
from arena.exchange import Begin, Caller, Headers, Inbound, Session, Sink, headers_in

UNGUARDED = Caller(address="", counted_as="", request_id="")

PRESSURE_BYTES = 256 * 1024
"""How much may wait for the client before the session is paused."""

Dress = Callable[[Headers], Headers]
"""Makes of an answer's headers those it leaves with."""


class AsgiSink:
    """Collects what is written until the server takes it. What `start` is told of the headers goes through `dress`."""

    __slots__ = (
        "_cut", "_dress", "_fresh", "_head", "_left", "_parts", "_paused", "_size", "_waiter",
        "begun", "ended", "session",
    )  # fmt: skip

    def __init__(self, dress: Dress | None = None) -> None:
        self.session: Session | None = None
        self.begun = self.ended = self._cut = self._left = self._paused = self._fresh = False
        self._dress = dress
        self._head: tuple[int, Headers] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Begin the answer; it goes out with the first piece of its body."""
        if self._dress is not None:
            headers = self._dress(headers)
        self._head = (status, headers + headers_in(lines))

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        self._parts.append(data)
        self._size += len(data)
        self._wake()
        if self._size > PRESSURE_BYTES and not self._paused and self.session is not None:
            self._paused = True
            self.session.pause()

    def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The answer is whole; most servers have no way to send `trailers`."""
        self.ended = True
        self._wake()

    def abort(self) -> None:
        """The answer will never be whole; one of which there is nothing yet says so."""
        if self._head is None:
            respond(self, errors.bug())
            return
        self.ended = self._cut = True
        self._wake()

    def client_left(self) -> None:
        """Nobody waits for the answer any more."""
        session, self.session = self.session, None
        if session is not None and not self.ended:
            session.left()
        self.ended = self._left = True
        self._wake()

    async def news(self) -> None:
        """Wait until there is more to send, or nobody to send it to."""
        if not self._fresh:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None

    async def flush(self, send: Send) -> bool:
        """Send all that is ready; is that the end?

        An answer that is cut has no last message: a server then cuts the connection, so that the client sees it, with
        one line in its log, where for an exception it would write a traceback.
        """
        if self._left:
            return True
        ready, self._parts, self._size = self._parts, [], 0
        ended, cut, self._fresh = self.ended, self._cut, False  # what comes while the server takes this, comes next
        if (ready or ended) and self._head is not None:
            if not self.begun:
                self.begun = True
                status, headers = self._head
                await send({"type": "http.response.start", "status": status, "headers": headers})
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            await send({"type": "http.response.body", "body": data, "more_body": cut or not ended})
        if self._paused and not self.ended and self.session is not None:
            self._paused = False
            self.session.resume()
        return ended

    def _wake(self) -> None:
        self._fresh = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def answer(begin: Begin, inbound: Inbound, receive: Receive, send: Send, dress: Dress) -> None:
    """Read the request's body and have `begin` answer, past every router."""
    try:
        body = await read(receive)
    except ClientLeft:
        return
    await carry(begin, inbound, body, receive, send, dress)


async def carry(
    begin: Begin, inbound: Inbound, body: bytes, receive: Receive, send: Send, dress: Dress | None = None
) -> None:
    """Have `begin` answer over ASGI; `receive` must have been read to the end of the body.

    A fault of ours is raised, after an answer that says no more than that there was one.
    """
    sink = AsgiSink(dress)
    client: ClientWatch | None = None
    try:
        sink.session = begin(inbound, body, sink)
        if not sink.ended:  # what is whole at once needs nobody to watch the client
            client = ClientWatch(receive, sink.client_left)
        while not await sink.flush(send):
            await sink.news()
    except Exception:  # the border: whatever it was, this client gets an answer, and the server hears of it
        if not sink.begun:
            fault = AsgiSink(dress)
            respond(fault, errors.bug())
            await fault.flush(send)
        raise
    finally:
        sink.client_left()
        if client is not None:
            client.stop()


def inbound_of(scope: Scope) -> Inbound:
    """The request in `scope`, with the caller as the guard noted it there."""
    path, query = scope["path"], scope["query_string"]
    return Inbound(scope["method"], path, query, scope["headers"], scope.get("arena.caller", UNGUARDED))


def respond(sink: Sink, response: Response) -> None:
    """Write a whole response."""
    sink.start(response.status_code, list(response.raw_headers))
    sink.write(bytes(response.body))
    sink.end()
