"""The streamed answer on bare ASGI: one write for all that is ready, and the endpoints freed when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Send

from arena.api.answers import Lines
from arena.api.body import ClientLeft
from arena.compare import Run

T = TypeVar("T")

_HEADERS = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def send_stream(run: Run, lines: Lines, receive: Receive, send: Send) -> None:
    """Send the run's events as NDJSON until every instance has ended, or the client has left.

    The status goes out with the first line, not before: until then the endpoints are being asked.
    """
    events = run.events()
    run.begin()
    client = ClientWatch(receive, run.stop)
    started = False
    try:
        async for batch in events:
            chunk = lines.encoded(batch)
            if client.left:
                break
            if chunk:
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await send({"type": "http.response.body", "body": chunk, "more_body": lines.open > 0})
            del batch, chunk  # a stream that waits holds no text
    finally:
        await events.aclose()
        await client.aclose()


class ClientWatch:
    """Calls `on_leave` as soon as the client hangs up; the request's body must have been read to its end before."""

    __slots__ = ("_task", "left")

    def __init__(self, receive: Receive, on_leave: Callable[[], object]) -> None:
        self.left = False
        self._task = asyncio.create_task(self._watch(receive, on_leave), name="client watch")

    async def aclose(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self, receive: Receive, on_leave: Callable[[], object]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left = True
        on_leave()


async def while_client_stays(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; if the client hangs up meanwhile, cancel it, wait for its end, and raise ClientLeft."""
    task = asyncio.ensure_future(work)
    client = ClientWatch(receive, task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
        await asyncio.wait([task])
        await client.aclose()
    if task.cancelled():
        raise ClientLeft
    return task.result()
