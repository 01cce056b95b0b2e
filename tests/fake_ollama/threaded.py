"""The fake in a thread of its own, for tests that are not asynchronous and for servers in other processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.fake_ollama.catalogue import DEFAULT_MODELS
from tests.fake_ollama.control import Hit
from tests.fake_ollama.exchange import Record
from tests.fake_ollama.server import FakeOllama

T = TypeVar("T")


class RunningFake:
    """The synchronous twin of `FakeOllama`: the same names, ordinary methods. `fake` is the object in the thread."""

    def __init__(self, fake: FakeOllama, loop: asyncio.AbstractEventLoop) -> None:
        self.fake, self._loop = fake, loop
        self.port, self.url = fake.port, fake.url
        self.control_url, self.canary_url = fake.control_url, fake.canary_url

    @property
    def log(self) -> list[Record]:
        """The records so far, as a list of its own."""
        return list(self.fake.log)

    @property
    def models(self) -> list[str]:
        """The names listed now."""
        return list(self.fake.models)

    @property
    def canary_hits(self) -> list[Hit]:
        """Every request that reached the canary."""
        return list(self.fake.canary_hits)

    @property
    def open(self) -> int:
        """Requests being served now."""
        return self.call(lambda: self.fake.open)

    @property
    def connections(self) -> int:
        """Connections open now, idle ones included."""
        return self.call(lambda: self.fake.connections)

    @property
    def accepted(self) -> int:
        """Connections accepted so far."""
        return self.call(lambda: self.fake.accepted)

    @property
    def cut(self) -> int:
        """Requests that the client cut so far."""
        return self.call(lambda: self.fake.cut)

    def until(self, condition: Callable[[], bool], within_s: float, what: str = "condition") -> None:
        """Wait until `condition()` holds; it runs in the fake's thread. Raises Late."""
        self._run(self.fake.until(condition, within_s, what))

    def closed(self, n: int = 1, within_s: float = 1) -> None:
        """Wait until the client has cut `n` requests in all."""
        self._run(self.fake.closed(n, within_s))

    def idle(self, within_s: float = 1) -> None:
        """Wait until no request is being served."""
        self._run(self.fake.idle(within_s))

    def arrived(self, n: int = 1, within_s: float = 20, path: str | None = None) -> None:
        """Wait until `n` requests (to `path`, if given) have arrived in all."""
        self._run(self.fake.arrived(n, within_s, path))

    def release(self, key: str | int = "", n: int = 1) -> None:
        """Let `n` tokens of `fx-gate:id-<key>` pass."""
        self.call(lambda: self.fake.release(key, n))

    def state(self, *, models: Iterable[str] | None = None, **changes: Any) -> None:
        """Change the server-wide state."""
        self.call(lambda: self.fake.state(models=models, **changes))

    def fall(self, accept: str) -> None:
        """Accept like this from now on, and keep no connection from before: one would still be served as ever."""
        for _ in range(2):  # what is asked just now, a probe, gets its answer, and then its connection goes too
            self.state(accept="refuse")
            self.idle(within_s=20)
        self.state(accept=accept)

    def reset(self) -> None:
        """Back to the state after the start."""
        self.call(self.fake.reset)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Its thread does nothing within the block: it does not even see who comes and goes."""
        go_on = threading.Event()
        self._loop.call_soon_threadsafe(go_on.wait)
        try:
            yield
        finally:
            go_on.set()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the fake's thread and return its result."""

        async def call() -> T:
            return function()

        return self._run(call())


@contextmanager
def running_fake(models: Iterable[str] = DEFAULT_MODELS, **options: Any) -> Iterator[RunningFake]:
    """Run a fake in a thread for the length of the block; takes what `FakeOllama` takes."""
    fake = FakeOllama(models, **options)
    ready: Future[RunningFake] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with fake:
            ready.set_result(RunningFake(fake, asyncio.get_running_loop()))
            await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(serve())
        except OSError as error:  # the port is taken
            ready.set_exception(error)

    thread = threading.Thread(target=run, name="fake ollama", daemon=True)
    thread.start()
    running = ready.result()
    try:
        yield running
    finally:
        running.call(stop.set)
        thread.join()
