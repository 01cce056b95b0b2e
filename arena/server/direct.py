"""An answer written straight to its connection, past ASGI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from arena.exchange import Begin, Direct, Headers, Session, header_lines
from arena.server.refusal import BUG

if TYPE_CHECKING:
    from arena.server.protocol import LimitedProtocol

log = logging.getLogger(__name__)

BODYLESS: Final = (204, 304)
LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Exchange(Struct, eq=False):
    """One request and its answer, in the place where uvicorn keeps its cycle: it has those attributes of it that
    uvicorn's protocol and ours look at. To the application it is the connection that an answer is written to.
    """

    _connection: LimitedProtocol
    _begin: Begin
    scope: dict[str, Any]
    keep_alive: bool
    body: bytes = b""
    disconnected: bool = False
    response_started: bool = False
    response_complete: bool = False
    dress: Callable[[Headers], bytes] | None = None
    over: Callable[[], object] | None = None
    status: int = 0
    request_id: str = ""
    _session: Session | None = None
    _head: bytes = b""
    _chunked: bool = False

    __repr__ = object.__repr__  # what a request holds is not for the log

    # what the connection tells

    def begin(self, application: Direct) -> None:
        """The request is here: have it answered. A fault of the application is logged and answered with 500."""
        try:
            session = application.carry(self._begin, self.scope, self.body, self)
        except Exception:  # the border: whatever it was, this client gets an answer and the others are not disturbed
            log.exception("a request failed")
            self._fail()
            return
        self.body = b""  # whoever still needs it keeps it
        if not self.response_complete:
            self._session = session

    @property
    def message_event(self) -> Exchange:
        """What uvicorn sets when there is news for its cycle."""
        return self

    def set(self) -> None:
        """There is news: the only one that matters is that the client has hung up."""
        if self.disconnected:
            self._leave()

    def pause(self) -> None:
        """The client does not keep up."""
        if self._session is not None:
            self._session.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._session is not None:
            self._session.resume()

    # what the application writes

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Begin the answer; it goes out with the first piece of its body."""
        if self.response_complete:
            return
        self.status = status
        own = header_lines(headers) if self.dress is None else self.dress(headers)
        first = LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        head = b"".join([first, self._connection.state.common_lines, own])
        self._chunked = status not in BODYLESS and b"\r\ncontent-length: " not in head
        if self._chunked:
            lines += b"transfer-encoding: chunked\r\n"
        if not self.keep_alive:
            lines += b"connection: close\r\n"
        self._head = b"%b%b\r\n" % (head, lines)

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if self.response_complete or not data:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            data = self._head + data
            self._head = b""
            self.response_started = True
        self._connection.transport.write(data)

    def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The answer is whole."""
        if self.response_complete:
            return
        last = self._head
        if self._chunked:
            last += b"0\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in trailers) + b"\r\n"
        if last:
            self._connection.transport.write(last)
        self._close()
        self._connection.direct_answer_complete(self)

    def abort(self) -> None:
        """Cut the connection once all that was written is out: the client sees that the answer is not whole."""
        if not self.response_complete:
            self.keep_alive = False
            self._close()
            self._connection.direct_answer_complete(self)

    def _fail(self) -> None:
        if self.response_started:
            self.abort()
            return
        wording = self._connection.state.wording
        headers, text = wording.refusal(self.scope["path"], BUG.status, BUG.message, BUG.code)
        self.keep_alive, self.dress = False, None
        self.start(BUG.status, [*headers, (b"content-length", b"%d" % len(text))])
        self.write(text)
        self.end()

    def _leave(self) -> None:
        session = self._session
        if not self.response_complete:
            self._close()
            if session is not None:
                session.left()

    def _close(self) -> None:
        self.response_complete = True
        self._session, self._head = None, b""
        over, self.over = self.over, None
        if over is not None:
            over()
