"""The answer of a route that the proxy answers itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from msgspec import Struct

from arena.exchange import Headers

JSON = b"application/json; charset=utf-8"
NDJSON = b"application/x-ndjson"


class Reply(Struct, frozen=True):
    """Status, headers and body. A body of pieces is chunked; closing its iterator early means that the client has left.

    An iterator that raises after its first piece has the connection cut: what cannot be told in the body is told so.
    """

    status: int
    headers: Headers
    body: bytes | AsyncIterator[bytes] = b""


def json_reply(value: object, status: int = 200, headers: Headers | None = None) -> Reply:
    """`value` as JSON; `headers` are added to the content's own."""
    body = msgspec.json.encode(value)
    return Reply(status, [(b"content-type", JSON), *(headers or ())], body)
