"""A small application behind our server in a thread, and a client that speaks in bytes."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

from msgspec import Struct

from arena.server import Limits, Server, bind, serve
from arena.settings import Settings, load
from tests.sockets import readable
from tests.threads import end, in_thread

# what would hang without the server's limits must fail here, not at the time limit of the whole test
PATIENCE_S = 30.0
SHORT = Limits(
    head_s=0.4,
    body_idle_s=0.4,
    body_total_s=0.8,
    keep_alive_s=0.4,
    write_stall_s=0.6,
    linger_s=0.3,
    discard_bytes=1024 * 1024,
    sweep_s=0.1,
)
STOPPING = b'{"error":"The server is stopping","code":"server_shutting_down"}\n'


class Route(Struct, frozen=True):
    """What the application was asked, with what it read of the body and the headers it had at the end."""

    path: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class TinyApp:
    """Routes: /echo reads the body, /lazy does not, /stream, /flood, /gated and /stubborn run until something ends."""

    def __init__(self) -> None:
        self.seen: SimpleQueue[Route] = SimpleQueue()
        self.gone: SimpleQueue[str] = SimpleQueue()
        self.drained = self.reloads = 0
        self.draining = threading.Event()
        self.fails_to_start = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate = asyncio.Event()
        self._stop = asyncio.Event()

    def drain(self) -> None:
        """The server stops."""
        self.drained += 1
        self.draining.set()
        self._stop.set()

    def reload(self) -> None:
        """Somebody asks to read the configuration again."""
        self.reloads += 1

    def open_gate(self) -> None:
        """Let /gated go on, from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._gate.set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path = scope["path"]
        serve: Callable[[Any, Any, Any], Any] = {
            "/lazy": self._lazy,
            "/stream": self._stream,
            "/gradio_api/heartbeat/1": self._endless,
            "/flood": self._flood,
            "/gated": self._gated,
            "/stubborn": self._stubborn,
            "/mumble": self._mumble,
            "/large": self._large,
            "/reloads": self._reloads,
        }.get(path, self._echo)
        await serve(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            kind = (await receive())["type"]
            if self.fails_to_start:
                await send({"type": f"{kind}.failed", "message": "no luck"})
                return
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _body(self, receive: Any) -> bytes | None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message["body"]
            more = message["more_body"]
        return body

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = await self._body(receive)
        if body is None:
            self.gone.put(scope["path"])
            return
        self.seen.put(Route(scope["path"], body, tuple(scope["headers"])))
        await self._answer(send, b"%d" % len(body))

    async def _lazy(self, scope: Any, receive: Any, send: Any) -> None:
        await self._answer(send, b"lazy")

    async def _reloads(self, scope: Any, receive: Any, send: Any) -> None:
        await self._answer(send, b"%d" % self.reloads)

    async def _large(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"x" * 16_000_000})

    @staticmethod
    async def _answer(send: Any, body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    @staticmethod
    async def _begin(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"token":"a"}\n', "more_body": True})

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        await self._begin(send)
        await self._stop.wait()
        await send({"type": "http.response.body", "body": STOPPING})

    async def _endless(self, scope: Any, receive: Any, send: Any) -> None:
        await self._begin(send)
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone.put(scope["path"])

    async def _mumble(self, scope: Any, receive: Any, send: Any) -> None:
        await self._begin(send)
        await self._body(receive)
        self.gone.put(scope["path"])

    async def _flood(self, scope: Any, receive: Any, send: Any) -> None:
        await self._begin(send)
        leaves = asyncio.ensure_future(self._endless_read(receive))
        while not leaves.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        self.gone.put(scope["path"])

    @staticmethod
    async def _endless_read(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _gated(self, scope: Any, receive: Any, send: Any) -> None:
        await self._gate.wait()
        await self._echo(scope, receive, send)

    async def _stubborn(self, scope: Any, receive: Any, send: Any) -> None:
        await self._begin(send)
        try:
            await asyncio.Event().wait()
        finally:
            self.gone.put("/stubborn cancelled")


class Running(Struct, frozen=True):
    """A server in a thread, its application and its port."""

    app: TinyApp
    server: Server
    thread: threading.Thread
    port: int

    def stop(self) -> None:
        """Tell it to stop, as a signal would, and wait."""
        end(self.server, self.thread)


@contextmanager
def running(limits: Limits = SHORT, *, drain_s: float = 2.0, settings: Settings | None = None) -> Iterator[Running]:
    """Serve a TinyApp in a thread until the block ends."""
    chosen = settings or load(port=0, drain_s=drain_s)
    app, ready = TinyApp(), threading.Event()
    sockets = bind(chosen)
    server = Server(app, chosen, sockets, limits=limits, on_ready=lambda url: ready.set())
    with in_thread(server, ready) as thread:
        yield Running(app, server, thread, sockets[0].getsockname()[1])


class Reply(Struct, frozen=True):
    """One answer off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The word of an error of the server's own; it is small JSON."""
        assert self.headers["content-type"] == "application/json"
        assert len(self.body) <= 1024
        return str(json.loads(self.body)["code"])


class Wire:
    """A client's connection, in bytes."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_S)
        # before the connection: the server, whose times begin with it, may have it earlier than we are told so
        self.opened_at = time.monotonic()
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        """Send all of it; a server that has hung up meanwhile is not an error."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
        return self

    def ask(self, path: str = "/echo", *, headers: bytes = b"", body: bytes = b"") -> Wire:
        """Send one well-formed POST."""
        length = b"Content-Length: %d\r\n" % len(body) if b"chunked" not in headers else b""
        return self.send(b"POST %s HTTP/1.1\r\nHost: h\r\n%s%s\r\n%s" % (path.encode(), length, headers, body))

    def _more(self) -> bool:
        try:
            piece = self.socket.recv(65536)
        except ConnectionResetError:
            piece = b""
        self._buffer += piece
        return bool(piece)

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while mark not in self._buffer:
            assert self._more(), f"closed before {mark!r}; had {self._buffer[:300]!r}"
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    def reply(self) -> Reply:
        """The next answer that has a Content-Length."""
        lines = self.until(b"\r\n\r\n").decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        size = int(headers.get("content-length", 0))
        while len(self._buffer) < size:
            assert self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Reply(int(lines[0].split(" ")[1]), headers, body)

    def closed(self) -> float:
        """Read to the end; the seconds since the connect."""
        while self._more():
            pass
        return time.monotonic() - self.opened_at

    def quiet(self, seconds: float) -> bool:
        """Does nothing come, not even the end, for so long?"""
        return not readable(self.socket, within_s=seconds)

    def reset(self) -> float:
        """Wait for the server to cut the connection, reading nothing; the seconds since the connect."""
        poll = select.poll()
        poll.register(self.socket, 0)
        assert poll.poll(PATIENCE_S * 1000)
        return time.monotonic() - self.opened_at

    def rest(self) -> bytes:
        """Everything to the end."""
        self.closed()
        return self._buffer


if __name__ == "__main__":
    # for tests that need a process: the environment says how
    serve(lambda settings: TinyApp(), load())
