"""uvicorn's HTTP protocol under limits: the head counted before it is parsed, every stage of a request against time.

No timer belongs to a connection: it notes when its stage began, and the server's sweep asks each one once a second
whether it is overdue. A running stream costs nothing here.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from arena.exchange import SHARED, Begin, Direct, header_lines
from arena.log import request_id
from arena.server.direct import Exchange
from arena.server.head import END, Flaw, flaw, in_origin_form, partial_flaw, without_upgrade
from arena.server.known import MAX_BODY_BYTES, KnownHead, KnownHeads
from arena.server.limits import Limits
from arena.server.old import end_in_reset, unchunked
from arena.server.refusal import CROWDED, NOT_HTTP, TOO_SLOW, Plain, Wording, answer_to, path_in


class Stage(Enum):
    """Where a connection stands."""

    IDLE = "between two requests"
    HEAD = "the head is arriving"
    BODY = "the body is arriving"
    BUSY = "the request is complete, the answer is not"
    DISCARD = "the answer is complete, the body is not"
    LINGER = "refused; the client may read why"


class State(ServerState):
    """What all connections share: limits, how many descriptors are left, and what answers past ASGI, if anything.

    `wording` is how refusals are told.
    """

    def __init__(self, limits: Limits, direct: Direct | None = None, wording: Wording | None = None) -> None:
        super().__init__()
        self.limits = limits
        self.direct = direct
        self.wording = wording or Plain()
        self.known = KnownHeads()
        self.max_connections: float = float("inf")
        self._written: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    @property
    def crowded(self) -> bool:
        """Are so many connections open that there may be no descriptors for the work they ask for?"""
        return len(self.connections) > self.max_connections

    @property
    def common_lines(self) -> bytes:
        """The lines of the headers that every answer has; uvicorn makes a new list of those once a second."""
        headers, lines = self._written
        if headers is not self.default_headers:
            headers = self.default_headers
            lines = header_lines(headers)
            self._written = headers, lines
        return lines


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.state = server_state
        self._limits = server_state.limits
        self._stage = Stage.HEAD
        self._since = self._last = self.loop.time()
        self._waiting = bytearray()
        self._unread = 0
        self._chunked = False
        self._framing = 0
        self._taken = 0
        self._discarded = 0
        self._in_head = False
        self._deaf = False
        self._turned_away = False
        self._untaken = -1
        self._taken_at = 0.0
        self._ready: Exchange | None = None
        self._parsing = True
        self._head: bytes | None = None
        self._seen: tuple[KnownHead, dict[str, Any]] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; beyond the last descriptors we can spare, only to say so."""
        super().connection_made(transport)
        self._turned_away = self.state.crowded

    # what arrives

    def eof_received(self) -> None:
        """The client has hung up: whoever works for it hears of it now, not after all that is written was taken."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes to the stage they belong to."""
        stage = self._stage
        if stage is Stage.IDLE and not self._turned_away:
            self._take_head(data)
        elif stage is Stage.BODY or stage is Stage.DISCARD:
            self._take_body(data)
        elif stage is Stage.LINGER or self._deaf:
            self._discard(data)
        elif self._turned_away:
            self._refuse(CROWDED, data)
        elif stage is Stage.BUSY:
            self._take_early(data)
        else:
            self._take_head(data)
        ready, self._ready = self._ready, None
        if ready is not None and self.state.direct is not None and not ready.disconnected:
            ready.begin(self.state.direct)
            if self.flow.write_paused:
                ready.pause()  # it could not be told before it had begun

    def _take_early(self, data: bytes) -> None:
        """The next request before the answer to this one: kept, but not more than a head of it.

        Reading goes on all the same: only so a client that leaves is noticed.
        """
        self._waiting += data
        if len(self._waiting) > self._limits.head_bytes:
            self.cycle.keep_alive = False
            self._deaf = True
            self._waiting.clear()

    def _take_head(self, data: bytes) -> None:
        if self._waiting:
            searched = max(0, len(self._waiting) - len(END) + 1)
            self._waiting += data
            end = self._waiting.find(END, searched)
            data = bytes(self._waiting) if end >= 0 else b""
        else:
            # an empty line before a request is left over from an old client's last body
            data = data.lstrip(b"\r\n") if data[:1] in b"\r\n" else data
            end = data.find(END)
            if end < 0:
                self._waiting += data
        if end < 0:
            if self._stage is Stage.IDLE:
                self._enter(Stage.HEAD)
            wrong = partial_flaw(self._waiting, self._limits)
            if wrong is not None:
                self._refuse(wrong, self._waiting)
            return
        if self._waiting:
            self._waiting.clear()
        end += len(END)
        self._begin_request(data[:end], data[end:])

    def _begin_request(self, head: bytes, rest: bytes) -> None:
        self._unread = self._framing = self._taken = self._discarded = 0
        self._chunked = False
        if self.state.direct is not None:
            known = self.state.known.find(head)
            if known is not None:
                self._begin_known(known, rest)
                return
            self._head = head
        wrong = flaw(head, self._limits)
        if wrong is not None:
            self._refuse(wrong, head)
            return
        self._in_head = self._parsing = True
        self._enter(Stage.BODY)
        self._feed(without_upgrade(in_origin_form(head)))
        if rest:
            self.data_received(rest)

    def _begin_known(self, known: KnownHead, rest: bytes) -> None:
        """Begin a request whose head was read before, with its body: the parser sees neither."""
        size, seen = known.size, self._seen
        if seen is None or seen[0] is not known:
            self._seen = seen = known, known.scope_of(self.client, self.scheme)
        self.cycle = exchange = Exchange(self, known.begin, seen[1], known.keep_alive)  # type: ignore[assignment]
        if len(rest) < size:
            self._unread, self._parsing = size, False
            self._enter(Stage.BODY)
            if rest:
                self._take_body(rest)
            return
        self._ready = exchange
        self._stage = Stage.BUSY
        exchange.body = rest[:size]
        if len(rest) > size:
            self._take_early(rest[size:])

    def _take_body(self, data: bytes) -> None:
        """Feed exactly the body: a declared length ends where it says, a chunked one where the parser says."""
        self._last = self.loop.time()
        self._taken += len(data)
        if self._stage is Stage.DISCARD and not self._discard(data):
            return
        if not self._chunked:
            body, rest = data[: self._unread], data[self._unread :]
            self._unread -= len(body)
            if self._parsing:
                self._feed(body)
            else:
                self.on_body(body)
                if not self._unread:
                    self.on_message_complete()
            if rest:
                self.data_received(rest)
            return
        self._framing += len(data)
        self._feed(data)
        if self._framing > self._limits.framing_bytes and self._stage is Stage.BODY:
            self._refuse(NOT_HTTP)

    def _discard(self, data: bytes) -> bool:
        """Count bytes nobody wants; False once there were too many, and the connection is gone."""
        self._discarded += len(data)
        if self._discarded <= self._limits.discard_bytes:
            return True
        self.transport.abort()
        return False

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(NOT_HTTP, data)

    # what the parser says

    def on_message_begin(self) -> None:
        """A request begins; one that hides behind a chunked body is dropped with all that follows."""
        if self._in_head:
            self.url = b""
            self.headers = []
            self.expect_100_continue = False
        else:
            self._deaf = True
            self.cycle.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what comes after a chunked body (a trailer) must not change the request."""
        if not self._in_head:
            return
        lower = name.lower()
        self.headers.append((lower, value))
        if lower == b"content-length":
            self._unread = int(value)
        elif lower == b"transfer-encoding":
            self._chunked = True
        elif lower == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """The head is complete: the application starts, or waits for the body of a request that it takes directly."""
        if not self._in_head:
            return
        self._in_head = False
        if (found := self._direct_request()) is not None:
            begin, scope = found
            keep_alive = self.parser.should_keep_alive()
            if self._head is not None:
                scope[SHARED] = {}
                self.state.known.keep(self._head, begin, scope, self._unread, keep_alive=keep_alive)
                self._head = None
            self.cycle = Exchange(self, begin, scope, keep_alive)  # type: ignore[assignment]
            return
        if self.parser.get_http_version() == "1.0":
            self.app = unchunked(self.app, lambda: self.cycle)  # no other request follows on this connection
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def _direct_request(self) -> tuple[Begin, dict[str, Any]] | None:
        """What answers a plain request past ASGI, and what that reads of it; None for every other request."""
        direct = self.state.direct
        if direct is None or self._chunked or self._unread > MAX_BODY_BYTES or self.expect_100_continue:
            return None
        raw_path, _, query = self.url.partition(b"?")
        if b"%" in raw_path or b"#" in self.url or self.parser.get_http_version() != "1.1":
            return None
        method, path = self.parser.get_method().decode("ascii"), raw_path.decode("latin-1")
        begin = direct.direct(method, path)
        if begin is None:
            return None
        return begin, {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": self.headers,
            "client": self.client,
            "scheme": self.scheme,
        }

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._deaf:
            return
        self._framing = 0
        if isinstance(self.cycle, Exchange):
            self.cycle.body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived."""
        if self._deaf:
            return
        if isinstance(self.cycle, Exchange):
            self._ready = self.cycle  # it begins when the parser is out of the way, and what follows is put aside
        else:
            super().on_message_complete()
        if self._stage is Stage.DISCARD:
            self._enter(Stage.IDLE)
        elif self._stage is Stage.BODY:
            self._stage = Stage.BUSY  # which nobody times

    # what is answered

    def on_response_complete(self) -> None:
        """The answer is written: on to the rest of the body, the next request, or rest."""
        self.state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._deaf:
            self.transport.close()
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._stage is Stage.BODY:
            self._enter(Stage.DISCARD)
        elif not self.flow.write_paused:
            self._go_on()  # else when the client has taken it: whoever asks and does not read must not pile up answers

    def _go_on(self) -> None:
        """The answer is out: rest, or take the request that came early, when the others have had their turn."""
        if self._waiting:
            self.loop.call_soon(self._take_waiting)
        else:
            self._enter(Stage.IDLE)

    def _take_waiting(self) -> None:
        if not self.transport.is_closing():
            early = bytes(self._waiting)
            self._waiting.clear()
            self._enter(Stage.IDLE)
            self.data_received(early)

    @property
    def _answered(self) -> bool:
        """Is the answer complete, but not taken yet, or the next request not begun?"""
        return self._stage is Stage.BUSY and self.cycle is not None and self.cycle.response_complete

    def direct_answer_complete(self, exchange: Exchange) -> None:
        """An answer past ASGI is out."""
        if self.access_log:
            request_id.set(exchange.request_id)  # whatever has called us works for many
            scope = exchange.scope
            address = ":".join(map(str, self.client or ("-",)))
            target = f"{scope['path']}?{scope['query_string'].decode('latin-1')}".removesuffix("?")
            self.access_logger.info('%s - "%s %s HTTP/%s" %d', address, scope["method"], target, "1.1", exchange.status)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _refuse(self, wrong: Flaw, head: bytes | bytearray = b"") -> None:
        """Answer in the application's place and hang up; an application already at work sees the client leave.

        `head` is what came of a request that no application has seen.
        """
        answered, path = False, self.path or path_in(head)
        if self.cycle is not None and not self.cycle.response_complete:
            answered = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._enter(Stage.LINGER)
        if answered:
            self.reset()
            return
        self._waiting.clear()
        self.flow.resume_reading()
        self.transport.write(answer_to(wrong, path, self.state.wording))
        if self._turned_away:
            self.transport.close()
        elif self.transport.can_write_eof():
            # closing with bytes unread would reset the connection and take the answer away from the client
            self.transport.write_eof()

    def shutdown(self) -> None:
        """The server stops: this request is the last. One whose head is on its way still gets an answer."""
        if self._stage is Stage.IDLE or self._answered:
            self.transport.close()
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    # time

    def pause_writing(self) -> None:
        """The client does not take what we send."""
        super().pause_writing()
        if isinstance(self.cycle, Exchange):
            self.cycle.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._untaken = -1
        if isinstance(self.cycle, Exchange):
            self.cycle.resume()
        if self._answered:
            self._go_on()

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._since = self._last = self.loop.time()

    def sweep(self, now: float) -> None:
        """End what is overdue at `now` (the loop's seconds)."""
        closing = self.transport.is_closing()
        if (closing or self.flow.write_paused) and self._stalls(now):
            self.reset()
        elif not closing and self._overdue(now):
            if self._stage is Stage.BODY:
                self._refuse(TOO_SLOW)
            elif self._stage is Stage.LINGER or self._waiting:
                self.transport.abort()
            else:
                self.transport.close()

    def _stalls(self, now: float) -> bool:
        """Has the client for too long taken next to nothing of what is there for it?"""
        untaken, limits = self.transport.get_write_buffer_size(), self._limits
        if self._untaken < 0 or untaken <= self._untaken - limits.write_stall_bytes:
            self._untaken, self._taken_at = untaken, now
        return now - self._taken_at > limits.write_stall_s

    def reset(self) -> None:
        """Drop what the client does not take, in the kernel's buffers too: it would try to deliver it for minutes."""
        end_in_reset(self.transport)
        self.transport.abort()

    def _overdue(self, now: float) -> bool:
        limits, stage, age_s = self._limits, self._stage, now - self._since
        if stage is Stage.BUSY:
            return False
        if stage is Stage.BODY or stage is Stage.DISCARD:
            # while the application reads slowly, it is not the client who is late
            allowed_s = limits.body_total_s + self._taken / limits.body_bytes_per_s
            late = age_s > allowed_s or now - self._last > limits.body_idle_s
            return late and not self.flow.read_paused
        if stage is Stage.LINGER or self._turned_away:
            return age_s > limits.linger_s
        return age_s > (limits.keep_alive_s if stage is Stage.IDLE else limits.head_s)

    @property
    def path(self) -> str:
        """The path of the request being answered, or "" when none is."""
        return "" if self.cycle is None or self.cycle.response_complete else self.cycle.scope["path"]
