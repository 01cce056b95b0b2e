"""What the proxy's own routes stand on, over fake servers: a fleet, settings, requests as they come in."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from arena.exchange import Caller, Headers, Inbound
from arena.fleet import EndpointSpec, Fleet, FleetSpec
from arena.proxy.reply import Action, Known, Reply
from arena.settings import Settings, load
from arena.types import EndpointKind
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama

LIMITS = Timeouts(connect_s=2, first_byte_s=5, idle_s=5)


class Ground:
    """A fleet with its settings, and a way to ask an action of it."""

    def __init__(self, fleet: Fleet, settings: Settings, fakes: dict[str, FakeOllama]) -> None:
        self.fleet = fleet
        self.settings = settings
        self.fakes = fakes
        self.models: tuple[str, ...] | None = None

    def __getitem__(self, name: str) -> FakeOllama:
        return self.fakes[name]

    async def ask(
        self,
        action: Action,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
    ) -> Answer:
        """The whole answer to a request under /olla/ollama (or at a path that begins with /olla/)."""
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await whole(await action(self, self.inbound(method, path, query, headers), sent))

    def told(self, known: Known, path: str, *, query: str = "", headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """The whole answer to a GET, out of what is known."""
        reply = known(self, self.inbound("GET", path, query, headers))
        assert reply is not None
        assert isinstance(reply.body, bytes)
        return Answer(reply.status, reply.headers, reply.body)

    def inbound(self, method: str, path: str, query: str = "", headers: Iterable[tuple[str, str]] = ()) -> Inbound:
        """A request that was let in."""
        raw: Headers = [(name.lower().encode(), value.encode()) for name, value in headers]
        caller = Caller("127.0.0.1", "127.0.0.1", "r1", models=self.models)
        full = path if path.startswith("/olla/") else f"/olla/ollama{path}"
        return Inbound(method, full, query.encode(), raw, caller)


class Answer:
    """A whole reply."""

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}
        assert len(self.headers) == len(headers), "a header came twice"
        self.body = body

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The body as lines of JSON."""
        assert self.body.endswith(b"\n")
        return [json.loads(line) for line in self.body.split(b"\n")[:-1]]


async def whole(reply: Reply) -> Answer:
    """All of a reply."""
    if isinstance(reply.body, bytes):
        return Answer(reply.status, reply.headers, reply.body)
    return Answer(reply.status, reply.headers, b"".join([piece async for piece in reply.body]))


@asynccontextmanager
async def grounds(
    models: dict[str, list[str]],
    *,
    kinds: dict[str, EndpointKind] | None = None,
    specs: dict[str, dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    **fleet_settings: Any,
) -> AsyncGenerator[Ground, None]:
    """A fleet of fake servers, one for each name, with these models; every endpoint has been heard."""
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeOllama(models=held)) for name, held in models.items()}
        endpoints = tuple(
            EndpointSpec(
                name=name,
                url=fake.url,
                type=(kinds or {}).get(name, "ollama"),
                timeouts=LIMITS,
                **(specs or {}).get(name, {}),
            )
            for name, fake in fakes.items()
        )
        fleet = Fleet(spec=FleetSpec(endpoints=endpoints, **fleet_settings))
        stack.push_async_callback(fleet.aclose)
        await fleet.statuses()
        yield Ground(fleet, load(engine="off", **(settings or {})), fakes)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A body as it comes in."""
    for part in parts:
        yield part


def asked(server: FakeOllama, path: str) -> list[Any]:
    """The bodies of the requests to `path`, in order."""
    return [record.body for record in server.log if record.path == path]
