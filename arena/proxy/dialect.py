"""How a failure is told to each kind of client, before an answer and in the middle of one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from arena.anthropic import error_object
from arena.errors import ArenaError

Dialect = Literal["native", "openai", "responses", "anthropic"]

NDJSON: Final = b"application/x-ndjson"
EVENTS: Final = b"text/event-stream"
JSON: Final = (b"content-type", b"application/json")
REQUEST_ID: Final = b"request-id"
"""Under which Anthropic's clients keep whose answer it is."""

_OPENAI_TYPES: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip


def dialect_of(path: str) -> Dialect:
    """The dialect that a client at `path` speaks, whether there is such a route or not."""
    if path.startswith("/olla/anthropic/") or "/v1/messages" in path:
        return "anthropic"
    if "/v1/" in path or path.startswith("/olla/openai"):
        return "responses" if path.endswith("/v1/responses") else "openai"
    return "native"


@lru_cache(256)
def backend_of(path: str) -> str:
    """The type of servers that stand behind `path`, for answers that none of them has given."""
    return "ollama" if f"{path}/".startswith("/olla/ollama/") or dialect_of(path) == "native" else "openai"


def own_headers(dialect: Dialect, request_id: str) -> list[tuple[bytes, bytes]]:
    """What a dialect's clients look for in the headers of every answer."""
    return [(REQUEST_ID, request_id.encode("ascii", "replace"))] if dialect == "anthropic" else []


def error_body(dialect: Dialect, error: ArenaError, request_id: str, tried: Iterable[str] = ()) -> bytes:
    """The JSON of an error that is the whole answer; `tried` are the hosts that were asked in vain."""
    value = _error(dialect, error)
    inner = value if dialect == "native" else value["error"]
    if dialect != "anthropic":
        inner["request_id"] = request_id
        if hosts := list(tried):
            inner["tried"] = hosts
    else:
        value["request_id"] = request_id
    return msgspec.json.encode(value)


def last_words(dialect: Dialect, media_type: bytes, error: ArenaError, told: bytes) -> bytes:
    """What is said at the end of a stream that will not be whole, after it has `told` so much (its end suffices).

    Empty where nothing could be understood any more: the connection is cut in any case.
    """
    if media_type.startswith(NDJSON):
        line = msgspec.json.encode({**_error("native", error), "done": True, "done_reason": "error"}) + b"\n"
        return line if told.endswith(b"\n") or not told else b"\n" + line
    if not media_type.startswith(EVENTS):
        return b""
    gap = b"" if not told or told.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
    if dialect == "openai" or dialect == "native":
        return gap + b"data: " + msgspec.json.encode(_error("openai", error)) + b"\n\n"
    value = _error("anthropic", error) if dialect == "anthropic" else {"type": "error", **_error("native", error)}
    if dialect == "responses":
        value["message"] = value.pop("error")
    return gap + b"event: error\ndata: " + msgspec.json.encode(value) + b"\n\n"


def _error(dialect: Dialect, error: ArenaError) -> dict[str, Any]:
    if dialect == "native":
        value: dict[str, Any] = {"error": error.message, "code": error.code}
        return value if error.details is None else {**value, "details": error.details}
    if dialect == "anthropic":
        return error_object(error.status, error.message)
    kind = _OPENAI_TYPES.get(error.status, "api_error")
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}
