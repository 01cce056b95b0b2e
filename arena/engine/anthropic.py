"""Anthropic's routes: /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
from starlette.requests import Request

from arena.engine.anthropic_body import CountBody, MessagesBody, count_call, messages_call
from arena.engine.calls import Call, ToolCall
from arena.engine.core import Engine
from arena.engine.http import EVENTS, Dialect, Reply, decoded
from arena.engine.stops import Stops
from arena.engine.translate import Ending, Event, Piece, Timings
from arena.errors import ArenaError

_KINDS = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}


class AnthropicDialect(Dialect):
    """Errors as Anthropic's clients expect them."""

    def body(self, error: ArenaError) -> bytes:
        """An error object."""
        kind = _KINDS.get(error.status, "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": error.message}})

    def line(self, error: ArenaError) -> bytes:
        """An event with the error object."""
        return b"event: error\ndata: " + self.body(error) + b"\n\n"


class _Writer:
    """Writes the events of one answer as Anthropic's, and folds them into the message at the same time."""

    def __init__(self, call: Call, stops: Stops) -> None:
        self._stops = stops
        self._open: str | None = None
        self._parts: list[str] = []
        self.message: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": None,
        }

    def encoded(self, events: list[Event]) -> bytes:
        """The events of a batch as bytes of a stream."""
        out: list[bytes] = []
        for event in events:
            if isinstance(event, Piece | Ending):
                if self.message["usage"] is None:
                    self._begin(event.timings or Timings(), out)
                if isinstance(event, Piece):
                    self._piece(event, out)
                else:
                    self._end(event, out)
        return b"".join(out)

    def _begin(self, timings: Timings, out: list[bytes]) -> None:
        self.message["usage"] = {**_usage(timings), "output_tokens": 0}
        out.append(_event("message_start", message=self.message))

    def _piece(self, piece: Piece, out: list[bytes]) -> None:
        if piece.thinking:
            self._text("thinking", piece.thinking, out)
        if piece.text:
            self._text("text", piece.text, out)
        for call in piece.tool_calls:
            self._tool(call, out)

    def _text(self, kind: str, text: str, out: list[bytes]) -> None:
        if self._open != kind:
            self._close(out)
            self._open = kind
            empty = {"type": kind, kind: ""}
            self._start({**empty, "signature": ""} if kind == "thinking" else empty, out)
        self._parts.append(text)
        self._delta({"type": f"{kind}_delta", kind: text}, out)

    def _tool(self, call: ToolCall, out: list[bytes]) -> None:
        self._close(out)
        given = call.function.arguments or {}
        block = {"type": "tool_use", "id": call.id or f"toolu_{secrets.token_hex(12)}", "name": call.function.name}
        self._start({**block, "input": {}}, out)
        self._delta({"type": "input_json_delta", "partial_json": msgspec.json.encode(given).decode()}, out)
        self.message["content"][-1] = {**block, "input": given}
        self._open = "tool_use"
        self._close(out)

    def _start(self, block: dict[str, Any], out: list[bytes]) -> None:
        self.message["content"].append(block)
        out.append(_event("content_block_start", index=self._index, content_block=block))

    def _delta(self, delta: dict[str, Any], out: list[bytes]) -> None:
        out.append(_event("content_block_delta", index=self._index, delta=delta))

    def _close(self, out: list[bytes]) -> None:
        if self._open is None:
            return
        if self._open != "tool_use":
            self.message["content"][-1][self._open] = "".join(self._parts)
            self._parts = []
        self._open = None
        out.append(_event("content_block_stop", index=self._index))

    def _end(self, ending: Ending, out: list[bytes]) -> None:
        self._close(out)
        reason = {"stop_reason": self._reason(ending), "stop_sequence": self._stops.found}
        usage = _usage(ending.timings)
        self.message |= {**reason, "usage": usage}
        out += (_event("message_delta", delta=reason, usage=usage), _event("message_stop"))

    def _reason(self, ending: Ending) -> str:
        if self._stops.found is not None:
            return "stop_sequence"
        if ending.reason == "length":
            return "max_tokens"
        called = any(block["type"] == "tool_use" for block in self.message["content"])
        return "tool_use" if called else "end_turn"

    @property
    def _index(self) -> int:
        return len(self.message["content"]) - 1


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def _usage(timings: Timings) -> dict[str, Any]:
    return {
        "input_tokens": timings.prompt_n,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": timings.cache_n,
        "output_tokens": timings.predicted_n,
    }


class Anthropic:
    """The handlers of /v1/messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def messages(self, request: Request, reply: Reply) -> None:
        """POST /v1/messages."""
        body = await decoded(request, MessagesBody)
        call = messages_call(body)
        stops = Stops(body.stop_sequences or [])
        writer = _Writer(call, stops)
        async with self._engine.answer(call, time.monotonic_ns()) as answer:
            async for batch in answer.events:
                data = writer.encoded(stops.cut(batch))
                if body.stream and data:
                    if not reply.started:
                        await reply.start(EVENTS)
                    await reply.write(data)
                if stops.found is not None:
                    break  # leaving ends the generation
        if body.stream:
            await reply.end()
        else:
            await reply.json(writer.message)

    async def count_tokens(self, request: Request, reply: Reply) -> None:
        """POST /v1/messages/count_tokens: counted by the model's own tokenizer and template, which loads the model."""
        body = await decoded(request, CountBody)
        await reply.json({"input_tokens": await self._engine.count(count_call(body))})
