"""What went wrong at an endpoint, told in its own words where it has any."""

from __future__ import annotations

from typing import Any

from arena.errors import ArenaError, ModelNotFound, UpstreamBroken, UpstreamError
from arena.ollama.lines import NOT_OLLAMA
from arena.upstream import any_json, error_text, known_status, unknown_status
from arena.wire import Headers


def error_line(value: Any, endpoint: str) -> UpstreamError:
    """The failure that an `{"error": ...}` line tells of, in the middle of an answer."""
    return UpstreamError(error_text({"error": value}) or f"{endpoint} failed without saying why", endpoint=endpoint)


def refusal(status: int, headers: Headers, body: bytes, endpoint: str) -> ArenaError:
    """The error for an answer with `status` other than 200. The endpoint's 401 is never the caller's."""
    text = error_text(any_json(body))
    known = known_status(status, headers, text, endpoint)
    if known is not None:
        return known
    if text is not None and status == 404:
        return ModelNotFound(text)
    if body.lstrip()[:1] == b"<":
        return UpstreamBroken(f"{endpoint} {NOT_OLLAMA}", endpoint=endpoint, upstream_status=status, code="not_ollama")
    if status == 404:
        message = f"{endpoint} is not an Ollama server, or too old: it does not know this address"
        return UpstreamBroken(message, endpoint=endpoint, upstream_status=status, code="not_ollama")
    return unknown_status(status, body, text, endpoint)
