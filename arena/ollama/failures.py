"""What went wrong at an endpoint, told in its own words where it has any."""

from __future__ import annotations

import json
from typing import Any

from arena.errors import ArenaError, Busy, ModelNotFound, UpstreamBroken, UpstreamError
from arena.ollama.lines import NOT_OLLAMA, clean
from arena.wire import Headers

ERROR_BYTES = 64 * 1024
"""How much of an error's body is read."""
MAX_TEXT = 2000
"""Characters of an endpoint's error text that are shown."""


def error_text(value: Any) -> str | None:
    """The text in Ollama's `error`. Newer servers wrap the runner's JSON in it, as a string; that is unwrapped."""
    for _ in range(4):
        if isinstance(value, dict):
            value = value.get("error", value.get("message"))
        elif isinstance(value, str) and value.lstrip().startswith("{"):
            inner = _json(value)
            if not isinstance(inner, dict) or error_text(inner) is None:
                break
            value = inner
        else:
            break
    return clean(value)[:MAX_TEXT] if isinstance(value, str) and value.strip() else None


def error_line(value: Any, endpoint: str) -> UpstreamError:
    """The failure that an `{"error": ...}` line tells of, in the middle of an answer."""
    return UpstreamError(error_text({"error": value}) or f"{endpoint} failed without saying why", endpoint=endpoint)


def refusal(status: int, headers: Headers, body: bytes, endpoint: str) -> ArenaError:
    """The error for an answer with `status` other than 200. The endpoint's 401 is never the caller's."""
    text = error_text(_json(body))
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
    plain = clean(body[:200].decode("utf-8", "replace")).strip()
    message = text or f"{endpoint} answered with status {status}" + (f": {plain}" if plain else "")
    return UpstreamError(message, endpoint=endpoint, upstream_status=status)


def known_status(status: int, headers: Headers, text: str | None, endpoint: str) -> ArenaError | None:
    """The error for a status that says enough by itself, whichever API the endpoint speaks."""
    wait = dict(headers).get("retry-after", "").strip()
    wait = wait if wait.isdecimal() and len(wait) < 6 else ""
    if status in (401, 403):
        message = f"{endpoint} refuses our credentials"
        return UpstreamError(message, endpoint=endpoint, upstream_status=status, code="upstream_refused", details=text)
    if status == 429:
        message = f"{endpoint} limits requests" + (f"; retry in {wait} s" if wait else "")
        return UpstreamError(message, endpoint=endpoint, upstream_status=status, code="rate_limited", details=text)
    if status == 503:
        return Busy(f"{endpoint}: server busy", details=text, retry_after_s=float(wait) if wait else None)
    if 300 <= status < 400:
        message = f"{endpoint} redirects elsewhere, which is not followed"
        return UpstreamBroken(message, endpoint=endpoint, upstream_status=status)
    return None


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8", "replace") if isinstance(text, bytes) else text, strict=False)
    except (ValueError, RecursionError):
        return None
