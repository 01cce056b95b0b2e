"""The whole arena behind its own server in a thread, with two fake endpoints: asked over HTTP, and looked into."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from msgspec import Struct

import arena.app
from arena import log
from arena.arena import Arena
from arena.guard import Guard
from arena.server import Limits, Server, bind
from arena.settings import Settings, load
from tests.fake_ollama import RunningFake
from tests.fake_ollama.invariants import Level, level
from tests.threads import in_thread

PATIENCE_S = 15.0
T = TypeVar("T")


class LogLines:
    """Takes a structured log and keeps it as values."""

    def __init__(self) -> None:
        self.values: list[Mapping[str, Any]] = []

    def write(self, text: str) -> int:
        """One finished line."""
        self.values += [json.loads(line) for line in text.splitlines()]
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """It is a file."""
        return False


class Answer(Struct, frozen=True):
    """One whole answer over HTTP."""

    status: int
    request_id: str
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[dict[str, Any]]:
        """The body as NDJSON, every line of it complete."""
        assert self.body.endswith(b"\n")
        return [json.loads(line) for line in self.body.split(b"\n")[:-1]]


class ServedArena:
    """A running server: `arena` is the object inside, `fake` and `other` are its endpoints."""

    def __init__(
        self,
        server: Server,
        arena: Arena,
        loop: asyncio.AbstractEventLoop,
        fakes: tuple[RunningFake, ...],
        beside: tuple[RunningFake, ...],
        lines: LogLines,
    ) -> None:
        self.server = server
        self.url = server.url
        self.arena = arena
        self.fakes = fakes
        self._beside = beside
        self._loop = loop
        self._lines = lines

    @property
    def fake(self) -> RunningFake:
        """The first endpoint, where models misbehave by name."""
        return self.fakes[0]

    @property
    def other(self) -> RunningFake:
        """The second endpoint, which fails as a whole."""
        return self.fakes[1]

    @property
    def log(self) -> Sequence[Mapping[str, Any]]:
        """The structured lines of the log so far."""
        return list(self._lines.values)

    def run(self, work: Coroutine[Any, Any, T], within_s: float = PATIENCE_S) -> T:
        """Run `work` in the server's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the server's own loop."""

        async def call() -> T:
            return function()

        return self.run(call())

    def level(self) -> Level:
        """What the server and its endpoints have in use now; answers and leases of the arena count as requests."""

        def count() -> Level:
            # the fakes' counters are plain reads, and their loops live in threads of their own
            now = level(*(fake.fake for fake in self.fakes), beside=[fake.fake for fake in self._beside])
            leases = sum(endpoint.in_flight for endpoint in self.arena.fleet.endpoints)
            return Level(now.requests + leases + self.arena.compare.running, now.tasks, now.fds, now.connections)

        return self.call(count)

    def unfinished(self) -> list[str]:
        """What the fakes still serve, and for how long; what the arena has under way."""
        now_s = time.monotonic()
        open_ = [record for fake in self.fakes for record in fake.log if record.ended is None]
        leases = [f"{each.name}: {each.in_flight} leases" for each in self.arena.fleet.endpoints if each.in_flight]
        served = [f"{each.path} ({each.scenario}) for {now_s - each.requested_at:.1f} s" for each in open_]
        return [*served, *leases, f"{self.arena.compare.running} comparisons"]

    def health(self) -> int:
        """The status of GET /api/health."""
        return self.ask("GET", "/api/health").status

    def outside(self) -> int:
        """How many requests have reached a canary."""
        return sum(len(fake.canary_hits) for fake in self.fakes)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """One request on a connection of its own, and its whole answer; one that is cut short raises."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        try:
            sent = None if body is None else json.dumps(body).encode()
            connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            response = connection.getresponse()
            return Answer(response.status, response.headers["x-request-id"], response.read())
        finally:
            connection.close()

    def forget(self) -> None:
        """Have every endpoint asked anew for its models at the next question."""

        def forget() -> None:
            for endpoint in self.arena.fleet.endpoints:
                endpoint.forget()

        self.call(forget)


@contextmanager
def logged() -> Iterator[LogLines]:
    """Collect the structured log of the process until the block ends."""
    root, lines = logging.getLogger(), LogLines()
    handlers, before = root.handlers, root.level
    log.configure(load(log_format="json"), lines)  # type: ignore[arg-type]
    try:
        yield lines
    finally:
        root.handlers = handlers
        root.setLevel(before)


@contextmanager
def served(
    *fakes: RunningFake,
    lines: LogLines,
    limits: Limits | None = None,
    page: bool = False,
    beside: tuple[RunningFake, ...] = (),
    **changes: Any,
) -> Iterator[ServedArena]:
    """Serve an arena on `fakes` (named fake, other) until the block ends; other arenas here use those `beside`."""
    names = ("fake", "other")
    endpoints = tuple(f"{name}={fake.url}" for name, fake in zip(names, fakes, strict=False))
    values: dict[str, Any] = {"port": 0, "endpoints": endpoints, "engine": "off", **changes}
    settings = Settings(**values)
    arenas: list[Arena] = []

    def build(settings: Settings) -> Arena:
        arenas.append(Arena(settings))
        return arenas[0]

    loops: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()

    def on_ready(_: str) -> None:
        loops.append(asyncio.get_running_loop())
        ready.set()

    async def built() -> Guard:
        return arena.app.create_app(settings, page=page)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena.app, "Arena", build)
        app = asyncio.run(built())  # without a running loop Gradio makes one for each of its locks
    sockets = bind(settings)
    server = Server(app, settings, sockets, limits=limits or Limits(), on_ready=on_ready)
    with in_thread(server, ready):
        yield ServedArena(server, arenas[0], loops[0], fakes, beside, lines)
