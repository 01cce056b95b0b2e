"""A runner without llama.cpp: it answers each request with bytes that the test chose, one piece at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from arena.engine.models import LocalModel
from arena.engine.options import Loading
from arena.wire import Pool

TIMINGS = {"cache_n": 0, "prompt_n": 4, "prompt_ms": 1.0, "predicted_n": 20, "predicted_ms": 10.0}
Pieces = list[dict[str, Any] | bytes | None]
END = {"choices": [], "timings": TIMINGS}


def delta(finish: str | None = None, **content: Any) -> dict[str, Any]:
    """One chunk of a chat."""
    return {"choices": [{"index": 0, "finish_reason": finish, "delta": content}]}


class Played:
    """The process that the script plays, from one load to its end."""

    def __init__(self, port: int) -> None:
        self.context = 4096
        self.pool = Pool(f"http://127.0.0.1:{port}", headers=[("Authorization", "Bearer secret")])
        self.dead = asyncio.Event()
        self.gone = False

    async def ended(self) -> None:
        await self.dead.wait()

    async def kill(self) -> None:
        self.dead.set()
        await self.pool.aclose()

    def cause(self) -> str:
        return "unexpected EOF"

    def memory_bytes(self) -> int | None:
        return None


class Scripted:
    """The script, and the launch of those who play it; `dead` ends the one launched last.

    `pieces` are sent as server-sent events; None waits for `go_on`. `asides` are the pieces of other paths.
    """

    def __init__(self) -> None:
        self.port = 0
        self.dead = asyncio.Event()
        self.go_on = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        self.reset()

    def reset(self) -> None:
        """Begin anew, for the next test; what still waits goes on and ends."""
        self.go_on.set()
        self.dead.set()
        self.pieces: Pieces = [delta(content="hi"), delta("stop"), END]
        self.status = 200
        self.go_on = asyncio.Event()
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.requests: list[dict[str, Any]] = []
        self.asides: dict[str, Pieces] = {}
        self.aside_status = 200
        self.aside = asyncio.Event()

    async def __call__(self, model: LocalModel, loading: Loading) -> Played:
        child = Played(self.port)
        self.dead = child.dead
        return child

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scripted]:
        """Listen on a port for the length of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.go_on.set()
            server.close()
            await server.wait_closed()
            if self._serving:
                await asyncio.wait(self._serving, timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("Content-Length"))
            assert "Authorization: Bearer secret" in head
            self.requests.append(json.loads(await reader.readexactly(length)))
            pieces = self.asides.get(head.split()[1])
            (self.asked if pieces is None else self.aside).set()
            gone = asyncio.create_task(self._watch(reader))
            if pieces is None:
                await self._answer(writer, self.status, self.pieces)
            else:
                await self._answer(writer, self.aside_status, pieces)
            writer.close()
            await gone
        except (OSError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            await reader.read()
        self.hung_up.set()

    async def _answer(self, writer: asyncio.StreamWriter, status: int, pieces: Pieces) -> None:
        kind = b"text/event-stream" if status == 200 else b"application/json"
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % (status, kind))
        go_on = self.go_on
        for piece in pieces:
            if piece is None:
                await go_on.wait()
                continue
            data = piece if isinstance(piece, bytes) else b"data: " + json.dumps(piece).encode() + b"\n\n"
            if data == b"cut":
                writer.transport.abort()
                return
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
