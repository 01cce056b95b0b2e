"""HTTP as the engine speaks it: answers that end when their client leaves, errors in its dialect, the guard."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arena.endings import finished
from arena.errors import ArenaError, BadRequest, PayloadTooLarge

MAX_BODY_BYTES = 64 * 1024 * 1024
JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

T = TypeVar("T")


class Unsupported(ArenaError):
    """Ollama can do this, the engine cannot; the message says what can be done instead."""

    status = 501
    default_code = "not_supported"


class Dialect:
    """How a family of routes tells errors: Ollama's way. OpenAI's is a subclass."""

    def body(self, error: ArenaError) -> bytes:
        """The whole body of a response that failed before its first byte."""
        return msgspec.json.encode({"error": error.message})

    def line(self, error: ArenaError) -> bytes:
        """The last piece of a stream that failed on its way."""
        return self.body(error) + b"\n"


class Reply:
    """The response being sent. Nothing goes out before `start`; so an early error still gets its own status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def start(self, content_type: str, status: int = 200) -> None:
        """Send status and headers."""
        self.started = True
        headers = [(b"content-type", content_type.encode()), (b"x-content-type-options", b"nosniff")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def json(self, value: Any, status: int = 200) -> None:
        """Send a whole JSON document."""
        await self.start(JSON, status)
        await self.end(msgspec.json.encode(value))


Work = Callable[[Request, Reply], Awaitable[None]]


class Attended(Response):
    """A response whose work is cancelled as soon as the client leaves, whatever it is waiting for."""

    def __init__(self, work: Work, dialect: Dialect) -> None:
        super().__init__()
        self._work = work
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the work and watch the connection; returns when the work has ended, one way or the other."""
        reply = Reply(send)
        body = await read_body(receive)
        request = Request(scope, _once(body, receive))
        working = asyncio.create_task(self._guarded(request, reply))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            working.cancel()  # does nothing to finished work
            await finished({working, leaving})
        if not working.cancelled():
            working.result()

    async def _guarded(self, request: Request, reply: Reply) -> None:
        try:
            await self._work(request, reply)
        except ArenaError as error:
            if reply.started:
                await reply.end(self._dialect.line(error))
            else:
                await reply.start("application/json", error.status)
                await reply.end(self._dialect.body(error))


def attended(work: Work, dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for Starlette that runs `work` attended."""

    async def endpoint(request: Request) -> Response:
        return Attended(work, dialect)

    return endpoint


async def decoded(request: Request, kind: type[T]) -> T:
    """The request's body as `kind`, whatever its content type says. Raises BadRequest, PayloadTooLarge."""
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"the request body is over {MAX_BODY_BYTES} bytes")
    if not body.strip():
        raise BadRequest("missing request body")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"invalid request body: {error}") from None


async def read_body(receive: Receive) -> bytes:
    """The whole request body; what is over the limit is read, but only one byte of it is kept."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        if size <= MAX_BODY_BYTES:
            parts.append(part[: MAX_BODY_BYTES + 1 - size])
            size += len(parts[-1])
        if not message.get("more_body", False):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Guard:
    """Lets in only requests that a program of this machine sends to this machine by its own name.

    A web page of another site can reach loopback through the browser; its Origin, or the Host of a rebound name,
    gives it away. Answers 403 with an empty body, as Ollama does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not _trusted(scope["headers"]):
            await Response(status_code=403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _trusted(headers: list[tuple[bytes, bytes]]) -> bool:
    named: Mapping[bytes, bytes] = dict(headers)
    host, origin = named.get(b"host", b""), named.get(b"origin")
    if not _is_loopback(f"//{host.decode('latin-1')}"):
        return False
    if named.get(b"sec-fetch-site") == b"cross-site":
        return False
    return origin is None or _is_loopback(origin.decode("latin-1"))


def _is_loopback(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
