"""The two ways from the terminal to an arena: one of this process's own, or a running one by its address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from arena.errors import ArenaError
from arena.settings import Settings
from arena.types import Batch, ChatRequest, ModelInfo, Order, PullJob

if TYPE_CHECKING:
    from arena.arena import Arena

EventSink = Callable[[Batch], None]
PullSink = Callable[[PullJob], None]

POLL_S = 0.2
"""Seconds between two looks at a download."""


class Door(Protocol):
    """What the commands need of an arena. Ctrl-C in any call frees what the call had started."""

    def models(self) -> tuple[ModelInfo, ...]:
        """All installed models, ordered by name."""

    def chat(self, asked: Sequence[ChatRequest], order: Order, sink: EventSink) -> None:
        """Ask all; `sink` gets every batch of events, with exactly one terminal event for each request."""

    def pull(self, model: str, endpoint: str | None, sink: PullSink) -> PullJob:
        """Download `model`; `sink` gets the job's state again and again. Returns its last state."""


@contextmanager
def own_arena(settings: Settings, downloading: PullSink) -> Iterator[Door]:
    """Start an arena inside this process, with the settings and the embedded engine of `serve`; stop it at the end.

    A first model that the engine fetches by itself is waited for, and shown by `downloading`.
    """
    from arena.arena import Arena

    arena = Arena(settings)
    # One loop for the whole command: Ctrl-C ends the call under way, not the loop, so that clean-up still works.
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            runner.run(stack.enter_async_context(arena.running()))
            door = OwnArena(arena, runner)
            door.settle(downloading)
            yield door
        finally:
            runner.run(stack.aclose())


class OwnArena:
    """A door to an arena whose loop runs only while a call waits for something."""

    def __init__(self, arena: Arena, runner: asyncio.Runner) -> None:
        self._arena = arena
        self._runner = runner

    def settle(self, downloading: PullSink) -> None:
        """Wait for the endpoints, and for a first model that is on its way. Raises ArenaError if the engine failed."""
        self._runner.run(self._arena.started())
        if self._arena.engine_error is not None and all(endpoint.error for endpoint in self._arena.fleet.endpoints):
            raise ArenaError(self._arena.engine_error)
        for job in self._arena.catalog.jobs():
            if job.state == "downloading":
                self._runner.run(self._followed(job, downloading))

    def models(self) -> tuple[ModelInfo, ...]:
        """All installed models, ordered by name."""
        return self._runner.run(self._arena.catalog.models())

    def chat(self, asked: Sequence[ChatRequest], order: Order, sink: EventSink) -> None:
        """Ask all; `sink` gets every batch of events."""
        self._runner.run(self._chat(asked, order, sink))

    def pull(self, model: str, endpoint: str | None, sink: PullSink) -> PullJob:
        """Download `model`; Ctrl-C ends the command, and the download with its arena."""
        return self._runner.run(self._pull(model, endpoint, sink))

    async def _chat(self, asked: Sequence[ChatRequest], order: Order, sink: EventSink) -> None:
        events = self._arena.compare.start(asked, order=order).events()
        try:
            async for batch in events:
                sink(batch)
        finally:
            await events.aclose()

    async def _pull(self, model: str, endpoint: str | None, sink: PullSink) -> PullJob:
        return await self._followed(self._arena.catalog.pull(model, endpoint), sink)

    async def _followed(self, job: PullJob, sink: PullSink) -> PullJob:
        while job.state == "downloading":
            sink(job)
            await asyncio.sleep(POLL_S)
            job = self._arena.catalog.job(job.id)
        sink(job)
        return job
