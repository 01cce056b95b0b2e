"""An ASGI server in small: calls an application in the test's own loop, reads streams line by line, and hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
DEADLINE_S = 30.0


class Cut(Exception):
    """The application has ended without the end of its answer: here a server cuts the connection."""


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[dict[str, Any]]:
        """The body as NDJSON; every line must be complete."""
        assert self.body.endswith(b"\n")
        return [json.loads(line) for line in self.body.split(b"\n")[:-1]]


@dataclass
class Exchange:
    """One request under way. `leave()` is the client hanging up."""

    incoming: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    outgoing: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    start: Message | None = None
    chunks: list[bytes] = field(default_factory=list)
    ended: bool = False
    blocked: asyncio.Event | None = None

    async def receive(self) -> Message:
        """What the application hears."""
        if not self.incoming.empty():
            return self.incoming.get_nowait()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What the application says; waits while the client does not read."""
        if self.blocked is not None and not self.left.is_set():
            await self.blocked.wait()
        self.outgoing.put_nowait(message)

    def leave(self) -> None:
        """Hang up."""
        self.left.set()
        if self.blocked is not None:
            self.blocked.set()

    async def chunk(self) -> bytes | None:
        """The next piece of the body; None at its end. Raises Cut."""
        while not self.ended:
            message = await asyncio.wait_for(self.outgoing.get(), DEADLINE_S)
            if message is None:
                self.ended = True
                if self.start is not None:
                    raise Cut
            elif message["type"] == "http.response.start":
                assert self.start is None, "two answers to one request"
                self.start = message
            else:
                self.ended = not message.get("more_body", False)
                if body := message.get("body", b""):
                    self.chunks.append(body)
                    return bytes(body)
        return None

    async def answer(self) -> Answer:
        """Everything, once it is complete."""
        while await self.chunk() is not None:
            pass
        assert self.start is not None, "no answer"
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in self.start["headers"]}
        return Answer(self.start["status"], headers, b"".join(self.chunks))


class Client:
    """Calls `app` as a client on localhost would."""

    def __init__(self, app: App) -> None:
        self.app = app

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Headers = (JSON_TYPE,), *, complete: bool = True
    ) -> AsyncIterator[Exchange]:
        """A request under way, its body in two pieces; leaving the block hangs up and waits for the application."""
        exchange = Exchange()
        half = len(body) // 2
        exchange.incoming.put_nowait({"type": "http.request", "body": body[:half], "more_body": True})
        exchange.incoming.put_nowait({"type": "http.request", "body": body[half:], "more_body": not complete})
        task = asyncio.ensure_future(self._run(_scope(method, path, headers), exchange))
        try:
            yield exchange
        finally:
            exchange.leave()
            await asyncio.wait_for(asyncio.shield(task), DEADLINE_S)

    async def call(self, method: str, path: str, body: bytes = b"", headers: Headers = (JSON_TYPE,)) -> Answer:
        """One request and its whole answer."""
        async with self.request(method, path, body, headers) as exchange:
            return await exchange.answer()

    async def get(self, path: str) -> Answer:
        """GET `path`."""
        return await self.call("GET", path, headers=())

    async def post(self, path: str, value: Any) -> Answer:
        """POST `value` as JSON."""
        return await self.call("POST", path, json.dumps(value).encode())

    def open(self, path: str, value: Any) -> Any:
        """POST `value` as JSON and read the answer as it comes."""
        return self.request("POST", path, json.dumps(value).encode())

    async def _run(self, scope: Message, exchange: Exchange) -> None:
        try:
            await self.app(scope, exchange.receive, exchange.send)
        finally:
            exchange.outgoing.put_nowait(None)


@asynccontextmanager
async def started(app: App) -> AsyncIterator[Client]:
    """`app` between its start and its stop."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, incoming.get, outgoing.put)
    )
    incoming.put_nowait({"type": "lifespan.startup"})
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"
    try:
        yield Client(app)
    finally:
        incoming.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait_for(task, DEADLINE_S)


def _scope(method: str, target: str, headers: Headers) -> Message:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost:7860"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 7860),
        "state": {},
    }
