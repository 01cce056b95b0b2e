"""The streamed answer on bare ASGI: one write for all that is ready, and the endpoints freed when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
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
    started = False
    try:
        async with watched(receive, run.stop) as client:
            async for batch in events:
                chunk = lines.encoded(batch)
                if client.left:
                    break
                if not chunk:
                    continue
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await send({"type": "http.response.body", "body": chunk, "more_body": lines.open > 0})
    finally:
        await events.aclose()


class Client:
    """Whether the one who asked is still there."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


@asynccontextmanager
async def watched(receive: Receive, on_leave: Callable[[], object]) -> AsyncGenerator[Client, None]:
    """Call `on_leave` as soon as the client hangs up; the body must have been read to its end before."""
    client = Client()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        client.left = True
        on_leave()

    watcher = asyncio.create_task(watch(), name="client watch")
    try:
        yield client
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


async def while_client_stays(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; if the client hangs up meanwhile, cancel it, wait for its end, and raise ClientLeft."""
    task = asyncio.ensure_future(work)
    try:
        async with watched(receive, task.cancel):
            await asyncio.wait([task])
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        raise ClientLeft
    return task.result()
