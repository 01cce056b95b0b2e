"""The same work on several hosts, told as one: lines of progress as they come, and in the end what came of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from arena.errors import ArenaError, ModelNotFound, Stopped, UpstreamBroken
from arena.fleet import Endpoint
from arena.ollama.failures import error_line, refusal
from arena.ollama.lines import Lines, read_object
from arena.proxy.reply import NDJSON, Reply, json_reply
from arena.upstream import ERROR_BYTES
from arena.wire import Stream, Timeouts

log = logging.getLogger(__name__)

WAITING = 64
"""Lines that may wait for a slow client before the hosts are held back."""
MAX_LAYERS = 4096

Line = dict[str, Any]
Tell = Callable[[Line], Coroutine[Any, Any, None]]
Work = Callable[[Endpoint, Tell], Coroutine[Any, Any, None]]
"""Does it on one host, telling its lines; raises ArenaError if it did not succeed."""


class Results:
    """What came of it on each host, in the order in which it was asked for."""

    def __init__(
        self, endpoints: Sequence[Endpoint], *, absent_is_fine: bool = False, skipped: Sequence[Endpoint] = ()
    ) -> None:
        """`absent_is_fine`: that a host does not have the model is no failure, unless no host has it.

        `skipped` were not asked, since they cannot do it.
        """
        self._names = [endpoint.name for endpoint in endpoints]
        self._skipped = [endpoint.name for endpoint in skipped]
        self._errors: dict[str, ArenaError | None] = {}
        self._absent_is_fine = absent_is_fine

    def note(self, endpoint: Endpoint, error: ArenaError | None) -> None:
        """`endpoint` has ended, well or not."""
        self._errors[endpoint.name] = error

    @property
    def complete(self) -> bool:
        """Have all ended?"""
        return len(self._errors) == len(self._names)

    @property
    def failures(self) -> dict[str, ArenaError]:
        """Who failed, and how."""
        errors = {name: error for name in self._names if (error := self._errors.get(name)) is not None}
        present = {name: error for name, error in errors.items() if not isinstance(error, ModelNotFound)}
        all_absent = errors and not present and len(errors) == len(self._names)
        return errors if all_absent or not self._absent_is_fine else present

    @property
    def status(self) -> int:
        """200; or how all failed, where they failed alike; or 502."""
        statuses = {error.status for error in self.failures.values()}
        everywhere = len(self.failures) == len(self._names)
        return 200 if not statuses else statuses.pop() if everywhere and len(statuses) == 1 else 502

    def told(self) -> Line:
        """The last line: success, or an error that also says where it went well; always with a result per host."""
        failures = self.failures
        results = [self._result(name) for name in self._names]
        results += [{"host": name, "status": "skipped"} for name in self._skipped]
        if not failures:
            return {"status": "success", "results": results}
        well = [name for name in self._names if name not in failures]
        text = "failed on " + "; ".join(f"{name}: {_reason(error)}" for name, error in failures.items())
        code = "partial_failure" if well else next(iter(failures.values())).code
        return {"error": text + (f" (done on {', '.join(well)})" if well else ""), "code": code, "results": results}

    def _result(self, name: str) -> Line:
        error = self._errors[name]
        if error is None:
            return {"host": name, "status": "success"}
        if name not in self.failures:
            return {"host": name, "status": "absent"}
        return {"host": name, "status": "error", "error": _reason(error), "code": error.code}


class Merged:
    """Runs the work on all hosts at once and hands out their lines; after the last comes the result.

    Closing it hangs up on all of them. A slow reader holds them back.
    """

    def __init__(self, endpoints: Sequence[Endpoint], work: Work, results: Results) -> None:
        self.results = results
        self._sums = Sums()
        self._waiting: asyncio.Queue[Line | None] = asyncio.Queue(WAITING)
        self._held: list[Line] = []
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []
        for endpoint in endpoints:
            task = asyncio.create_task(work(endpoint, partial(self._tell, endpoint.name)), name=f"on {endpoint.name}")
            task.add_done_callback(partial(self._ended, endpoint))
            self._tasks.append(task)

    async def begun(self) -> bool:
        """Wait for the first line; False when all ended without one."""
        line = await self._next()
        if line is not None:
            self._held.append(line)
        return line is not None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        line = self._held.pop() if self._held else await self._next()
        if line is None:
            self._over = True
            await self.aclose()
            line = self.results.told()
        return msgspec.json.encode(line) + b"\n"

    async def aclose(self) -> None:
        """Hang up on every host that has not ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _next(self) -> Line | None:
        while not (self.results.complete and self._waiting.empty()):
            if (line := await self._waiting.get()) is not None:
                return line
        return None

    async def _tell(self, host: str, line: Line) -> None:
        await self._waiting.put(self._sums.summed(host, line))

    def _ended(self, endpoint: Endpoint, task: asyncio.Task[None]) -> None:
        """However the work ended on a host, the result tells of it."""
        error = Stopped("Stopped.") if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ArenaError):
            log.error("changing models failed", exc_info=error, extra={"endpoint": endpoint.name})
            error = ArenaError("It ended without a result.")
        self.results.note(endpoint, error)
        changed(endpoint)
        with suppress(asyncio.QueueFull):  # whoever finds it full does not wait
            self._waiting.put_nowait(None)


class Sums:
    """Adds up the layers' progress over the hosts."""

    def __init__(self) -> None:
        self._layers: dict[str, dict[str, tuple[int, int]]] = {}

    def summed(self, host: str, line: Line) -> Line:
        """One host's line, with the layer's figures of all hosts and the `host`. Its success is not yet everybody's."""
        told = {**line, "host": host}
        digest = line.get("digest")
        if line.get("status") == "success":
            told["status"] = f"success on {host}"
        if isinstance(digest, str) and (digest in self._layers or len(self._layers) < MAX_LAYERS):
            hosts = self._layers.setdefault(digest, {})
            hosts[host] = _size(line, "completed"), _size(line, "total")
            for index, key in enumerate(("completed", "total")):
                if figure := sum(figures[index] for figures in hosts.values()):
                    told[key] = figure
        return told


async def follow(
    endpoint: Endpoint, tell: Tell, method: str, path: str, body: bytes, timeouts: Timeouts | None = None
) -> None:
    """Ask one host and tell its lines, to the line `success`. Raises what it says instead, or UpstreamBroken."""
    lines = Lines(endpoint.name)
    succeeded = False
    async with endpoint.pool.stream(method, path, body, resend=False, timeouts=timeouts) as stream:
        if stream.status != 200:
            raise refusal(stream.status, stream.headers, await beginning(stream), endpoint.name)
        async for block in stream:
            for line in lines.feed(block).split(b"\n"):
                succeeded |= bool(line.strip()) and await _told(endpoint, tell, line)
        if rest := lines.rest():
            succeeded |= await _told(endpoint, tell, rest)
    if not succeeded:
        text = f"{endpoint.name} ended without success"
        raise UpstreamBroken(text, endpoint=endpoint.name, code="upstream_eof")


async def beginning(stream: Stream) -> bytes:
    """What an error's body says, up to 64 KiB of it."""
    parts: list[bytes] = []
    async for block in stream:
        parts.append(block)
        if sum(map(len, parts)) >= ERROR_BYTES:
            break
    return b"".join(parts)[:ERROR_BYTES]


async def whole(endpoint: Endpoint, method: str, path: str, body: bytes, timeouts: Timeouts | None = None) -> None:
    """Ask one host for something that it answers in one piece. Raises what it says if it is not well."""
    fetched = await endpoint.pool.fetch(method, path, body, resend=False, timeouts=timeouts)
    if fetched.status not in (200, 201):
        raise refusal(*fetched, endpoint.name)


async def streamed(merged: Merged) -> Reply:
    """The merged lines as they come; the true status where every host refused before its first line."""
    begun = False
    try:
        begun = await merged.begun()
    finally:
        if not begun:
            await merged.aclose()
    if begun:
        return Reply(200, [(b"content-type", NDJSON)], merged)
    return json_reply(merged.results.told(), merged.results.status)


async def collected(merged: Merged) -> Reply:
    """The result alone, when it is there."""
    try:
        async for _ in merged:
            pass
    finally:
        await merged.aclose()
    return json_reply(merged.results.told(), merged.results.status)


def changed(endpoint: Endpoint) -> None:
    """Something was done to its models: what is remembered of them is asked for again."""
    endpoint.forget()
    endpoint.freshen()


async def _told(endpoint: Endpoint, tell: Tell, line: bytes) -> bool:
    """Tell one line; is it the one that says success?"""
    item = read_object(line, endpoint.name)
    if item.get("error") is not None:
        raise error_line(item["error"], endpoint.name)
    await tell(item)
    return item.get("status") == "success"


def _reason(error: ArenaError) -> str:
    return error.details or error.message


def _size(line: Line, key: str) -> int:
    value = line.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62 else 0
