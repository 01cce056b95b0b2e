"""Merging many answers into one stream, and folding it back into replies. No I/O, no model knowledge.

The shape that decides speed: a lane *pushes* batches of events from the transport's callbacks into one `Mailbox`,
and the consumer takes all that is ready in one go. There is no task wake-up per token but the consumer's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from arena.endings import finished
from arena.errors import ArenaError, Busy, Stopped, TooManyRequests
from arena.types import Batch, Delta, Failed, Finished, Manifest, Metrics, Started, StreamEvent

log = logging.getLogger(__name__)

PRESSURE_BYTES = 256 * 1024
TERMINAL = (Finished, Failed)


class Tap(Protocol):
    """What an outlet can close for a while when the consumer is slow."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Mailbox(Struct, eq=False):
    """Many producers, one consumer, one event loop: `put` never waits, `take` and `get` hand over all there is.

    The consumer either awaits `get`, or is called (`listen`): at once, but when much comes, once a turn of the loop.
    """

    __repr__ = object.__repr__  # what a request holds is not for the log

    _open: int
    """Producers that have not ended."""
    _batch: Batch = []
    _bytes: int = 0
    _closed: bool = False
    _waiter: asyncio.Future[None] | None = None
    _listener: Callable[[], None] | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _told: bool = False
    _told_s: float = 0.0
    _paused: list[Tap] = []

    @property
    def ended(self) -> bool:
        """Will nothing more come?"""
        return self._closed or (not self._batch and not self._open)

    def put(self, events: Batch, size_bytes: int, tap: Tap | None) -> None:
        """Add `events`; over PRESSURE_BYTES waiting, `tap` is paused until the consumer has come."""
        if self._closed:
            return
        self._batch += events
        self._bytes += size_bytes
        self._wake()
        if self._bytes > PRESSURE_BYTES and tap is not None and tap not in self._paused:
            self._paused.append(tap)
            tap.pause()

    def producer_done(self) -> None:
        """One producer will put no more; after the last, `get` returns None once the mailbox is empty."""
        self._open -= 1
        self._wake()

    def close(self) -> None:
        """End at once: `get` returns None, whatever waits or still comes is dropped, no listener is called."""
        self._closed = True
        self._batch, self._bytes = [], 0
        self._listener = None
        self._wake()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` when there is something to take, or nothing more will come; None holds it back."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        if self._batch or self._closed or not self._open:
            self._wake()

    def take(self) -> Batch:
        """All events that are ready, in order; none is a fine answer."""
        batch, self._batch, self._bytes = self._batch, [], 0
        if self._paused:
            paused, self._paused = self._paused, []
            for tap in paused:
                tap.resume()
        return batch

    async def get(self) -> Batch | None:
        """All events that are ready, in order; None at the end."""
        while not self._batch and self._open and not self._closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return None if self.ended else self.take()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._listener is not None and self._loop is not None and not self._told:
            now_s = self._loop.time()
            if now_s != self._told_s:
                self._told_s = now_s
                self._listener()
            else:  # uvloop's clock stands still for a turn: in a flood, what comes together goes out together
                self._told = True
                self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._told = False
        if self._listener is not None:
            self._listener()


class Outlet(Struct, eq=False):
    """A lane's own door into the mailbox. After the lane's terminal event, its `end`, everything else is dropped.

    `opening` makes an event that comes before all others, however soon those are there. `release` is called once the
    lane has ended, even one that was stopped before its first step: whatever the lane has taken hold of before that is
    given back there.
    """

    __repr__ = object.__repr__  # what a request holds is not for the log

    instance_id: str
    _mailbox: Mailbox
    tap: Tap | None = None
    release: Callable[[], object] | None = None
    opening: Callable[[], StreamEvent] | None = None
    metrics_so_far: Callable[[], Metrics] = Metrics
    end: Finished | Failed | None = None

    def put(self, events: Batch, size_bytes: int = 0) -> None:
        """Push a batch; only its last event may be terminal (Finished or Failed)."""
        if self.end is not None or not events:
            return
        if self.opening is not None:
            self.open()
        last = events[-1]
        if isinstance(last, TERMINAL):
            self.end = last
        self._mailbox.put(events, size_bytes, self.tap)

    def open(self) -> None:
        """Push the opening, unless it is there already."""
        opening, self.opening = self.opening, None
        if opening is not None:
            self._mailbox.put([opening()], 0, self.tap)

    def free(self) -> None:
        """Give back what the lane holds; once."""
        release, self.release = self.release, None
        if release is not None:
            release()

    def failure(self, error: ArenaError) -> Failed:
        """The terminal event that tells of `error`, with what was counted until then."""
        wait_s = error.retry_after_s if isinstance(error, Busy | TooManyRequests) else None
        return Failed(self.instance_id, error.code, error.message, self.metrics_so_far(), error.details, wait_s)


Lane = Callable[[Outlet], Coroutine[Any, Any, None]]
"""What produces one answer. What it does before it returns its coroutine happens at once, at the start."""


class FanOut:
    """Runs lanes side by side (or `at_once` at a time) and merges their events.

    A lane's trouble never reaches another: it becomes its own Failed event. Every lane gets exactly one terminal event,
    unless the consumer leaves first; leaving (closing `events()`) cancels all lanes and waits for them.
    """

    def __init__(self, lanes: Mapping[str, Lane], *, at_once: int | None = None) -> None:
        self._lanes = dict(lanes)
        self._mailbox = Mailbox(len(self._lanes))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(at_once) if at_once else None
        self._stop_reasons: dict[str, ArenaError] = {}
        self._consumer: Callable[[Batch], None] | None = None

    def start(self) -> None:
        """Begin; called by `events()`, or earlier by whoever wants a head start."""
        if not self._tasks:
            create_task = asyncio.get_running_loop().create_task
            for name, lane in self._lanes.items():
                outlet = Outlet(name, self._mailbox)
                at_once = self._turns is None and name not in self._stop_reasons
                task = self._tasks[name] = create_task(lane(outlet) if at_once else self._in_turn(lane, outlet))
                task.add_done_callback(partial(self._lane_ended, outlet))
                if not at_once and name in self._stop_reasons:
                    task.cancel()

    def push(self, consumer: Callable[[Batch], None]) -> None:
        """Begin, and hand all that is ready to `consumer`, the moment it is, instead of `events()`.

        What it writes then the transport joins to one system call a turn of the loop. Whoever pushes calls `cancel()`
        if it does not want all of it.
        """
        self._consumer = consumer
        self._mailbox.listen(self._hand_over)
        self.start()

    def pause(self) -> None:
        """Hand over nothing until `resume()`; when much has piled up, the endpoints are held back too."""
        self._mailbox.listen(None)

    def resume(self) -> None:
        """Go on handing over."""
        self._mailbox.listen(self._hand_over)

    def cancel(self) -> None:
        """Drop everything at once and free the endpoints, without waiting for it."""
        self._mailbox.close()
        for task in self._tasks.values():
            task.cancel()

    def _hand_over(self) -> None:
        if self._consumer is not None and (batch := self._mailbox.take()):
            self._consumer(batch)

    def stop(self, instance_id: str | None = None, reason: ArenaError | None = None) -> None:
        """Stop one lane, or all, also before the start. It ends with Failed(code="stopped"), or `reason`'s code."""
        for name in self._lanes if instance_id is None else self._lanes.keys() & {instance_id}:
            self._stop_reasons.setdefault(name, reason or Stopped("Stopped."))
            if name in self._tasks:
                self._tasks[name].cancel()

    @property
    def running(self) -> frozenset[str]:
        """The lanes that have not ended."""
        return frozenset(name for name, task in self._tasks.items() if not task.done())

    async def events(self) -> AsyncGenerator[Batch, None]:
        """Batches of events until every lane has ended. Close it (aclosing) to cancel what still runs."""
        self.start()
        try:
            while (batch := await self._mailbox.get()) is not None:
                yield batch
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Cancel every lane and wait for them, even while being cancelled (gather would leak them)."""
        self._mailbox.close()
        pending = [task for task in self._tasks.values() if not task.done()]
        for task in pending:
            task.cancel()
        await finished(pending)

    async def _in_turn(self, lane: Lane, outlet: Outlet) -> None:
        async with self._turns or nullcontext():
            try:
                await lane(outlet)
            finally:
                outlet.free()  # before the next one's turn

    def _lane_ended(self, outlet: Outlet, task: asyncio.Task[None]) -> None:
        """Turn however the lane ended into its one terminal event.

        A callback, so that it also runs for a lane that was stopped before its first step.
        """
        name = outlet.instance_id
        outlet.free()
        if task.cancelled():
            outlet.put([outlet.failure(self._stop_reasons.get(name, Stopped("Stopped.")))])
        elif isinstance(error := task.exception(), ArenaError):
            outlet.put([outlet.failure(error)])
        else:
            if error is not None:
                log.error("lane failed", exc_info=error, extra={"instance_id": name})
            outlet.put([outlet.failure(ArenaError("The answer ended without a result."))])
        self._mailbox.producer_done()


class Reply(Struct):
    """One instance's answer so far, as folded by Transcript. Times are on the caller's clock, in seconds."""

    instance_id: str
    text: str = ""
    thinking: str = ""
    manifest: Manifest | None = None
    metrics: Metrics | None = None
    error: Failed | None = None
    started_s: float | None = None
    first_s: float | None = None
    ended_s: float | None = None

    @property
    def ended(self) -> bool:
        """Has it finished or failed?"""
        return self.metrics is not None or self.error is not None


class Transcript:
    """The one fold: page, API, command line and exports all read answers from here."""

    def __init__(self, instance_ids: tuple[str, ...] | list[str] = ()) -> None:
        self.replies: dict[str, Reply] = {name: Reply(name) for name in instance_ids}

    def apply(self, batch: Batch, now_s: float = 0.0) -> set[str]:
        """Fold a batch; returns the ids of the instances that changed."""
        changed: set[str] = set()
        for event in batch:
            self._fold(event, now_s)
            changed.add(event.instance_id)
        return changed

    def _fold(self, event: StreamEvent, now_s: float) -> None:
        reply = self.replies.setdefault(event.instance_id, Reply(event.instance_id))
        if reply.ended:
            return
        match event:
            case Delta():
                if reply.first_s is None:
                    reply.first_s = now_s
                reply.text += event.text
                reply.thinking += event.thinking
            case Started():
                reply.manifest, reply.started_s = event.manifest, now_s
            case Finished():
                reply.metrics, reply.ended_s = event.metrics, now_s
            case Failed():
                reply.error, reply.ended_s = event, now_s
