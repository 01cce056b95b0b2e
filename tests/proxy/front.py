"""The proxy in front of fake servers, with a sink that keeps what it is told: no server, no sockets on this side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from arena.exchange import Caller, Headers, Inbound, Session, headers_in
from arena.fleet import EndpointSpec, Fleet, FleetSpec
from arena.proxy import Proxy
from arena.settings import load
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama, Record

DEADLINE_S = 30.0
LIMITS = Timeouts(connect_s=2, first_byte_s=5, idle_s=5)
CHAT = "/olla/ollama/api/chat"
CALLER = Caller("127.0.0.1", "127.0.0.1", "r-1")
HELLO = [{"role": "user", "content": "Hello!"}]


class Taken:
    """One answer as a client would have it. `over` is set when it has ended or was cut."""

    def __init__(self) -> None:
        self.status = 0
        self.raw_headers: Headers = []
        self.parts: list[bytes] = []
        self.trailers: dict[str, str] = {}
        self.ended = self.cut = False
        self.over = asyncio.Event()
        self.news = asyncio.Event()
        self.session: Session | None = None

    def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        """The answer begins."""
        assert not self.status, "two answers"
        self.status, self.raw_headers = status, headers + headers_in(lines)
        self.news.set()

    def write(self, data: bytes) -> None:
        """A piece of it."""
        assert self.status, "a body without a head"
        assert not self.over.is_set(), "a body after the end"
        self.parts.append(data)
        self.news.set()

    def end(self, trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """It is whole."""
        assert not self.over.is_set(), "a second end"
        self.ended = True
        self.trailers = {name.decode(): value.decode() for name, value in trailers}
        self.over.set()
        self.news.set()

    def abort(self) -> None:
        """It is cut."""
        assert not self.over.is_set(), "cut after the end"
        self.cut = True
        self.over.set()
        self.news.set()

    @property
    def headers(self) -> dict[str, str]:
        """Its headers; none may come twice."""
        found = {name.decode(): value.decode() for name, value in self.raw_headers}
        assert len(found) == len(self.raw_headers), "a header came twice"
        return found

    @property
    def body(self) -> bytes:
        """All of its body so far."""
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The body as lines of JSON, all of them whole."""
        assert self.body.endswith(b"\n")
        return [json.loads(line) for line in self.body.split(b"\n")[:-1]]

    async def until(self, text: bytes) -> None:
        """Wait until the body holds `text`."""
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.body:
                assert not self.over.is_set(), self.body[-200:]
                self.news.clear()
                await self.news.wait()


class Front:
    """The proxy before a fleet, and a way to ask."""

    def __init__(self, fleet: Fleet, fakes: dict[str, FakeOllama]) -> None:
        self.fleet = fleet
        self.fakes = fakes
        self.settled = asyncio.Event()
        self.proxy = Proxy(fleet, load(engine="off"), settled=self._settled)

    async def _settled(self) -> None:
        await self.settled.wait()

    def __getitem__(self, name: str) -> FakeOllama:
        return self.fakes[name]

    @property
    def clean(self) -> bool:
        """Is nothing running or held any more?"""
        leases = sum(endpoint.in_flight for endpoint in self.fleet.endpoints)
        return not self.proxy.running and not leases and not self.fleet.queue.waiting

    def begin(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        query: bytes = b"",
        caller: Caller = CALLER,
    ) -> Taken:
        """Start to ask."""
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        raw: Headers = [(b"host", b"arena.example:7860")]
        raw += [(name.lower().encode(), value.encode()) for name, value in headers]
        taken = Taken()
        taken.session = self.proxy.begin(Inbound(method, path, query, raw, caller), sent, taken)
        return taken

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Taken:
        """The whole answer."""
        taken = self.begin(method, path, body, **more)
        async with asyncio.timeout(DEADLINE_S):
            await taken.over.wait()
        return taken

    def begin_chat(self, model: str, path: str = CHAT, **more: Any) -> Taken:
        """Start a chat."""
        headers = more.pop("headers", ())
        return self.begin("POST", path, {"model": model, "messages": HELLO, **more}, headers=headers)

    async def chat(self, model: str, path: str = CHAT, **more: Any) -> Taken:
        """The whole answer to a chat."""
        headers = more.pop("headers", ())
        return await self.ask("POST", path, {"model": model, "messages": HELLO, **more}, headers=headers)


@asynccontextmanager
async def front(
    *hosts: str,
    models: Sequence[str] = ("tiny",),
    each: Mapping[str, Sequence[str]] = {},
    urls: Mapping[str, str] = {},
    limits: Timeouts = LIMITS,
    specs: Mapping[str, Mapping[str, Any]] = {},
    **fleet_settings: Any,
) -> AsyncGenerator[Front, None]:
    """The proxy before fake `hosts` with `models` (or with what `each` says), and servers at `urls`, which are openai.

    `specs` are further settings of endpoints by name. Afterwards nothing of any request may be left.
    """
    async with AsyncExitStack() as stack:
        held = {name: list(each.get(name, models)) for name in hosts}
        fakes = {name: await stack.enter_async_context(FakeOllama(models=names)) for name, names in held.items()}
        defaults = {"timeouts": limits, "check_interval_s": 0}
        found = {
            **{name: {"url": fake.url} for name, fake in fakes.items()},
            **{name: {"url": url, "type": "openai"} for name, url in urls.items()},
        }
        endpoints = tuple(
            EndpointSpec(**{"name": name, **defaults, **known, **specs.get(name, {})}) for name, known in found.items()
        )
        fleet = Fleet(spec=FleetSpec(endpoints=endpoints, **fleet_settings))
        stack.push_async_callback(fleet.aclose)
        await fleet.statuses()
        for fake in fakes.values():
            fake.log.clear()
        built = Front(fleet, fakes)
        yield built
        for _ in range(3):
            await asyncio.sleep(0)  # tasks that were cancelled end in the loop's next turns
        assert built.clean, "something of a request is left"


def asked(server: FakeOllama, path: str = "/api/chat") -> list[Record]:
    """The requests that reached a host at `path`."""
    return [record for record in server.log if record.path == path]
