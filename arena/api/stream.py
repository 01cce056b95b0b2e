"""The streamed answer: one write for all that is ready, and the endpoints freed when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgspec import Struct
from starlette.types import ASGIApp, Receive, Scope, Send

from arena.api.answers import Lines
from arena.api.body import ClientLeft
from arena.compare import Run
from arena.endings import finished
from arena.exchange import Sink
from arena.types import Batch

T = TypeVar("T")

NDJSON_HEADERS = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class StreamRoute(Struct, frozen=True):
    """A stream's place among the routes: a router calls an application as it is, but no function."""

    stream: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the stream."""
        await self.stream(scope, receive, send)


class LineStream(Struct, eq=False):
    """The session of a streamed run: its events go to the sink as NDJSON, all that is ready in one write.

    The status goes out with the first line, not before: until then the endpoints are being asked.
    """

    __repr__ = object.__repr__  # what a request holds is not for the log

    _run: Run
    _lines: Lines
    _sink: Sink
    _started: bool = False

    def begin(self) -> LineStream:
        """Send the requests; while the endpoints think, the head of the answer is made ready."""
        self._run.push(self._write)
        asyncio.get_running_loop().call_soon(self._start)
        return self

    def pause(self) -> None:
        """The client is slow."""
        self._run.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._run.resume()

    def left(self) -> None:
        """The client has hung up: every endpoint is freed."""
        self._run.cancel()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._sink.start(200, NDJSON_HEADERS)

    def _write(self, batch: Batch) -> None:
        sound = False
        try:
            chunk = self._lines.encoded(batch)
            if chunk:
                self._start()
                self._sink.write(chunk)
            if not self._lines.open:
                self._sink.end()
            sound = True
        finally:
            if not sound:  # a fault of ours must not leave the client waiting
                self._run.cancel()
                self._sink.abort()


class ClientWatch:
    """Calls `on_leave` as soon as the client hangs up; the request's body must have been read to its end before."""

    __slots__ = ("_task",)

    def __init__(self, receive: Receive, on_leave: Callable[[], object]) -> None:
        # its frame, which the task's cancellation keeps, must not know of us: that would be left to the collector
        self._task = asyncio.get_running_loop().create_task(_listen(receive, on_leave))

    def stop(self) -> None:
        """Stop watching; nothing is waited for, as the watch holds nothing and ends with the loop's next turn."""
        self._task.cancel()


async def _listen(receive: Receive, on_leave: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_leave()


async def while_client_stays(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; if the client hangs up meanwhile, cancel it, wait for its end, and raise ClientLeft."""
    task = asyncio.ensure_future(work)
    client = ClientWatch(receive, task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        client.stop()
        task.cancel()
        await finished([task])
    if task.cancelled():
        raise ClientLeft
    return task.result()
