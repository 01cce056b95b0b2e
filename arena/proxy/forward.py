"""One request handed on: a lease, the call, another host if the first fails in time, and an end that says what it is.

Everything is pushed: where a lease is there at once and a connection is open, no task is made and nothing is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from arena.errors import ArenaError, BadRequest, Busy, NoEndpoint, NotFound, ShuttingDown, UpstreamBroken, UpstreamError
from arena.exchange import Inbound, Sink, header_lines
from arena.fleet import Fleet, Lease, Wanted
from arena.log import request_id, warn_failed
from arena.proxy import headers as head
from arena.proxy.counters import Tail
from arena.proxy.dialect import EVENTS, JSON, NDJSON, REQUEST_ID, backend_of, error_body, last_words, own_headers
from arena.proxy.failures import (
    UNKNOWN_HERE,
    believed,
    is_good,
    is_serious,
    refusal,
    retry_after_s,
    retry_headers,
    unavailable,
)
from arena.proxy.routing import SESSION_HEADER, Asked, respelled
from arena.proxy.table import Route
from arena.wire import EXHAUSTED, RawCall, RawHeaders, Receiver

log = logging.getLogger(__name__)

JSON_TYPE: Final = b"application/json"
NOT_RETRIED: Final = frozenset({"total_timeout", EXHAUSTED})


class Owner(Protocol):
    """What a request needs of the proxy it belongs to."""

    @property
    def fleet(self) -> Fleet: ...

    async def settled(self) -> None:
        """Wait, at the very start, until it is known who answers."""

    @property
    def ended(self) -> Callable[[Forward], None]:
        """To be called when the request is over."""


class Forward(Struct, eq=False):
    """The session of a request that an endpoint answers, and the receiver of that answer."""

    _owner: Owner
    _inbound: Inbound
    _known: head.RequestHead
    _asked: Asked | None
    _wanted: Wanted
    _route: Route
    _sink: Sink
    _since_s: float
    _first_s: float = 0.0
    _sent_bytes: int = 0
    _tail: Tail = msgspec.field(default_factory=Tail)
    _lease: Lease | None = None
    _call: RawCall | None = None
    _waiting: asyncio.Task[None] | None = None
    _tried: tuple[str, ...] = ()
    _error: ArenaError | None = None
    _headers: RawHeaders = []
    _media_type: bytes = b""
    _status: int = 0
    _is_stream: bool = False  # is it one to which words can be added at its end?
    _until_eof: bool = False  # does only the end of the connection end it?
    _started: bool = False
    _over: bool = False
    _paused: bool = False

    __repr__ = object.__repr__  # what a request holds is not for the log

    def begin(self) -> Forward | None:
        """Send the request; None if it was refused at once."""
        try:
            self._go(self._owner.fleet.try_lease(self._wanted) if self._owner.fleet.endpoints else None)
        except ArenaError as error:
            self._refuse(error)
        finally:
            if self._call is None and self._waiting is None:
                self._end()  # it was refused, or it is a fault of ours: nothing of it may be left
        return None if self._over else self

    # the client

    def pause(self) -> None:
        """The client is slow: the endpoint will feel it."""
        self._paused = True
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._paused = False
        if self._call is not None:
            self._call.resume()

    def left(self) -> None:
        """The client has hung up: the endpoint is freed now, and none of this counts against it."""
        self._end()

    def stop(self, error: ArenaError) -> None:
        """End it for a reason of our own."""
        if self._started:
            self._break_off(error)
        else:
            self._refuse(error)

    # the endpoint

    def on_head(self, status: int, headers: RawHeaders) -> None:
        """The endpoint answers. Nothing goes out before there is a body: until then another can still take over."""
        lease = self._lease
        assert lease is not None
        self._status, self._headers = status, headers
        found = dict(headers)
        media_type = found.get(b"content-type", b"")
        self._until_eof = b"content-length" not in found and b"transfer-encoding" not in found
        if found.get(b"content-encoding", b"identity").lower() == b"identity":
            self._media_type = media_type
            self._is_stream = media_type.startswith((NDJSON, EVENTS))
        if is_good(status, media_type):
            return
        refused = refusal(status, lease.endpoint.name, media_type, headers)
        lease.failed(refused, status, retry_after_s(headers))
        if is_serious(status):
            self._note(refused, lease)
        if status < 400 or isinstance(refused, NotFound):
            self._release_call()  # nobody could make sense of such an answer
            self._another(refused)
        elif status in self._owner.fleet.spec.retry_on or status in UNKNOWN_HERE:
            self._try_another(refused)

    def on_data(self, data: bytes) -> None:
        """A piece of the answer."""
        if not self._started:
            self._start()
        self._sink.write(data)
        self._tail.feed(data)

    def on_end(self, error: BaseException | None) -> None:
        """The answer is complete, or the endpoint has failed."""
        self._call = None
        if error is None:
            self._complete()
        elif not isinstance(error, ArenaError):
            self._fault(error)
        elif self._started:
            self._break_off(error)
        else:
            self._next(error)

    def again(self) -> None:
        """Ask the same endpoint anew: what it refused was no word of the client's."""
        self._release_call()
        assert self._lease is not None
        self._send(self._lease)

    # the way of a request

    def _go(self, lease: Lease | None) -> None:
        """Send it with `lease`, or wait for one."""
        if lease is None:
            self._waiting = asyncio.create_task(self._wait(), name="lease")
            self._waiting.add_done_callback(self._waited)
        else:
            self._send(lease)

    async def _wait(self) -> None:
        try:
            if not self._owner.fleet.endpoints:
                await self._owner.settled()
            lease = await self._owner.fleet.lease(self._wanted, frozenset(self._tried))
        except ArenaError as error:
            self._waiting = None
            self._refuse(error if self._error is None or isinstance(error, Busy) else self._error)
        else:
            self._waiting = None
            self._send(lease)

    def _waited(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault(fault)
        elif task.cancelled() and not self._over:  # not by us: what it waited for was
            self.stop(ShuttingDown("The server is stopping"))

    def _fault(self, fault: BaseException) -> None:
        """A fault of ours must not leave the client waiting."""
        log.error("a fault in handing on an answer", exc_info=fault)
        if not self._over:
            self.stop(ArenaError("An unexpected error occurred"))

    def _send(self, lease: Lease) -> None:
        self._lease = lease
        asked = self._asked
        assert asked is not None
        body, model, endpoint = asked.body, lease.model, lease.endpoint
        inbound, target, adapt = self._inbound, self._route.target, self._route.adapt
        receiver: Receiver = self
        try:
            if model and model != asked.model and (not endpoint.native or model != f"{asked.model}:latest"):
                body = respelled(body, model)
            adapted = None if adapt is None else adapt(self, self._tail, lease, inbound, body)
        except BadRequest as error:
            self._refuse(error)
            return
        known = self._known
        if adapted is not None:
            known = head.RequestHead(adapted.inbound.headers)
            target, inbound, body, receiver = adapted.target, adapted.inbound, adapted.body, adapted.receiver
        pool = endpoint.pool
        fields = known.fields(inbound.caller, pool.own_headers, len(body))
        query = inbound.query
        if query:
            target = b"%b?%b" % (target, query)
        streams = asked.stream is True or (asked.stream is None and self._route.streams)
        # the head of a whole answer comes when all of it is generated, which may take as long as it takes
        may_wait = None if streams else endpoint.may_be_slow
        call = pool.forward(inbound.method, target, fields, body, receiver, may_wait=may_wait)
        if not call.done.done():
            call.elsewhere = partial(self._owner.fleet.elsewhere, lease)
            self._call = call
            if self._paused:
                call.pause()

    def _next(self, error: ArenaError) -> None:
        """The endpoint has failed before a byte of its answer went out: try another, or tell."""
        lease = self._lease
        assert lease is not None
        if isinstance(error, UpstreamError):
            lease.failed(error)
        if not isinstance(error, ShuttingDown):
            self._note(error, lease)
        if error.code in NOT_RETRIED:
            self._refuse(error)
        else:
            self._another(unavailable(error, lease))

    def _another(self, error: ArenaError) -> None:
        """Go on with another endpoint; without one, `error` is the answer."""
        if not self._try_another(error):
            self._refuse(error)

    def _try_another(self, error: ArenaError) -> bool:
        """Go on with another endpoint, if there is one and there is time; each is tried once."""
        lease = self._lease
        assert lease is not None
        total_s = lease.endpoint.spec.timeouts.total_s
        if total_s is not None and monotonic() - self._since_s > total_s:
            return False
        tried = (*self._tried, lease.endpoint.name)
        try:
            following = self._owner.fleet.try_lease(self._wanted, frozenset(tried))
        except ArenaError:
            return False
        self._tried, self._error = tried, error
        self._status, self._media_type, self._is_stream = 0, b"", False
        self._release_call()
        self._lease = None
        lease.close()
        going = False
        try:
            self._go(following)
            going = True
        finally:
            if not going:  # the connection that we were told on knows of us no more
                self.stop(ArenaError("An unexpected error occurred"))
        return True

    def _start(self) -> None:
        """The answer begins to go out."""
        self._started = True
        lease = self._lease
        assert lease is not None
        assert self._asked is not None
        asked, self._asked = self._asked, None
        self._sent_bytes = len(asked.body)
        self._first_s = monotonic()
        lease.streamed = streamed = self._is_stream
        if self._status < 400:
            lease.first_byte(whole=not streamed)
        else:
            self._headers = believed(self._headers)
        passed = head.passed_on(self._headers, lease.endpoint.pool.own_headers, streamed=streamed)
        caller, elapsed_s = self._inbound.caller, self._first_s - self._since_s
        lines = head.answer_lines(lease, caller.request_id, asked.model, asked.source, self._tried, elapsed_s)
        if asked.source == SESSION_HEADER:
            lines += header_lines([(head.SESSION, head.header_value(self._known.session.decode("latin-1")))])
        if self._route.dialect == "anthropic":
            if head.header(passed, REQUEST_ID) is None:
                lines += header_lines(own_headers("anthropic", caller.request_id))
            if not lease.translated:
                lines += b"x-olla-mode: passthrough\r\n"
        self._headers = []
        self._sink.start(self._status, passed, lines)

    def _complete(self) -> None:
        """The endpoint has sent all; is it all that there should be?"""
        lease = self._lease
        assert lease is not None
        name = lease.endpoint.name
        if self._status >= 400:
            if not self._started:
                self._start()
            self._finish()
            return
        if self._status == 204:
            self._start()
        if not self._started:
            text = f"{name} closed the connection before its answer was complete"
            self._next(UpstreamBroken(text, endpoint=name, code="upstream_eof"))
            return
        end = self._tail.read(self._route.dialect, self._media_type)
        if end.error:
            failure = UpstreamError(f"{name} failed in the middle of its answer", endpoint=name)
            lease.failed(failure)
            self._note(failure, lease)
        elif not end.whole or (self._until_eof and self._is_half()):
            text = f"{name} ended its answer without saying that it is done"
            self._break_off(UpstreamBroken(text, endpoint=name, code="upstream_eof"))
            return
        else:
            tokens, sent, received = end.usage.completion_tokens, self._sent_bytes, self._tail.received_bytes
            gap_s = (monotonic() - self._first_s) / (tokens - 1) if self._is_stream and tokens > 1 else None
            lease.succeeded(replace(end.usage, gap_s=gap_s, sent_bytes=sent, received_bytes=received))
        self._finish()

    def _is_half(self) -> bool:
        """Is it an object or a list that lacks its end? A host that dies ends its connections, too."""
        begun = self._media_type.startswith(JSON_TYPE) and self._tail.head.lstrip().startswith((b"{", b"["))
        return begun and not self._tail.end.rstrip().endswith((b"}", b"]"))

    def _finish(self) -> None:
        """The answer is whole."""
        if self._is_stream:
            total_ms = (monotonic() - self._since_s) * 1000
            total = b"%dms" % total_ms, b"total;dur=%.1f" % total_ms
            self._sink.end([(b"x-olla-total-time", total[0]), (b"server-timing", total[1])])
        else:
            self._sink.end()
        self._end()

    def _break_off(self, error: ArenaError) -> None:
        """Say why there is no more, in words that the client's own dialect has for it, and cut the connection."""
        if self._lease is not None and isinstance(error, UpstreamError):
            self._lease.failed(error)
            self._note(error, self._lease)
        self._drop_call()
        if self._is_stream:
            self._sink.write(last_words(self._route.dialect, self._media_type, error, self._tail.end))
        self._sink.abort()
        self._end()

    def _refuse(self, error: ArenaError) -> None:
        """No endpoint has answered: this is the whole answer."""
        inbound, dialect, lease = self._inbound, self._route.dialect, self._lease
        model = self._wanted.model
        tried = self._tried if lease is None else (*self._tried, lease.endpoint.name)
        body = error_body(dialect, error, inbound.caller.request_id, tried)
        answer = [JSON, (b"content-length", b"%d" % len(body)), *own_headers(dialect, inbound.caller.request_id)]
        answer += head.told(inbound.caller.request_id, model, monotonic() - self._since_s)
        if lease is None or isinstance(error, NoEndpoint):
            answer += head.unrouted(backend_of(inbound.path), "strict", error.code)
        else:
            answer += head.routed(lease, model, ())
        answer += retry_headers(error)
        if tried:
            answer.append((b"x-olla-tried", head.tried_value(tried)))
        self._end()
        self._sink.start(error.status, answer)
        self._sink.write(body)
        self._sink.end()

    def _end(self) -> None:
        """Free everything, whatever it was that ended."""
        if self._over:
            return
        self._over = True
        self._asked = None
        if self._call is not None:
            self._drop_call()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        lease = self._lease
        if lease is not None:
            if lease.usage is None and self._started and self._is_stream and self._status < 400:
                lease.usage = replace(self._tail.so_far(self._media_type), sent_bytes=self._sent_bytes)
            lease.close()
        self._owner.ended(self)

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _release_call(self) -> None:
        """Let go of a call whose rest nobody wants; what ends soon leaves its connection to others."""
        call, self._call = self._call, None
        if call is not None:
            call.release()

    # words and figures

    def _note(self, error: ArenaError, lease: Lease) -> None:
        """One line in the log for each failure of an endpoint; callbacks of a connection run for no request at all."""
        request_id.set(self._inbound.caller.request_id)
        name = lease.endpoint.name
        warn_failed(log, "an answer of the proxy", error, self._since_s, endpoint=name, model=self._wanted.model or "")
