"""Which models are in memory: loading, sharing, waiting, evicting, expiring. Ollama's rules, without llama.cpp."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from msgspec import Struct

from arena.endings import finished
from arena.engine.config import Config
from arena.engine.durations import FOREVER_S, from_now
from arena.engine.models import LocalModel
from arena.engine.options import Loading
from arena.errors import ArenaError, Busy
from arena.wire import Pool

log = logging.getLogger(__name__)

QUEUE_FULL = "server busy, please try again.  maximum pending requests exceeded"


class Child(Protocol):
    """A runner process that has loaded its model. `context` is what one slot really holds, in tokens."""

    context: int

    @property
    def pool(self) -> Pool:
        """The connections to it."""

    @property
    def gone(self) -> bool:
        """Has the process ended, as far as the system knows? `ended()` hears of it a little later."""

    async def ended(self) -> None:
        """Wait until the process has ended."""

    async def kill(self) -> None:
        """End it and its connections now, and wait for that; does no harm to one that has ended."""

    def cause(self) -> str:
        """Why it ended, in words."""

    def memory_bytes(self) -> int | None:
        """What it holds in memory; None where the system does not tell."""


Launch = Callable[[LocalModel, Loading], Coroutine[Any, Any, Child]]


class Timer(Protocol):
    """What `later` returns."""

    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]


class Loaded:
    """One model in memory, or on its way there. `busy` counts the requests that hold it."""

    def __init__(self, model: LocalModel, loading: Loading, keep_alive_s: float, slots: int) -> None:
        self.model = model
        self.loading = loading
        self.keep_alive_s = keep_alive_s
        self.slots = asyncio.Semaphore(slots)
        self.busy = 0
        self.retiring = False
        self.expires_at = ""
        self.timer: Timer | None = None
        self.load: asyncio.Task[Child]
        self.watch: asyncio.Task[None] | None = None

    @property
    def child(self) -> Child:
        """Its process; only once it is ready."""
        return self.load.result()

    @property
    def ready(self) -> bool:
        """Is it in memory?"""
        return self.load.done() and not self.load.cancelled() and self.load.exception() is None

    def listed(self, digest: str) -> dict[str, Any]:
        """The model's item in /api/ps."""
        return {
            "name": self.model.name,
            "model": self.model.name,
            "size": self.child.memory_bytes() or self.model.size_bytes,
            "digest": digest,
            "details": self.model.details(),
            "expires_at": self.expires_at,
            "size_vram": 0,
            "context_length": self.child.context,
        }


class Needs(Struct, frozen=True):
    """What a request needs of the model in memory. None keeps what is there."""

    model: LocalModel
    loading: Loading
    keep_alive_s: float | None = None


class Runners:
    """All models in memory. One load at a time; a load belongs to all who wait for it, and ends with the last."""

    def __init__(self, config: Config, launch: Launch, later: Later | None = None) -> None:
        self._config = config
        self._launch = launch
        self._later = later or (lambda delay, call: asyncio.get_running_loop().call_later(delay, call))
        self._loaded: dict[str, Loaded] = {}
        self._turn = asyncio.Lock()
        self._pending = 0
        self._held_now = self._held_ever = 0
        self._changes: set[asyncio.Future[None]] = set()
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def in_memory(self) -> list[Loaded]:
        """Every model that is ready, the one that stays longest first."""
        return sorted((item for item in self._loaded.values() if item.ready), key=lambda item: item.expires_at)[::-1]

    @asynccontextmanager
    async def lease(self, needs: Needs) -> AsyncIterator[Loaded]:
        """Hold the model in memory, loading it first if need be. Raises Busy, ArenaError (it cannot be loaded)."""
        self._held_now += 1
        self._held_ever += 1
        try:
            item = await self._obtain(needs)
            try:
                yield item
            finally:
                self._release(item, needs.keep_alive_s)
        finally:
            self._held_now -= 1
            self._changed()

    async def quiet(self, seconds: float) -> None:
        """Wait until nobody has held a model, or waited for one, for `seconds` on end."""
        while True:
            await self._until(lambda: self._held_now == 0)
            before = self._held_ever
            passed = asyncio.Event()
            timer = self._later(seconds, passed.set)
            try:
                await passed.wait()
            finally:
                timer.cancel()
            if self._held_ever == before:
                return

    async def unload(self, model: LocalModel) -> None:
        """Take the model out of memory as soon as nobody holds it; returns at once when somebody does."""
        item = self._loaded.get(model.key)
        if item is None:
            return
        item.keep_alive_s = 0
        if item.busy == 0:
            await self._remove(item)

    async def close(self) -> None:
        """End every runner, now."""
        await finished([asyncio.create_task(self._remove(item)) for item in self._loaded.values()])
        await finished(self._chores)

    async def _obtain(self, needs: Needs) -> Loaded:
        item = self._fitting(needs)
        if item is not None and item.watch is not None and item.child.gone:
            await asyncio.wait([item.watch])  # in a moment it is forgotten, and the log tells why it ended
            item = self._fitting(needs)
        if item is None:
            if self._pending >= self._config.max_queue:
                raise Busy(QUEUE_FULL)
            self._pending += 1
            try:
                async with self._turn:
                    item = self._fitting(needs) or await self._begin(needs)
                    return await self._held(item)
            finally:
                self._pending -= 1
        return await self._held(item)

    def _fitting(self, needs: Needs) -> Loaded | None:
        item = self._loaded.get(needs.model.key)
        return item if item and not item.retiring and item.loading == needs.loading else None

    async def _held(self, item: Loaded) -> Loaded:
        """Count one more holder and wait until it is ready; the last one to leave a load ends it."""
        item.busy += 1
        if item.timer is not None:
            item.timer.cancel()
        ready = False
        try:
            await asyncio.shield(item.load)
            ready = True
        finally:
            if not ready:
                item.busy -= 1
                if item.busy == 0:
                    self._drop(item)
        return item

    async def _begin(self, needs: Needs) -> Loaded:
        """Make room and start the load."""
        if (old := self._loaded.get(needs.model.key)) is not None:
            old.retiring = True  # newcomers wait behind us, so that it comes free
            try:
                await self._until(lambda: old.busy == 0)
            except asyncio.CancelledError:
                old.retiring = False
                raise
            await self._remove(old)
        while len(self._loaded) >= self._config.max_loaded:
            await self._until(lambda: len(self._loaded) < self._config.max_loaded or bool(self._idle()))
            if idle := self._idle():
                # the dictionary is in order of use, so that equals go oldest first
                await self._remove(min(idle, key=lambda item: item.keep_alive_s))
        keep = self._config.keep_alive_s if needs.keep_alive_s is None else needs.keep_alive_s
        item = Loaded(needs.model, needs.loading, keep, self._config.parallel)
        item.load = asyncio.create_task(self._launch(needs.model, needs.loading), name=f"load {needs.model.name}")
        item.load.add_done_callback(lambda _: self._load_ended(item))
        self._loaded[needs.model.key] = item
        return item

    def _load_ended(self, item: Loaded) -> None:
        if item.ready:
            item.expires_at = _expiry(item.keep_alive_s)
            item.watch = asyncio.create_task(self._watch(item))
        else:
            self._forget(item)

    async def _watch(self, item: Loaded) -> None:
        """A model whose process has ended is not in memory any more; the next request loads it again."""
        await item.child.ended()
        if self._loaded.get(item.model.key) is item:
            log.warning("the runner of %s ended: %s", item.model.name, item.child.cause())
            self._forget(item)
            if item.busy == 0:
                self._drop(item)  # otherwise with its last holder, who may still be reading what came before the end

    def _release(self, item: Loaded, keep_alive_s: float | None) -> None:
        item.busy -= 1
        if keep_alive_s is not None:
            item.keep_alive_s = keep_alive_s
        if self._loaded.get(item.model.key) is item:
            self._loaded[item.model.key] = self._loaded.pop(item.model.key)  # most recently used
            item.expires_at = _expiry(item.keep_alive_s)
            if item.busy == 0:
                self._set_timer(item)
        elif item.busy == 0:
            self._drop(item)
        self._changed()

    def _set_timer(self, item: Loaded) -> None:
        if item.keep_alive_s <= 0:
            self._drop(item)
        elif item.keep_alive_s < FOREVER_S:
            item.timer = self._later(item.keep_alive_s, lambda: self._expire(item))

    def _expire(self, item: Loaded) -> None:
        if item.busy == 0:
            self._drop(item)

    def _idle(self) -> list[Loaded]:
        return [item for item in self._loaded.values() if item.busy == 0]

    def _forget(self, item: Loaded) -> None:
        item.retiring = True
        if self._loaded.get(item.model.key) is item:
            del self._loaded[item.model.key]
        if item.timer is not None:
            item.timer.cancel()
        self._changed()

    async def _remove(self, item: Loaded) -> None:
        """End its process or its load. From the first moment on nobody new gets it."""
        self._forget(item)
        await self._end(item)

    def _drop(self, item: Loaded) -> None:
        """The same, without waiting for the end of the process."""
        self._forget(item)
        task = asyncio.create_task(self._end(item))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _end(self, item: Loaded) -> None:
        if not item.load.done():
            item.load.cancel()
            await finished([item.load])
        if item.ready:
            await item.child.kill()
        if item.watch is not None:
            item.watch.cancel()
            await finished([item.watch])

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            change = asyncio.get_running_loop().create_future()
            self._changes.add(change)
            try:
                await change
            finally:
                self._changes.discard(change)

    def _changed(self) -> None:
        for change in self._changes:
            if not change.done():
                change.set_result(None)


def _expiry(keep_alive_s: float) -> str:
    return "2318-12-31T00:00:00Z" if keep_alive_s >= FOREVER_S else from_now(keep_alive_s)


def crashed(cause: str) -> ArenaError:
    """The error of an answer whose runner ended, in Ollama's words."""
    return ArenaError(f"an error was encountered while running the model: {cause}", code="runner_failed")
