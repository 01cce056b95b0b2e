"""The one form of every error: `{"error", "code"[, "details"]}`, at most 1 KB, never the request's own content."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from arena.api.body import ClientLeft
from arena.errors import ArenaError, Busy, NoEndpoint, TooManyRequests, Unreachable, UpstreamError
from arena.types import Failed

UNEXPECTED = "An unexpected error occurred"
WAITED_FOR: Final = frozenset({"resting", "queue_full", "queue_timeout", "no_more_connections"})
"""Codes of our own refusals, whose words say what to do."""
MAX_TEXT_BYTES = 440
"""Longest text in an error, in bytes of JSON: two of them and their keys stay under 1 KB."""

_TEXTS = {
    404: ("Resource not found", "not_found"),
    405: ("Method not allowed", "method_not_allowed"),
    413: ("The request body is too large", "payload_too_large"),
}


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every failed request gets. `code` is for programs, `details` another program's own words."""

    error: str
    code: str
    details: str | None = None


def clipped(text: str) -> str:
    """`text`, cut so that it takes at most MAX_TEXT_BYTES in JSON."""
    if len(msgspec.json.encode(text)) <= MAX_TEXT_BYTES:
        return text
    size_bytes = 0
    for end, character in enumerate(text):
        size_bytes += len(msgspec.json.encode(character)) - 2
        if size_bytes > MAX_TEXT_BYTES - 8:
            return text[:end] + "…"
    return text  # pragma: no cover - the sum of the parts is never less than the whole


def error_response(
    status: int, error: str, code: str, details: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error in its one form."""
    body = ErrorBody(clipped(error), code, None if details is None else clipped(details))
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def unexpected(error: ArenaError | Failed) -> Response:
    """The documented 500: "An unexpected error occurred", with Ollama's own text in `details`.

    Where every endpoint is full or rests it is 503, and the error itself says so.
    The system's words for a server that was not reached do not say which one: that stands before them.
    """
    if error.code in WAITED_FOR:
        return error_response(Busy.status, error.message, error.code, error.details, _retry_after(error))
    details = error.details or error.message
    if error.code == Unreachable.default_code and error.details:
        details = f"{error.message} ({error.details})"
    return error_response(500, UNEXPECTED, error.code, details)


async def on_arena_error(_: Request, error: Exception) -> Response:
    """Answer an error of ours."""
    assert isinstance(error, ArenaError)
    return of_arena_error(error)


def of_arena_error(error: ArenaError) -> Response:
    """An error of ours with its own status; the one of an endpoint in the documented 500 form."""
    if isinstance(error, UpstreamError | NoEndpoint):
        return unexpected(error)
    return error_response(error.status, error.message, error.code, error.details, _retry_after(error))


def _retry_after(error: ArenaError | Failed) -> dict[str, str] | None:
    """When to try again, where it is known that waiting helps."""
    wait_s = error.retry_after_s if isinstance(error, Busy | TooManyRequests | Failed) else None
    return None if wait_s is None else {"retry-after": str(max(1, math.ceil(wait_s)))}


async def on_http_error(_: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path or method."""
    assert isinstance(error, HTTPException)
    text, code = _TEXTS.get(error.status_code, (error.detail, "http_error"))
    return error_response(error.status_code, text, code, headers=error.headers)


async def on_bug(_: Request, __: Exception) -> Response:
    """Answer a bug of ours: the server logs it, the caller learns nothing of it."""
    return bug()


def bug() -> Response:
    """What the caller learns of a bug of ours: nothing."""
    return error_response(500, UNEXPECTED, "internal", headers={"connection": "close"})  # as the server does then


async def on_client_left(_: Request, __: Exception) -> Response:
    """End the request: nobody is there to read this."""
    return Response(status_code=499)


HANDLERS: Final = {ArenaError: on_arena_error, HTTPException: on_http_error, ClientLeft: on_client_left}
"""Which of our answers goes to which exception; on_bug is for the rest."""
