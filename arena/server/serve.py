"""Binding, serving and stopping: one process, one worker, an end that every running answer can be proud of."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, Protocol, runtime_checkable

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from arena import keys
from arena.errors import SettingsError
from arena.exchange import Direct
from arena.server.limits import DEFAULT_LIMITS, Limits
from arena.server.protocol import LimitedProtocol, State
from arena.server.refusal import Wording
from arena.settings import Settings
from arena.wire import keepalive

log = logging.getLogger(__name__)

# streams that never end by themselves: the page's heartbeat, and its queue of events
ENDLESS: Final = ("/gradio_api/heartbeat/", "/gradio_api/queue/data")
LAST_WORDS_S: Final = 0.3
CUT_S: Final = 0.3
STEP_S: Final = 0.02
FORCED_S: Final = 0.9
MAX_DESCRIPTORS: Final = 1_048_576
CLIENT_GONE_S: Final = 60
"""A client without a sign of life for so many seconds has left without a word; nothing must run for it any longer."""


class Application(Protocol):
    """An ASGI application that can be told to stop."""

    def __call__(self, scope: Any, receive: Any, send: Any, /) -> Awaitable[None]: ...

    def drain(self) -> None:
        """Refuse new work, and have every running answer end with a well-formed last line."""


@runtime_checkable
class Reloadable(Protocol):
    """An application that can read its configuration again while it runs."""

    def reload(self) -> None:
        """Begin to; what is wrong with it is told in the log, and nothing changes then."""


class Server(uvicorn.Server):
    """Serves `app` on `sockets`; `on_ready` is called with the address once it does.

    `run()` returns after a signal, or when another thread sets `should_exit`.
    """

    def __init__(
        self,
        app: Application,
        settings: Settings,
        sockets: Sequence[socket.socket],
        *,
        limits: Limits = DEFAULT_LIMITS,
        on_ready: Callable[[str], None] = lambda url: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                interface="asgi3",
                lifespan="on",
                log_config=None,
                access_log=settings.log_level == "debug",
                proxy_headers=False,
                server_header=False,
                backlog=limits.backlog,
            )
        )
        direct, wording = app if isinstance(app, Direct) else None, app if isinstance(app, Wording) else None
        self.server_state: State = State(limits, direct, wording)
        self.url = address_of(settings, sockets)
        self._app = app
        self._drain_s = settings.drain_s
        self._limits = limits
        self._sockets = list(sockets)
        self._on_ready = on_ready
        self._in_terminal = _in_terminal()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchdogs: list[threading.Timer] = []
        self._sweep_ticks = max(1, round(limits.sweep_s * 10))

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        try:
            super().run(self._sockets if sockets is None else sockets)
        finally:
            for watchdog in self._watchdogs:
                watchdog.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections."""
        await super().startup(sockets)
        # What start-up has built stays for good: without a look at it, a collection costs a stream no 100 ms.
        gc.collect()
        gc.freeze()
        self._count_descriptors()
        self._loop = asyncio.get_running_loop()
        self._on_ready(self.url)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: refresh the date, and now and then sweep out overdue connections."""
        if counter % self._sweep_ticks == 0:
            self._count_descriptors()
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.sweep(now)
        return await super().on_tick(counter)

    def _connections(self) -> list[LimitedProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, LimitedProtocol)]

    def _count_descriptors(self) -> None:
        """How many connections there may be, beside the descriptors that other work holds now."""
        limit, used = descriptors()
        if limit is not None:
            others = max(0, used - len(self.server_state.connections))
            self.server_state.max_connections = limit * self._limits.descriptor_share - others

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second one ends at once."""
        second = self.should_exit
        # whatever hangs on the way out, a thread in a C call for one, does not keep the process
        watchdog = threading.Timer(FORCED_S if second else self._drain_s + FORCED_S, os._exit, [0])
        watchdog.daemon = True
        self._watchdogs.append(watchdog)  # before there is a reason to stop: `run()` calls off those it knows
        watchdog.start()
        self.force_exit = self.force_exit or second
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that mean stop; unlike uvicorn, the process then ends by itself with status 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            # once stopping, a late signal must not turn the orderly end into a kill
            for number, handler in () if self.should_exit else before.items():
                signal.signal(number, handler)

    def _hang_up(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP: somebody asks to read the configuration again, unless the terminal we were started in is gone."""
        if self._in_terminal and not _in_terminal():
            self.handle_exit(sig, frame)
        elif isinstance(self._app, Reloadable) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._app.reload)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: new work is refused, running answers say goodbye within the time set, the rest is cut."""
        deadline = asyncio.get_running_loop().time() + self._drain_s
        log.info("stopping")
        self._app.drain()
        for connection in self._connections():
            connection.shutdown()
        await self._answers_end(deadline)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await self._cut()
        with suppress(asyncio.TimeoutError):
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait_for(self.lifespan.shutdown(), CUT_S if self.force_exit else max(CUT_S, remaining))

    async def _answers_end(self, deadline: float) -> None:
        """Wait until no answer runs, or only endless ones that had time for their last words."""
        now = asyncio.get_running_loop().time
        last_words = now() + LAST_WORDS_S
        while not self.force_exit and now() < deadline:
            running = {connection.path for connection in self._connections()} - {""}
            if not running or (now() > last_words and all(is_endless(path) for path in running)):
                return
            if not all(is_endless(path) for path in running):
                last_words = now() + LAST_WORDS_S
            await asyncio.sleep(STEP_S)

    async def _cut(self) -> None:
        """Drop the connections that are left; their tasks see the client leave, then are cancelled."""
        for connection in self._connections():
            connection.reset() if connection.path else connection.transport.abort()
        for cancel in (False, True):
            tasks = set(self.server_state.tasks)
            if cancel:
                for task in tasks:
                    task.cancel("the server is stopping")
            if tasks:
                await asyncio.wait(tasks, timeout=CUT_S / 2)


def serve(
    build: Callable[[Settings], Application],
    settings: Settings,
    *,
    limits: Limits = DEFAULT_LIMITS,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve what `build` makes until a signal says stop; then return.

    Raises SettingsError before anything is built when the address is public without a token, or taken.
    """
    settings.check_bind()
    sockets = bind(settings, limits.backlog)
    try:
        raise_descriptor_limit()
        Server(build(settings), settings, sockets, limits=limits, on_ready=on_ready or tell(settings)).run()
    finally:
        for listener in sockets:
            listener.close()


def tell(settings: Settings) -> Callable[[str], None]:
    """Say on standard output where the arena is, and what it asks for."""

    def on_ready(url: str) -> None:
        lines = [f"Ollama Arena is running on {url}"]
        asked = ["the token in WEB_CHAT_TOKEN"] if settings.token else []
        if keys.read(settings.data / keys.FILE):
            asked.append("a named key")
        if asked:
            lines.append(f"It asks for {' or '.join(asked)}.")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    return on_ready


def bind(settings: Settings, backlog: int = 1024) -> list[socket.socket]:
    """Listen on the settings' host and port. Raises SettingsError naming the remedy when that is impossible.

    A name may have several addresses; those that this machine does not have (IPv6, often) are passed over.
    """
    opened: list[socket.socket] = []
    absent: OSError | None = None
    port = settings.port
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                opened.append(_listener(family, (address[0], port, *address[2:]), backlog))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
            else:
                port = opened[-1].getsockname()[1]
        if absent is not None and not opened:
            raise absent
    except OSError as error:
        for listener in opened:
            listener.close()
        raise SettingsError(_why_not(settings, error)) from None
    return opened


def _listener(family: int, address: tuple[Any, ...], backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # else the port would be taken for a minute after the last run
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keepalive.ask_after(listener, CLIENT_GONE_S)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {settings.port} on {settings.host} is already in use. "
            "Stop the program that uses it, or set ARENA_PORT to another port (0 picks a free one)."
        )
    if error.errno == errno.EACCES:
        return f"Port {settings.port} needs administrator rights. Set ARENA_PORT to a port above 1023."
    return f"ARENA_HOST={settings.host}: cannot listen there ({error.strerror})."


def address_of(settings: Settings, sockets: Sequence[socket.socket]) -> str:
    """The address to open in a browser on this machine."""
    port = sockets[0].getsockname()[1]
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{port}{settings.root_path}"


def _in_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def is_endless(path: str) -> bool:
    """Does the stream at `path` last as long as its page?"""
    return any(part in path for part in ENDLESS)


def raise_descriptor_limit() -> None:
    """Let the process open as many files as the system allows: each stream needs two."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptors() -> tuple[int | None, int]:
    """(how many files the process may have open, how many it has); no limit is None."""
    try:
        import resource

        used = len(os.listdir("/dev/fd"))
    except (ImportError, OSError):
        return None, 0
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (None if soft == resource.RLIM_INFINITY else soft), used
