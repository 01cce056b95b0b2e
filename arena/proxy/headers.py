"""Which headers pass in either direction, and which are ours. All of it is on the way of every request."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from arena.exchange import Caller, Headers, header_lines
from arena.fleet import Lease
from arena.fleet.lease import Routing

VIA: Final = b"1.1 ollama-arena"
_VIA: Final = (b"via", VIA)
SESSION: Final = b"x-olla-session-id"
MAX_CALLERS: Final = 64
"""Callers with the same head whose lines are remembered."""
TRAILERS: Final = (b"trailer", b"X-Olla-Total-Time, Server-Timing")
NONE: Final = b"none"
"""Stands in the headers that every answer has, where there is no host or no model to name."""

_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
# credentials are for us; where a browser was and what it may do is judged here, and would only confuse a host
_REQUEST: Final = _HOP | {
    b"content-length", b"expect", b"authorization", b"cookie", b"x-api-key", b"api-key",
    b"x-auth-token", b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest",
    b"sec-fetch-user", b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
    b"x-real-ip", b"x-olla-endpoint", b"x-olla-session-id", b"x-olla-request-id",
    b"x-request-id",
}  # fmt: skip
_READ: Final = frozenset({b"host", b"accept-encoding", b"x-forwarded-for", b"via", b"connection"})
_RESPONSE: Final = _HOP | {
    b"set-cookie", b"authorization", b"x-api-key", b"x-auth-token", b"www-authenticate", b"clear-site-data",
    b"strict-transport-security", b"alt-svc", b"date", b"via", b"server-timing", b"location", b"refresh",
}  # fmt: skip
_STREAMED: Final = _RESPONSE | {b"content-length"}
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_ENDPOINT_TYPES: Final = {"engine": b"ollama", "ollama": b"ollama", "openai": b"openai"}


class RequestHead:
    """What the head of a request tells: requests with the same head share it, so that all this is found out once.

    `endpoint` is the one that is asked for by name, `session` the conversation that is named (b"": none).
    """

    __slots__ = ("_headers", "_lines", "endpoint", "session")

    def __init__(self, headers: Headers) -> None:
        name = header(headers, b"x-olla-endpoint")
        self.endpoint = None if not name else name.decode("latin-1")
        self.session = header(headers, SESSION) or b""
        self._headers = headers
        self._lines: dict[tuple[str, bool, frozenset[bytes], bytes], bytes] = {}

    def fields(self, caller: Caller, own: frozenset[bytes], length: int) -> bytes:
        """The lines for an endpoint that adds the headers in `own` itself, before a body of `length` bytes."""
        peer = caller.peer or caller.address
        host = caller.forwarded_host
        key = (peer, caller.https, own, host)
        lines = self._lines.get(key)
        if lines is None:
            if len(self._lines) >= MAX_CALLERS:
                self._lines.clear()
            lines = self._lines[key] = _steady_fields(self._headers, peer, caller.https, own, host)
        request_id = caller.request_id.encode("ascii", "replace")
        ids = b"X-Request-ID: %b\r\nX-Olla-Request-ID: %b" % (request_id, request_id)
        return b"%bContent-Length: %d\r\n%b\r\n" % (lines, length, ids)


def _steady_fields(headers: Headers, peer: str, https: bool, own: frozenset[bytes], host: bytes) -> bytes:
    """The lines that do not change from one request to the next with the same head from the same peer.

    `host` is what a trusted peer was asked for, b"" where there is none: then it is what we were asked for.
    """
    read: dict[bytes, bytes] = {}
    passed = []
    for pair in headers:
        name = pair[0]
        if name in _READ:
            read[name] = b"%b, %b" % (read[name], pair[1]) if name in read else pair[1]
        elif name not in _REQUEST and name not in own:
            passed.append(pair)
    connection = read.get(b"connection")
    if connection is not None and connection not in _PLAIN_CONNECTION:
        named = _tokens(connection)
        passed = [pair for pair in passed if pair[0] not in named]
    forwarded, via, last = read.get(b"x-forwarded-for"), read.get(b"via"), peer.encode("latin-1", "replace")
    forwarded = last if forwarded is None else b"%b, %b" % (forwarded, last)
    ours = [
        (b"Accept-Encoding", read.get(b"accept-encoding", b"identity")),
        (b"X-Forwarded-For", forwarded),
        (b"X-Forwarded-Host", host or read.get(b"host", b"")),
        (b"X-Forwarded-Proto", b"https" if https else b"http"),
        (b"Via", VIA if via is None else b"%b, %b" % (via, VIA)),
    ]
    return header_lines(passed + ours)


def passed_on(headers: Headers, own: frozenset[bytes], *, streamed: bool = False) -> Headers:
    """What of an endpoint's headers reaches the client; `own` are those that we sent it, which it may echo.

    Of a stream no length is told: there may be last words to add.
    """
    return [*_passed_on(tuple(headers), own, streamed)]


@lru_cache(128)
def _passed_on(headers: tuple[tuple[bytes, bytes], ...], own: frozenset[bytes], streamed: bool) -> Headers:
    """The same, found out once for all answers with the same head, which may be 64 KiB: a few are remembered."""
    dropped = _STREAMED if streamed else _RESPONSE
    passed = [pair for pair in headers if pair[0] not in dropped and not pair[0].startswith(b"x-olla-")]
    if own:
        passed = [pair for pair in passed if pair[0] not in own]
    if len(passed) < len(headers):
        connection = dict(headers).get(b"connection")
        if connection is not None and connection not in _PLAIN_CONNECTION:
            named = _tokens(connection)
            passed = [pair for pair in passed if pair[0] not in named]
    return passed


def told(request_id: str, model: str | None, elapsed_s: float) -> Headers:
    """Ours on every answer: whose request it was, for which model, and how long it took to begin."""
    return [
        (b"x-olla-request-id", request_id.encode("ascii", "replace")),
        (b"x-olla-model", header_value(model) if model else NONE),
        (b"x-olla-response-time", b"%dms" % (elapsed_s * 1000)),
        _VIA,
    ]


def routed(lease: Lease, model: str | None, tried: tuple[str, ...]) -> Headers:
    """Ours on the answers of an endpoint: which, how it was found, who was `tried` before."""
    endpoint = lease.endpoint
    headers = _routed(endpoint.name, endpoint.kind, lease.routing, lease.sticky) + _resolved(model, lease.model)
    return headers + _now_and_then(lease, tried)


def _resolved(model: str | None, resolved: str) -> Headers:
    """What the model is called where it was found, if that is another name than it was asked for by."""
    if not resolved or (model is not None and resolved.removesuffix(":latest") == model.removesuffix(":latest")):
        return []
    return [(b"x-olla-resolved-model", header_value(resolved))]


def _now_and_then(lease: Lease, tried: tuple[str, ...]) -> Headers:
    """What is told of a request that had to wait, or that others have failed."""
    headers = []
    if lease.position:
        headers.append((b"x-olla-queue-position", b"%d" % lease.position))
        headers.append((b"x-olla-queue-time", b"%dms" % (lease.queued_s * 1000)))
    if tried:
        headers.append((b"x-olla-tried", tried_value(tried)))
    return headers


def answer_lines(
    lease: Lease, request_id: str, model: str, source: str, tried: tuple[str, ...], elapsed_s: float
) -> bytes:
    """Ours on the answers of an endpoint, as lines; `elapsed_s` are the seconds until the answer began."""
    endpoint, total_ms, queued_ms = lease.endpoint, elapsed_s * 1000, lease.queued_s * 1000
    text = b"%bx-olla-request-id: %b\r\nx-olla-response-time: %dms\r\nserver-timing: %bupstream;dur=%.1f\r\n" % (
        _steady(endpoint.name, endpoint.kind, lease.routing, lease.sticky, source, model, lease.model, lease.streamed),
        request_id.encode("ascii", "replace"),
        total_ms,
        b"queue;dur=%.1f, " % queued_ms if queued_ms else b"",
        total_ms - queued_ms,
    )
    return text + header_lines(_now_and_then(lease, tried)) if lease.position or tried else text


@lru_cache(1024)
def _steady(
    name: str, kind: str, routing: Routing, sticky: str, source: str, model: str, resolved: str, streamed: bool
) -> bytes:
    """The lines that many answers share."""
    headers = [(b"x-olla-model", header_value(model)), _VIA, *_routed(name, kind, routing, sticky)]
    headers += _resolved(model, resolved)
    if source:
        headers.append((b"x-olla-sticky-key-source", header_value(source)))
    if streamed:
        headers.append(TRAILERS)
    return header_lines(headers)


def _routed(name: str, kind: str, routing: Routing, sticky: str) -> Headers:
    return [
        (b"x-olla-endpoint", header_value(name)),
        (b"x-olla-backend-type", _ENDPOINT_TYPES.get(kind, b"openai")),
        (b"x-olla-routing-strategy", header_value(routing.strategy)),
        (b"x-olla-routing-decision", header_value(routing.decision)),
        (b"x-olla-routing-reason", header_value(routing.reason)),
        (b"x-olla-sticky-session", header_value(sticky)),
    ]


def unrouted(backend: str, strategy: str, reason: str) -> Headers:
    """Ours where no endpoint has answered."""
    return [
        (b"x-olla-endpoint", NONE),
        (b"x-olla-backend-type", backend.encode("ascii", "replace")),
        (b"x-olla-routing-strategy", strategy.encode("ascii", "replace")),
        (b"x-olla-routing-decision", b"rejected"),
        (b"x-olla-routing-reason", header_value(reason)),
        (b"x-olla-sticky-session", b"disabled"),
    ]


def answered(backend: str) -> Headers:
    """Ours where we have answered ourselves, in the name of the fleet."""
    return [(b"x-olla-endpoint", NONE), (b"x-olla-backend-type", backend.encode("ascii"))]


def lacking(headers: Headers, defaults: Headers) -> Headers:
    """Those of `defaults` whose names `headers` lack."""
    names = [name for name, _ in headers]
    return [pair for pair in defaults if pair[0] not in names]


def tried_value(names: Iterable[str]) -> bytes:
    """Hosts in one header."""
    return header_value(", ".join(names))


@lru_cache(1024)
def header_value(text: str) -> bytes:
    """`text` as a header can carry it: what is not printable ASCII becomes a question mark."""
    if text.isascii() and text.isprintable():
        return text.encode("ascii")
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text).encode("ascii")


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of `name`, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))
