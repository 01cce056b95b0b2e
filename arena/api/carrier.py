"""What is written to a sink, carried over ASGI: for every server but our own, and for what our own does not take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arena.api.stream import ClientWatch
from arena.exchange import Begin, Caller, Headers, Inbound, Session, Sink, headers_in

UNGUARDED = Caller(address="", counted_as="", request_id="")

PRESSURE_BYTES = 256 * 1024
"""How much may wait for the client before the session is paused."""


class AnswerCut(Exception):
    """The answer cannot be completed: the server is to cut the connection, so that the client sees it."""


class AsgiSink:
    """Collects what is written until the server takes it."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.head: tuple[int, Headers] | None = None
        self.trailers: Headers = []
        self.ended = self.cut = False
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = False
        self._news = asyncio.Event()

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Begin the answer."""
        self.head = (status, headers + headers_in(lines))
        self._news.set()

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        self._parts.append(data)
        self._size += len(data)
        self._news.set()
        if self._size > PRESSURE_BYTES and not self._paused and self.session is not None:
            self._paused = True
            self.session.pause()

    def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The answer is whole."""
        self.ended = True
        self.trailers = list(trailers)
        self._news.set()

    def abort(self) -> None:
        """The answer will never be whole."""
        self.ended = self.cut = True
        self._news.set()

    def client_left(self) -> None:
        """Nobody waits for the answer any more."""
        session, self.session = self.session, None
        if session is not None and not self.ended:
            session.left()
        self.ended = True
        self._news.set()

    async def news(self) -> bytes:
        """Wait for what comes next; returns all of the body that is ready."""
        await self._news.wait()
        self._news.clear()
        ready, self._parts, self._size = b"".join(self._parts), [], 0
        return ready

    def taken(self) -> None:
        """The server has taken all that was ready."""
        if self._paused and self.session is not None and not self.ended:
            self._paused = False
            self.session.resume()


async def carry(begin: Begin, inbound: Inbound, body: bytes, receive: Receive, send: Send) -> None:
    """Have `begin` answer over ASGI; `receive` must have been read to the end of the body. Raises AnswerCut."""
    sink = AsgiSink()
    sink.session = begin(inbound, body, sink)
    client = ClientWatch(receive, sink.client_left)
    started = False
    try:
        while True:
            ready = await sink.news()
            if client.left:
                return
            if sink.head is not None and not started and (ready or sink.ended):
                started = True
                status, headers = sink.head
                await send({"type": "http.response.start", "status": status, "headers": headers})
            if started and (ready or sink.ended):
                await send({"type": "http.response.body", "body": ready, "more_body": sink.cut or not sink.ended})
            if sink.cut:
                raise AnswerCut
            if sink.ended:
                return
            del ready  # an answer that waits holds no text
            sink.taken()
    finally:
        sink.client_left()
        await client.aclose()


def inbound_of(scope: Scope) -> Inbound:
    """The request in `scope`, with the caller as the guard noted it there."""
    path, query = scope["path"], scope["query_string"]
    return Inbound(scope["method"], path, query, scope["headers"], scope.get("arena.caller", UNGUARDED))


def respond(sink: Sink, response: Response) -> None:
    """Write a whole response."""
    sink.start(response.status_code, list(response.raw_headers))
    sink.write(bytes(response.body))
    sink.end()
