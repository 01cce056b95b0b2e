"""The connections to one endpoint."""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from arena.errors import ArenaError, Busy, ShuttingDown, Unreachable, UpstreamBroken
from arena.wire.answer import Headers
from arena.wire.call import Call, Timeouts
from arena.wire.connection import Connection
from arena.wire.raw import RawCall, Receiver
from arena.wire.resolve import NameNotFound, Resolver
from arena.wire.stream import Stream
from arena.wire.upload import Upload

MIB = 1024 * 1024
MAX_FETCH_BYTES = 64 * MIB
ERROR_BYTES = 64 * 1024
"""How much of an error's body is kept."""
MAX_IDLE = 32
MAX_STARTS = 64
IDLE_S = 30.0
"""A kept-alive connection is closed after this many seconds without a call."""

EXHAUSTED = "no_more_connections"
"""The code of the error when this machine, not the endpoint, can have no more connections."""
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_SIZED = b"%bContent-Length: %d\r\n\r\n"
_TARGET = re.compile(r"/[!-~]*")
_FRAMED = re.compile(rb"(?im)^(?:content-length|transfer-encoding):")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~]*")


class Fetched(NamedTuple):
    """A whole answer. An error's body may be cut."""

    status: int
    headers: Headers
    body: bytes


class Pool:
    """Calls to one endpoint, over connections that are kept alive and used again.

    `base_url` is http or https, with an optional path before every target; `name` is what errors call the endpoint.
    `headers` go with every request, the credentials among them. TLS certificates are verified unless `verify` is off
    (`tls` replaces the whole context). No redirect is followed, no proxy setting of the environment is read. Nothing
    is opened before the first call.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str = "",
        timeouts: Timeouts | None = None,
        headers: Iterable[tuple[str, str]] = (),
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        verify: bool = True,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must look like http://host:port")
        self.name = name or parts.netloc
        self.timeouts = timeouts or Timeouts()
        self._host = parts.hostname
        secure = parts.scheme == "https"
        self._port = parts.port or (443 if secure else 80)
        self._tls = (tls or _context(verify)) if secure else None
        self._prefix = parts.path.rstrip("/")
        headers = tuple(headers)
        self._own = _fields([("Host", parts.netloc), *headers])
        self._common = _fields([("Host", parts.netloc), ("Accept-Encoding", "identity"), *headers])
        self._raw_prefix = self._prefix.encode("ascii")
        self.own_headers = frozenset(name.lower().encode("ascii") for name, _ in headers)
        self._own_resolver = resolver is None
        self._resolver = resolver or Resolver()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._dials: dict[asyncio.Task[None], Call] = {}
        self._reaper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._closed = False
        self._starts: dict[tuple[str, str], bytes] = {}

    @property
    def open_connections(self) -> int:
        """Connections open now, idle ones included."""
        return len(self._connections)

    @property
    def idle_connections(self) -> int:
        """Connections kept for the next call."""
        return len(self._idle)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        on_data: Callable[[bytes], None],
        headers: Iterable[tuple[str, str]] = (),
        resend: bool = True,
        timeouts: Timeouts | None = None,
    ) -> Call:
        """Send a request; never waits. A `body` is JSON unless `headers` name another type.

        With `resend`, a kept-alive connection is used where there is one, and if that turns out dead before a byte
        came back, the request goes out once more. Without (what must not happen twice), a new connection is opened.
        """
        start = None if body is None or headers else self._starts.get((method, path))
        head = self._head(method, path, body, headers) if start is None else _SIZED % (start, len(body or b""))
        call = Call(self.name, method, (head, body or b""), on_data, resend=resend, timeouts=timeouts or self.timeouts)
        self._dispatch(call)
        return call

    def forward(
        self,
        method: str,
        target: bytes,
        fields: bytes,
        body: bytes,
        receiver: Receiver,
        *,
        may_wait: Callable[[], bool] | None = None,
    ) -> RawCall:
        """Send somebody else's request; never waits. The answer goes to `receiver`, its headers as they came.

        `target` and `fields` (whole header lines, with the body's length, without those in `own_headers`) are sound.
        As long as `may_wait` says so, an answer of which no more than a head has come in time is waited for, up to the
        total limit.
        """
        head = b"%b %b%b HTTP/1.1\r\n%b%b\r\n" % (method.encode("ascii"), self._raw_prefix, target, self._own, fields)
        call = RawCall(
            self.name, method, (head, body), receiver, resend=True, timeouts=self.timeouts, may_wait=may_wait
        )
        self._dispatch(call)
        return call

    def unheard(self, since_s: float) -> list[Call]:
        """What waits for a first byte since `since_s` and could go elsewhere; none if an answer came since then."""
        calls = [connection.call for connection in self._connections if connection.call is not None]
        if any(connection.idle_since_s >= since_s for connection in self._connections):
            return []
        if any(call.heard_since(since_s) for call in calls):
            return []
        return [call for call in calls if call.unheard_since(since_s)]

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        limit_bytes: int = 8 * MIB,
        headers: Iterable[tuple[str, str]] = (),
        resend: bool = True,
        timeouts: Timeouts | None = None,
    ) -> Fetched:
        """Send a request and wait for the whole answer. Over `limit_bytes` (64 MiB at most) it is UpstreamBroken.

        Cancelling the waiting task hangs up.
        """
        limit_bytes = min(limit_bytes, MAX_FETCH_BYTES)
        parts: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            parts.append(data)
            if call.status >= 400 and size >= ERROR_BYTES:
                call.release()
            elif size > limit_bytes:
                text = f"{self.name} sent more than {limit_bytes} bytes for {path}"
                raise UpstreamBroken(text, endpoint=self.name, code="answer_too_large")

        call = self.call(method, path, body, on_data=take, headers=headers, resend=resend, timeouts=timeouts)
        try:
            await call.done
        finally:
            call.cancel()
        return Fetched(call.status, call.headers, b"".join(parts))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        resend: bool = True,
        timeouts: Timeouts | None = None,
    ) -> AsyncIterator[Stream]:
        """Send a request and wait for the head of its answer; the body is read as fast as it is taken, and no faster.

        Leaving the block hangs up at once, unless the answer is complete.
        """
        stream = Stream()
        stream.call = call = self.call(
            method, path, body, on_data=stream.take, headers=headers, resend=resend, timeouts=timeouts
        )
        call.done.add_done_callback(stream.ended)
        try:
            await call.head
            yield stream
        finally:
            call.cancel()

    @asynccontextmanager
    async def upload(
        self,
        path: str,
        size_bytes: int | None,
        *,
        headers: Iterable[tuple[str, str]] = (),
        timeouts: Timeouts | None = None,
    ) -> AsyncIterator[Upload]:
        """POST a body that is written piece by piece (None: of unknown size), on a connection of its own."""
        framing = ("Transfer-Encoding", "chunked") if size_bytes is None else ("Content-Length", str(size_bytes))
        head = self._head("POST", path, None, [*headers, framing])
        call = Upload(self.name, head, chunked=size_bytes is None, timeouts=timeouts or self.timeouts)
        self._dispatch(call)
        try:
            yield call
        finally:
            call.cancel()

    async def aclose(self) -> None:
        """End all calls with ShuttingDown and wait until every connection is closed."""
        self._closed = True
        self._stop_reaper()
        dials = dict(self._dials)
        calls = [*dials.values(), *(c.call for c in self._connections if c.call is not None)]
        for call in calls:
            call.fail(ShuttingDown(f"The connections to {self.name} are closed."))
        if dials:
            await asyncio.wait(dials)
        for connection in tuple(self._connections):
            connection.drop()
        if self._connections:
            if self._emptied is None:  # whoever closes it a second time waits for the same
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)
        if self._own_resolver:
            await self._resolver.aclose()

    def again(self, call: Call) -> None:
        """Open a new connection for `call`."""
        task = asyncio.get_running_loop().create_task(self._dial(call), name=f"connect {self.name}")
        self._dials[task] = call
        task.add_done_callback(self._dialed)
        call.dialing(task)

    def opened(self, connection: Connection) -> None:
        """A connection is open."""
        self._connections.add(connection)

    def idle(self, connection: Connection) -> None:
        """A connection has served its call and may serve another."""
        if self._closed or len(self._idle) >= MAX_IDLE:
            connection.drop()
            return
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(IDLE_S, self._reap)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)
        if not self._idle:
            self._stop_reaper()
        if not self._connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _dispatch(self, call: Call) -> None:
        """Send the request on a connection that is open, or on a new one."""
        if self._closed:
            call.fail(ShuttingDown(f"The connections to {self.name} are closed."))
            return
        while call.resend and self._idle:
            connection = self._idle.pop()  # the one that served last: the others get a chance to grow old
            if connection.usable:
                connection.send(call)
                return
        self.again(call)

    def _reap(self) -> None:
        """Close what has not been used for long; one timer for all."""
        self._reaper = None
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - IDLE_S
        for connection in [c for c in self._idle if c.idle_since_s <= oldest_s]:
            self._idle.remove(connection)
            connection.drop()
        if self._idle:
            self._reaper = loop.call_at(self._idle[0].idle_since_s + IDLE_S, self._reap)

    def _stop_reaper(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None

    async def _dial(self, call: Call) -> None:
        """Try the addresses in order; the request goes out from within the connection's own callback.

        If all fail, the first one's reason is the telling one: the others are often not in use at all. Less telling is
        only that this machine has no connection left.
        """
        addresses = await self._resolver.resolve(self._host)
        share_s = call.timeouts.connect_s / len(addresses)
        reason: ArenaError | None = None
        for address in addresses:
            try:
                async with asyncio.timeout(share_s):
                    await self._open(call, address)
                    return
            except OSError as error:
                if call.done.done():
                    return
                if reason is None or isinstance(reason, Busy):
                    reason = self._unreachable(error, address)
        raise reason or NameNotFound(f"the name {self._host} has no address")

    async def _open(self, call: Call, address: str) -> None:
        connection = Connection(self, call)
        opened = False
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
            opened = True
        finally:
            if not opened:
                connection.abandoned()

    def _dialed(self, task: asyncio.Task[None]) -> None:
        call = self._dials.pop(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, OSError):
            call.fail(self._unreachable(error))
        elif error is not None:
            call.fail(error)

    def _unreachable(self, error: OSError, address: str = "") -> ArenaError:
        """Why no connection came about; that none can be had here is not the endpoint's failure.

        Where IPv6 is switched off, the system says of its addresses what it says when it has no port left.
        """
        if error.errno in _OURS and not (error.errno == errno.EADDRNOTAVAIL and ":" in address):
            text = f"The server cannot open one more connection ({_reason(error)}); try again"
            return Busy(text, code=EXHAUSTED, details=str(error))
        text = f"{self.name} is not reachable: {_reason(error)}"
        return Unreachable(text, endpoint=self.name, details=str(error))

    def _head(self, method: str, path: str, body: bytes | None, headers: Iterable[tuple[str, str]]) -> bytes:
        if body is not None and not headers:  # JSON to one of a few paths: all but the length is known
            start = self._starts.get((method, path))
            if start is None:
                start = self._head(method, path, None, [("Content-Type", "application/json")])
                start = start.removesuffix(b"\r\n").removesuffix(b"Content-Length: 0\r\n")
                if len(self._starts) < MAX_STARTS:
                    self._starts[method, path] = start
            return _SIZED % (start, len(body))
        if not _TARGET.fullmatch(path) or not method.isalpha():
            raise ValueError("not a request target")
        own = _fields(headers)
        if body is not None:
            if b"content-type:" not in own.lower():
                own += b"Content-Type: application/json\r\n"
            own += b"Content-Length: %d\r\n" % len(body)
        elif method not in ("GET", "HEAD") and not _FRAMED.search(own):
            own += b"Content-Length: 0\r\n"
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n".encode("ascii") + self._common + own + b"\r\n"


def _fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines; ValueError for one that would break out of its line."""
    lines = [f"{name}: {value}" for name, value in headers]
    if not all(_FIELD.fullmatch(line) for line in lines):
        raise ValueError("not a header")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    """Why no connection could be made, in plain words."""
    if isinstance(error, NameNotFound):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS"
    return error.strerror or "no connection"
