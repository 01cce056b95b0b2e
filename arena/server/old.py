"""Answers to clients of HTTP/1.0, which know no chunks: such an answer ends with its connection (RFC 9112, 6.1)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# close at once, and throw away what is not delivered
_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
CHUNKED_ONLY: Final = (b"trailer", b"transfer-encoding")
"""Headers that mean something only where there are chunks."""


def end_in_reset(transport: asyncio.BaseTransport) -> None:
    """Have the connection broken off where `transport` would close it: a client sees that this is not the whole."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):  # some systems take no options of a connection that its peer has broken off
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def unchunked(app: ASGI3Application, current: Callable[[], RequestResponseCycle]) -> ASGI3Application:
    """`app` for one request of HTTP/1.0, `current` telling its cycle: what has no length is sent as it is.

    uvicorn would write chunks, whatever the version. It closes the connection after such a request by itself, which is
    the end of the answer; one that is never whole ends in a reset.
    """

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        cycle = current()
        endless = False

        async def sent(message: ASGISendEvent) -> None:
            nonlocal endless
            told: Any = message
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() not in CHUNKED_ONLY]
                endless = all(name.lower() != b"content-length" for name, _ in headers)
                if endless:
                    cycle.chunked_encoding = False
                told = {**message, "headers": headers}
            elif endless:
                cycle.expected_content_length = len(told.get("body", b""))
            await send(told)

        try:
            await app(scope, receive, sent)
        finally:
            if endless and not (cycle.response_complete or cycle.disconnected):
                end_in_reset(cycle.transport)

    return answer
