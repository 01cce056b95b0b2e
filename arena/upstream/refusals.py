"""What a server says when it refuses or fails, as far as it is the same whichever API it speaks."""

from __future__ import annotations

import json
from typing import Any

from arena.errors import ArenaError, Busy, UpstreamBroken, UpstreamError
from arena.wire import Headers

MAX_TEXT = 2000
"""Characters of a server's error text that are shown."""
MAX_WAIT_S = 300.0
"""Nobody is kept away for longer than this by what an endpoint says."""
_decode = json.JSONDecoder(strict=False).decode


def error_text(value: Any) -> str | None:
    """The text in Ollama's `error`. Newer servers wrap the runner's JSON in it, as a string; that is unwrapped."""
    for _ in range(4):
        if isinstance(value, dict):
            value = value.get("error", value.get("message"))
        elif isinstance(value, str) and value.lstrip().startswith("{"):
            inner = any_json(value)
            if not isinstance(inner, dict) or error_text(inner) is None:
                break
            value = inner
        else:
            break
    return clean(value)[:MAX_TEXT] if isinstance(value, str) and value.strip() else None


def believed_wait_s(retry_after: str) -> float | None:
    """The seconds in an endpoint's Retry-After, MAX_WAIT_S at most; dates, and what is absurd, are not believed."""
    value = retry_after.strip()
    return min(float(value), MAX_WAIT_S) if value.isascii() and value.isdigit() and len(value) < 6 else None


def known_status(status: int, headers: Headers, text: str | None, endpoint: str) -> ArenaError | None:
    """The error for a status that says enough by itself, whichever API the endpoint speaks."""
    wait_s = believed_wait_s(dict(headers).get("retry-after", ""))
    if status in (401, 403):
        message = f"{endpoint} refuses our credentials"
        return UpstreamError(message, endpoint=endpoint, upstream_status=status, code="upstream_refused", details=text)
    if status == 429:
        message = f"{endpoint} limits requests" + ("" if wait_s is None else f"; retry in {wait_s:g} s")
        return UpstreamError(message, endpoint=endpoint, upstream_status=status, code="rate_limited", details=text)
    if status == 503:
        return Busy(f"{endpoint}: server busy", details=text, retry_after_s=wait_s)
    if 300 <= status < 400:
        message = f"{endpoint} redirects elsewhere, which is not followed"
        return UpstreamBroken(message, endpoint=endpoint, upstream_status=status)
    return None


def unknown_status(status: int, body: bytes, text: str | None, endpoint: str) -> UpstreamError:
    """The error for any other status: the server's own words, or how its answer begins."""
    plain = clean(body[:200].decode("utf-8", "replace")).strip()
    message = text or f"{endpoint} answered with status {status}" + (f": {plain}" if plain else "")
    return UpstreamError(message, endpoint=endpoint, upstream_status=status)


def any_json(text: bytes | str) -> Any:
    """The JSON value in `text`, None if it holds none; bytes that are not UTF-8 become U+FFFD."""
    try:
        return _decode(text if isinstance(text, str) else text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def clean(text: str) -> str:
    """`text` without lone surrogates, which no encoder downstream could write."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
