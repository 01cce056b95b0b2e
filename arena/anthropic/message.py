"""An answer in Anthropic's form: written piece by piece as events, and folded into one message at the same time."""

from __future__ import annotations

import secrets
from typing import Any, Literal

import msgspec

from arena.errors import UpstreamError

Json = dict[str, Any]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


class MessageWriter:
    """Takes pieces in the order in which they were said; a piece of another kind ends the block before it.

    `events()` hands over what is to be streamed since the last time, `message()` the whole. With `keep` False nothing
    is kept for a whole.
    """

    def __init__(self, model: str, *, keep: bool = True) -> None:
        self._model = model
        self._keep = keep
        self._id = f"msg_{secrets.token_hex(12)}"
        self._events: list[bytes] = []
        self._blocks: list[tuple[Json, list[str]]] = []
        self._count = 0
        self._open = ""
        self._end: Json = {"stop_reason": None, "stop_sequence": None}
        self._usage: Json = {}
        self.called = False
        """Has a tool been called?"""

    @property
    def begun(self) -> bool:
        """Has the message begun?"""
        return bool(self._usage)

    def begin(self, usage: Json) -> None:
        """The message begins; `usage` is what it has cost so far, see `tokens()`."""
        self._usage = usage
        self._event("message_start", message=self._whole([]))

    def thinking(self, text: str) -> None:
        """A piece of a thought."""
        self._text("thinking", text, {"type": "thinking", "thinking": "", "signature": ""})

    def text(self, text: str) -> None:
        """A piece of the answer itself."""
        self._text("text", text, {"type": "text", "text": ""})

    def tool(self, call_id: str | None, name: str) -> None:
        """A tool is called; what with follows as `arguments()`."""
        self.called = True
        call_id = call_id or f"toolu_{secrets.token_hex(12)}"
        self._start("tool_use", {"type": "tool_use", "id": call_id, "name": name, "input": {}})

    def arguments(self, text: str) -> None:
        """A piece of the JSON with which the last tool is called."""
        self._delta({"type": "input_json_delta", "partial_json": text}, text)

    def end(self, reason: StopReason, sequence: str | None, usage: Json) -> None:
        """The message is complete; `sequence` is the stop sequence that ended it."""
        self._stop()
        self._end, self._usage = {"stop_reason": reason, "stop_sequence": sequence}, usage
        self._event("message_delta", delta=self._end, usage=usage)
        self._event("message_stop")

    def events(self) -> bytes:
        """The events since the last time, as bytes of a stream."""
        if not self._events:
            return b""
        events, self._events = b"".join(self._events), []
        return events

    def message(self) -> Json:
        """The whole. Raises UpstreamError where a tool was called with what is not a JSON object."""
        return self._whole([_folded(block, "".join(parts)) for block, parts in self._blocks])

    def _whole(self, content: list[Json]) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            **self._end,
            "usage": self._usage,
        }

    def _text(self, kind: str, text: str, empty: Json) -> None:
        if self._open != kind:
            self._start(kind, empty)
        self._delta({"type": f"{kind}_delta", kind: text}, text)

    def _start(self, kind: str, empty: Json) -> None:
        self._stop()
        self._open = kind
        self._count += 1
        if self._keep:
            self._blocks.append((empty, []))
        self._event("content_block_start", index=self._count - 1, content_block=empty)

    def _delta(self, delta: Json, text: str) -> None:
        if self._keep:
            self._blocks[-1][1].append(text)
        self._event("content_block_delta", index=self._count - 1, delta=delta)

    def _stop(self) -> None:
        if self._open:
            self._open = ""
            self._event("content_block_stop", index=self._count - 1)

    def _event(self, kind: str, **fields: Any) -> None:
        data = msgspec.json.encode({"type": kind, **fields})
        self._events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))


def tokens(prompt: int, cached: int, output: int) -> Json:
    """Anthropic's usage, of tokens; `cached` are those of the prompt that were not computed again, beside `prompt`."""
    return {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }


def error_object(status: int, message: str) -> Json:
    """Anthropic's error object for an HTTP status."""
    return {"type": "error", "error": {"type": _KINDS.get(status, "api_error"), "message": message}}


def _folded(block: Json, text: str) -> Json:
    kind = block["type"]
    if kind != "tool_use":
        return {**block, kind: text}
    try:
        given = msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (ValueError, RecursionError):
        raise UpstreamError(f"The model called {block['name']} with what is not a JSON object") from None
    return {**block, "input": given}
