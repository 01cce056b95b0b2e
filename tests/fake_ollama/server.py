"""The fake server itself: its ports, its state, its log, and the waits that spare tests every sleep."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from tests.fake_ollama.catalogue import CONTEXT_LENGTH, DEFAULT_MODELS, tagged
from tests.fake_ollama.control import Canary, Hit, serve_control
from tests.fake_ollama.door import Accept, Door
from tests.fake_ollama.exchange import Exchange, Record, record_of
from tests.fake_ollama.routes import afterwards, answer
from tests.fake_ollama.stopwatch import Stopwatch
from tests.fake_ollama.wire import Capped, ClientGone, Connection, Request

VERSION = "0.32.15"


class Late(AssertionError):
    """What was waited for did not happen in time."""


@dataclass(frozen=True)
class Faults:
    """The server-wide state, for faults that happen before a model's name is known.

    `routes` gives a path (such as /api/tags) the scenario of a model's name, for requests that name no model.
    """

    accept: Accept = "normal"
    health: Literal["ok", "fail"] = "ok"
    delay_ms: int = 0
    version: str = VERSION
    queue_full: bool = False
    routes: Mapping[str, str] = field(default_factory=dict)


class Gates:
    """Tokens held back until a test releases them, apart for every key."""

    def __init__(self) -> None:
        self._released: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def release(self, key: str, n: int) -> None:
        """Let `n` tokens of `key` pass, now or whenever they come; each passes one turn, first come, first served."""
        self._released[key] += n
        waiting = self._waiting.get(key, deque())
        while waiting and self._released[key]:
            future = waiting.popleft()
            if not future.done():
                self._released[key] -= 1
                future.set_result(None)

    async def take(self, key: str, connection: Connection) -> None:
        """Wait for one release of `key`."""
        if self._released[key]:
            self._released[key] -= 1
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(future)
        try:
            await connection.wait(future)
        finally:
            future.cancel()

    def clear(self) -> None:
        """Forget what was released and not taken."""
        self._released.clear()


class FakeOllama:
    """An Ollama on a loopback port whose models misbehave by name. Use as `async with FakeOllama() as fake`.

    Deterministic, and bounded: seconds and bytes for each request, connections for the whole; over a bound it closes.
    """

    def __init__(
        self,
        models: Iterable[str] = DEFAULT_MODELS,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limit_s: float = 60,
        limit_bytes: int = 256 * 1024 * 1024,
        max_connections: int = 4096,
    ) -> None:
        self._initial = tuple(models)
        self._limit_s, self._limit_bytes, self._max_connections = limit_s, limit_bytes, max_connections
        self._door = Door(host, port, self._connect)
        self._control = Door(host, 0, lambda: self._aside(lambda connection: serve_control(self, connection)))
        self._canary = Door(host, 0, lambda: self._aside(self.canary.serve))
        self._connections: set[Connection] = set()
        self._last: dict[Connection, Record] = {}
        self._changes: set[asyncio.Future[None]] = set()
        self.canary = Canary(self.changed)
        self.gates = Gates()
        self.log: list[Record] = []
        self.loaded: dict[str, dict[str, Any]] = {}
        self.models: list[str] = list(self._initial)
        self.faults = Faults()
        self._counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for door in (self._door, self._control, self._canary):
            door.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for door in (self._door, self._control, self._canary):
            door.close()
        left = tuple(self._connections)
        tasks = {connection.task for connection in left if connection.task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for connection in left:
            connection.drop()
        await asyncio.sleep(0)  # the transports and the accept tasks end in the loop's next turn

    # addresses

    @property
    def port(self) -> int:
        """The port of the Ollama API."""
        return self._door.port

    @property
    def url(self) -> str:
        """The base URL of the Ollama API."""
        return self._door.url

    @property
    def control_url(self) -> str:
        """The base URL of the control plane."""
        return self._control.url

    @property
    def control_port(self) -> int:
        """The port of the control plane."""
        return self._control.port

    @property
    def canary_url(self) -> str:
        """The address that nothing must ever contact."""
        return self._canary.url

    @property
    def canary_hits(self) -> list[Hit]:
        """Every request that reached the canary."""
        return self.canary.hits

    # what happened

    @property
    def open(self) -> int:
        """Requests being served now."""
        return sum(record.ended is None for record in self.log)

    @property
    def connections(self) -> int:
        """Connections open now, idle ones included."""
        return sum(connection.number > 0 for connection in self._connections)

    @property
    def accepted(self) -> int:
        """Connections accepted so far."""
        return self._door.accepted

    @property
    def cut(self) -> int:
        """Requests that the client cut so far."""
        return sum(record.cut for record in self.log)

    async def until(self, condition: Callable[[], bool], within_s: float, what: str = "condition") -> None:
        """Wait until `condition()` holds; it is asked after each event. Raises Late (an AssertionError).

        Time in which this process waited for a core does not count.
        """
        watch, left_s = Stopwatch(), within_s
        while not condition():
            change = asyncio.get_running_loop().create_future()
            self._changes.add(change)
            try:
                await asyncio.wait({change}, timeout=left_s)
            finally:
                self._changes.discard(change)
            left_s = max(0.0, within_s - watch.own_s())
            if not change.done() and not left_s:
                states = [(r.method, r.path, r.scenario, r.ended) for r in self.log[-20:]]
                raise Late(f"not within {within_s} s: {what}; last requests: {states}")

    async def closed(self, n: int = 1, within_s: float = 1) -> None:
        """Wait until the client has cut `n` requests in all (since the start or the last reset)."""
        await self.until(lambda: self.cut >= n, within_s, f"{n} requests cut by the client")

    async def idle(self, within_s: float = 1) -> None:
        """Wait until no request is being served; one that has not arrived yet does not count (see `arrived`)."""
        await self.until(lambda: self.open == 0, within_s, "no request being served")

    async def arrived(self, n: int = 1, within_s: float = 20, path: str | None = None) -> None:
        """Wait until `n` requests (to `path`, if given) have arrived in all."""
        what = f"{n} requests to {path or 'any path'}"
        await self.until(lambda: sum(path in (None, record.path) for record in self.log) >= n, within_s, what)

    # what a test changes

    def release(self, key: str | int = "", n: int = 1) -> None:
        """Let `n` tokens of `fx-gate:id-<key>` pass; `release(3)` means those of plain fx-gate."""
        self.gates.release(*(("", key) if isinstance(key, int) else (key, n)))

    def state(self, *, models: Iterable[str] | None = None, **changes: Any) -> None:
        """Change the server-wide state: any field of `Faults`, and the list of models.

        `refuse` also drops idle kept-alive connections, as a server that died would.
        """
        self.faults = replace(self.faults, **changes)
        self._door.change(self.faults.accept)
        if self.faults.accept == "refuse":
            for connection in self._connections:
                if connection.idle and connection.number:
                    connection.close()
        if models is not None:
            self.models = list(models)

    def reset(self) -> None:
        """Back to the state after the start: log, models, gates, counters, canary; running requests go on unlogged."""
        self.faults = Faults()
        self._door.change("normal")
        self.models = list(self._initial)
        self.loaded.clear()
        self.log.clear()
        self.gates.clear()
        self.canary.hits.clear()
        self._counts.clear()
        self.changed()

    # what the routes use

    def has(self, model: str) -> bool:
        """Is the model there? Every fx- name is."""
        return model.lower().startswith("fx-") or _same(model) in map(_same, self.models)

    def add_model(self, model: str) -> None:
        """List the model."""
        if _same(model) not in map(_same, self.models):
            self.models.insert(0, tagged(model))

    def remove_model(self, model: str) -> bool:
        """Take the model off the list; False when it was not on it."""
        kept = [name for name in self.models if _same(name) != _same(model)]
        found = len(kept) < len(self.models)
        self.models = kept
        return found

    def load(self, model: str, body: Mapping[str, Any]) -> None:
        """Keep the model in memory, as `/api/ps` shows."""
        options, keep = body.get("options"), body.get("keep_alive")
        wanted = options.get("num_ctx") if isinstance(options, dict) else None
        self.loaded[tagged(model)] = {
            "context_length": wanted if isinstance(wanted, int) else CONTEXT_LENGTH,
            "forever": isinstance(keep, int | float) and keep < 0,
        }

    def unload(self, model: str) -> None:
        """Drop the model from memory."""
        self.loaded = {name: kept for name, kept in self.loaded.items() if _same(name) != _same(model)}

    def count(self, model: str) -> int:
        """How many requests named this model before; counts this one."""
        self._counts[model] += 1
        return self._counts[model] - 1

    def changed(self) -> None:
        """Something happened that a test may be waiting for."""
        for change in self._changes:
            if not change.done():
                change.set_result(None)

    # connections

    def _connect(self) -> Connection:
        connection = Connection(self._door.accepted, self._serve, self._disconnected)
        connection.limit_bytes = self._limit_bytes
        self._connections.add(connection)
        self.changed()
        return connection

    def _aside(self, serve: Callable[[Connection], Awaitable[None]]) -> Connection:
        """A connection to the control plane or the canary: number 0, in no log."""
        connection = Connection(0, serve, self._connections.discard)
        self._connections.add(connection)
        return connection

    def _disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        last = self._last.pop(connection, None)
        if last is not None:
            last.parting, last.parted_at = connection.parting, connection.parted_at
        self.changed()

    async def _serve(self, connection: Connection) -> None:
        if len(self._connections) > self._max_connections:
            connection.reset()
        while (request := await connection.request()) is not None:
            if not await self._answered(connection, request):
                return

    async def _answered(self, connection: Connection, request: Request) -> bool:
        """Serve one request and keep its record; True when the connection lives on."""
        record = record_of(connection, request)
        self.log.append(record)
        self._last[connection] = record
        self.changed()
        asked_to_close = request.header("connection").lower() == "close" or request.version == "HTTP/1.0"
        exchange = Exchange(self, connection, request, record, keep_alive=not asked_to_close)
        connection.deadline, connection.idle = time.monotonic() + self._limit_s, False
        connection.bytes_out = 0
        try:
            await answer(exchange)
            record.ended = "complete"
        except ClientGone:
            record.ended = connection.parting or "capped"
        except Capped:
            record.ended = "capped"
        finally:
            record.ended = record.ended or "capped"
            record.ended_at = connection.parted_at if record.cut else time.monotonic()
            connection.idle = True
            self.changed()
        await afterwards(exchange)
        connection.deadline = float("inf")
        return exchange.keep_alive and record.ended == "complete"


def _same(name: str) -> str:
    return tagged(name).lower()
