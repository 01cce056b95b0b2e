"""The border between a connection and whoever answers on it: what came in, and the place where the answer goes. No I/O.

Two carriers stand on the server's side of it, the connection itself and an ASGI adapter; behind it everything is push:
nobody waits, a slow client pauses the session, and a client that leaves ends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from msgspec import Struct

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, in order; a name may come twice."""


SHARED: Final = "arena.head"
"""In a scope: a dict that all requests with the same head share, for what the head alone decides."""


class Caller(Struct, frozen=True):
    """Who asks, as the guard found out.

    `address` is where the caller sits (behind trusted proxies: the true one), `counted_as` under which key it is
    counted, `key` the named key it came with ("" for the one token, a session, or an open arena), `models` what that
    key may use (None: all), and `visitor` the name that its browser was given ("" where it has none). `peer` is the
    other end of the connection, where that is not `address`: a trusted proxy, or one of the many of an IPv6 network.
    `forwarded_host` is what the client asked a trusted proxy for, by the word of that.
    """

    address: str
    counted_as: str | bytes
    request_id: str
    https: bool = False
    key: str = ""
    models: tuple[str, ...] | None = None
    visitor: str = ""
    peer: str = ""
    forwarded_host: bytes = b""

    @property
    def voter(self) -> str:
        """Under which name the caller votes: its key's, its browser's, else the session or address it is counted as."""
        if self.visitor and not self.key:
            return f"visitor {self.visitor}"
        return self.counted_as.hex() if isinstance(self.counted_as, bytes) else self.counted_as


class Inbound(Struct, frozen=True):
    """One request that was let in. `path` is decoded and without the prefix of a reverse proxy."""

    method: str
    path: str
    query: bytes
    headers: Headers
    caller: Caller


class Refusals:
    """What was turned away at the door since the start, by the code of its error; `held` tells how many must wait."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.held: Callable[[], int] = lambda: 0


class Sink(Protocol):
    """Where an answer goes. Nothing here waits: a client that is slow pauses the session instead.

    Without a content-length among the headers the body is chunked, and only then there may be trailers.
    """

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """Begin the answer; once. It goes out with the first piece of its body.

        `lines` are more headers, written out already, that nobody on the way has to look at: neither of them tells of
        the body, nor has it a name that the guard gives or takes away.
        """

    def write(self, data: bytes) -> None:
        """A piece of the body, sent with everything else of this turn of the loop."""

    def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The answer is whole."""

    def abort(self) -> None:
        """Cut the connection: the client must see that the answer is not whole."""


def header_lines(headers: Headers) -> bytes:
    """`headers` as they stand in a head."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def headers_in(lines: bytes) -> Headers:
    """The headers in `lines` as `Sink.start()` takes them."""
    pairs = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in pairs]


class Session(Protocol):
    """The work on one answer, as the connection sees it. After its sink has ended, none of these is called."""

    def pause(self) -> None:
        """The client does not keep up: read no more for it."""

    def resume(self) -> None:
        """The client has caught up."""

    def left(self) -> None:
        """The client has hung up: free everything that works for it, now."""


Begin = Callable[[Inbound, bytes, Sink], Session | None]
"""Starts to answer a whole request. None: the answer is out already, or nothing is left to be told of the client."""


class Connection(Sink, Protocol):
    """The sink of a server: the guard dresses the headers that leave on it, and hears when the exchange is over.

    `dress` returns what leaves of an answer's headers, written out; `request_id` is for the log.
    """

    request_id: str
    dress: Callable[[Headers], bytes] | None
    over: Callable[[], object] | None


@runtime_checkable
class Direct(Protocol):
    """An application that answers some requests straight on the connection, past ASGI, with the same checks."""

    def direct(self, method: str, path: str) -> Begin | None:
        """What answers this request, by the head of it, if it is one of those.

        It is asked once about a head: what it returns may be called again, for requests whose heads are the same but
        for the length of the body.
        """

    def carry(self, begin: Begin, scope: dict[str, Any], body: bytes, connection: Connection) -> Session | None:
        """Check a whole request and have it answered; `scope` holds of an ASGI scope what tells target and client."""
