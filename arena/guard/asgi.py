"""The few ASGI shapes the guard speaks, and its own complete answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from arena.errors import ArenaError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request the guard turns away: the error to show, and the headers that belong to it."""

    def __init__(self, error: ArenaError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(error.message)
        self.error = error
        self.headers = list(headers)


def error_body(error: ArenaError) -> bytes:
    """The JSON every refused caller gets; it never repeats what the caller sent."""
    return json.dumps({"error": error.message, "code": error.code}).encode()


async def answer(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers) -> None:
    """Send one complete answer."""
    start: Headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def answer_refused(send: Send, refused: Refused, headers: Headers) -> None:
    """Send a refusal as JSON, with `headers` beside its own."""
    await answer(send, refused.error.status, error_body(refused.error), b"application/json", refused.headers + headers)
