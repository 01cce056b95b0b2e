"""What an endpoint's refusal means, and what our own tells of when to try again."""

from __future__ import annotations

from typing import Final

from arena.errors import (
    ArenaError,
    Busy,
    NoEndpoint,
    NoSuchEndpoint,
    NotFound,
    TooManyRequests,
    Unreachable,
    UpstreamBroken,
    UpstreamError,
)
from arena.exchange import Headers
from arena.fleet import Lease
from arena.proxy.headers import header
from arena.upstream import believed_wait_s
from arena.wire import RawHeaders

PAGE: Final = b"text/html"
RETRY_AFTER: Final = b"retry-after"
UNKNOWN_HERE: Final = frozenset({404, 405, 501})
"""The endpoint has not what it was asked for, the model or the route: another may."""


def is_good(status: int, media_type: bytes) -> bool:
    """Is it an answer, rather than a refusal or what was never meant for us?"""
    return status < 300 and not media_type.startswith(PAGE)


def refusal(status: int, name: str, media_type: bytes, headers: RawHeaders) -> ArenaError:
    """The failure that an endpoint's answer tells of, if it is no good one.

    Its body is not looked at: the client gets it as it is, unless another endpoint answers instead.
    """
    if status < 300:
        text = f"{name} is no server of models: it answered with a web page"
        return UpstreamBroken(text, endpoint=name, upstream_status=status, code="not_ollama")
    if status < 400:
        text = f"{name} redirects elsewhere, which is not followed"
        return UpstreamBroken(text, endpoint=name, upstream_status=status)
    if status == 429:
        text, wait_s = f"{name} limits requests", retry_after_s(headers)
        return Busy(text, code="rate_limited", retry_after_s=wait_s)
    if status == 503:
        return Busy(f"{name}: server busy", retry_after_s=retry_after_s(headers))
    if status in UNKNOWN_HERE and b"json" not in media_type:
        return NotFound(f"{name} does not know this address; it may be too old for it", code="not_supported")
    return UpstreamError(f"{name} answered with status {status}", endpoint=name, upstream_status=status)


def unavailable(error: ArenaError, lease: Lease) -> ArenaError:
    """`error`, or what it comes to where the endpoint was known to be down and only tried for want of another."""
    if isinstance(error, Unreachable) and lease.reason == "all_unhealthy_fallback":
        text = f"Every endpoint that could serve this is down: {error.message}"
        return NoEndpoint(text, code="model_unavailable")
    return error


def is_serious(status: int) -> bool:
    """Is it the endpoint's failure, rather than the request's?"""
    return status < 400 or status == 429 or status >= 500


def retry_after_s(headers: RawHeaders) -> float | None:
    """An endpoint's Retry-After in seconds, as far as it is believed."""
    value = header(headers, RETRY_AFTER)
    return None if value is None else believed_wait_s(value.decode("latin-1"))


def believed(headers: RawHeaders) -> Headers:
    """`headers` of a refusal as they are handed on: with a Retry-After that a client can rely on, or with none."""
    wait_s = retry_after_s(headers)
    kept = [pair for pair in headers if pair[0] != RETRY_AFTER]
    return kept if wait_s is None else [*kept, (RETRY_AFTER, b"%d" % wait_s)]


def retry_headers(error: ArenaError) -> Headers:
    """When to try again, where waiting helps; where it never does, that is told in the word that SDKs obey."""
    if isinstance(error, NoSuchEndpoint):
        return [(b"x-should-retry", b"false")]
    if isinstance(error, Busy | TooManyRequests):
        return [(RETRY_AFTER, b"%d" % max(1, round(error.retry_after_s or 1)))]
    return []
