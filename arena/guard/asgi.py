"""The few ASGI shapes the guard speaks, and its own complete answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from arena.errors import ArenaError
from arena.exchange import Begin, Headers, Inbound

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Carrier = Callable[[Begin, Inbound, Receive, Send, Callable[[Headers], Headers]], Awaitable[None]]
"""Has `Begin` answer the request whose body is still to be received; the headers go through the last one."""


class Refused(Exception):
    """A request the guard turns away: the error to show, and the headers that belong to it."""

    def __init__(self, error: ArenaError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(error.message)
        self.error = error
        self.headers = list(headers)


Told = Callable[[str, str, ArenaError], tuple[Headers, bytes] | None]
"""How clients of a path want to be told of an error, under the id of their request: further headers, and the body."""


def error_body(error: ArenaError) -> bytes:
    """The JSON that refused callers get where nothing else is said; it never repeats what the caller sent."""
    return json.dumps({"error": error.message, "code": error.code}).encode()


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send one complete answer; its length is added to `headers`."""
    start: Headers = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
