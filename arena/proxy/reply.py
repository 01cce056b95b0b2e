"""What a route is that the proxy answers itself: functions from a request to a reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from arena.exchange import Headers, Inbound
from arena.fleet import Fleet
from arena.settings import Settings

JSON = b"application/json; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"
NDJSON = b"application/x-ndjson"


class Reply(Struct, frozen=True):
    """Status, headers and body. A body of pieces is chunked; closing its iterator early means that the client has left.

    An iterator that raises after its first piece has the connection cut: what cannot be told in the body is told so.
    Headers may hold x-olla-endpoint, -model and -backend-type; those that every answer has are added by the carrier,
    which also leaves the body out where the method was HEAD.
    """

    status: int
    headers: Headers
    body: bytes | AsyncIterator[bytes] = b""


class Surroundings(Protocol):
    """What an action may use of the proxy it belongs to."""

    @property
    def fleet(self) -> Fleet: ...
    @property
    def settings(self) -> Settings: ...


Known = Callable[[Surroundings, Inbound], Reply | None]
"""Answers at once with a whole body, out of what is in memory; None where hosts must be asked. Raises ArenaError.

The same `Reply` may be returned to many requests: nobody changes it.
"""

Action = Callable[[Surroundings, Inbound, bytes], Awaitable[Reply]]
"""Answers a request whose body is there. Raises ArenaError for what its caller tells in the dialect of the route."""

Upload = Callable[[Surroundings, Inbound, AsyncIterator[bytes]], Awaitable[Reply]]
"""The same for a body of any size, in pieces. The iterator raises when the client leaves before the body's end."""


def json_reply(value: object, status: int = 200, headers: Headers | None = None) -> Reply:
    """`value` as JSON; `headers` are added to the content's own."""
    body = msgspec.json.encode(value)
    return Reply(status, [(b"content-type", JSON), *(headers or ())], body)
