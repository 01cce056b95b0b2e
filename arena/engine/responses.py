"""OpenAI's Responses API: POST /v1/responses. Nothing is kept between two requests."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
from starlette.requests import Request

from arena.engine.calls import ToolCall
from arena.engine.core import Engine
from arena.engine.http import EVENTS, Reply, decoded
from arena.engine.responses_body import ResponsesBody, responses_call
from arena.engine.translate import Ending, Event, Piece, Timings
from arena.errors import ArenaError

# kind of output item: kind of its part, field of the part, stem of its events
_TEXTS = {
    "message": ("output_text", "response.output_text"),
    "reasoning": ("reasoning_text", "response.reasoning_text"),
}


class _Writer:
    """Writes the events of one answer as the API's, and folds them into the response object at the same time."""

    def __init__(self, body: ResponsesBody) -> None:
        self.response = _begun(body)
        self._output: list[dict[str, Any]] = self.response["output"]
        self._sequence = 0
        self._open: str | None = None
        self._parts: list[str] = []
        self._thinking_tokens = 0

    def encoded(self, events: list[Event]) -> bytes:
        """The events of a batch as bytes of a stream."""
        out: list[bytes] = []
        if self._sequence == 0:
            for kind in ("response.created", "response.in_progress"):
                self._event(out, kind, response=self.response)
        for event in events:
            if isinstance(event, Piece):
                self._piece(event, out)
            elif isinstance(event, Ending):
                self._end(event, out)
        return b"".join(out)

    def failed(self, error: ArenaError) -> bytes:
        """The end of a stream that failed on its way."""
        out: list[bytes] = []
        self.response |= {"status": "failed", "error": {"code": "server_error", "message": error.message}}
        self._event(out, "response.failed", response=self.response)
        return b"".join(out)

    def _piece(self, piece: Piece, out: list[bytes]) -> None:
        if piece.thinking:
            self._text("reasoning", piece.thinking, out)
            self._thinking_tokens = piece.timings.predicted_n if piece.timings else 0
        if piece.text:
            self._text("message", piece.text, out)
        for call in piece.tool_calls:
            self._call(call, out)

    def _text(self, kind: str, text: str, out: list[bytes]) -> None:
        part, stem = _TEXTS[kind]
        if self._open != kind:
            self._close(out)
            self._open = kind
            self._add(_empty_item(kind), out)
            self._in_part(out, "response.content_part.added", part=_part(part, ""))
        self._parts.append(text)
        self._in_part(out, f"{stem}.delta", delta=text, **_logprobs(kind))

    def _close(self, out: list[bytes]) -> None:
        """End the text that is open."""
        if self._open is None:
            return
        part, stem = _TEXTS[self._open]
        whole = _part(part, "".join(self._parts))
        self._in_part(out, f"{stem}.done", text=whole["text"], **_logprobs(self._open))
        self._in_part(out, "response.content_part.done", part=whole)
        self._parts, self._open = [], None
        self._done({"content": [whole]}, out)

    def _call(self, call: ToolCall, out: list[bytes]) -> None:
        self._close(out)
        arguments = msgspec.json.encode(call.function.arguments or {}).decode()
        call_id = call.id or f"call_{secrets.token_hex(12)}"
        item = {"type": "function_call", "id": _id("fc"), "call_id": call_id, "name": call.function.name}
        self._add({**item, "arguments": "", "status": "in_progress"}, out)
        where = {"item_id": item["id"], "output_index": len(self._output) - 1}
        self._event(out, "response.function_call_arguments.delta", **where, delta=arguments)
        self._event(out, "response.function_call_arguments.done", **where, name=item["name"], arguments=arguments)
        self._done({"arguments": arguments}, out)

    def _add(self, item: dict[str, Any], out: list[bytes]) -> None:
        self._output.append(item)
        self._event(out, "response.output_item.added", output_index=len(self._output) - 1, item=item)

    def _done(self, change: dict[str, Any], out: list[bytes]) -> None:
        item = self._output[-1] = {**self._output[-1], **change, "status": "completed"}
        self._event(out, "response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _end(self, ending: Ending, out: list[bytes]) -> None:
        self._close(out)
        cut = ending.reason == "length"
        self.response |= {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else int(time.time()),
            "usage": _usage(ending.timings, self._thinking_tokens),
        }
        if cut and self._output:
            self._output[-1]["status"] = "incomplete"
        self._event(out, f"response.{self.response['status']}", response=self.response)

    def _in_part(self, out: list[bytes], kind: str, **fields: Any) -> None:
        index = len(self._output) - 1
        self._event(out, kind, item_id=self._output[-1]["id"], output_index=index, content_index=0, **fields)

    def _event(self, out: list[bytes], kind: str, **fields: Any) -> None:
        value = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(value)))


def _begun(body: ResponsesBody) -> dict[str, Any]:
    """The response object at its beginning, with what was asked."""
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {
            "format": msgspec.to_builtins(body.text.format) if body.text and body.text.format else {"type": "text"}
        },
        "tool_choice": body.tool_choice or "auto",
        "tools": [{"strict": False, **msgspec.to_builtins(tool)} for tool in body.tools or ()],
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "metadata": body.metadata or {},
    }


def _empty_item(kind: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning", "id": _id("rs"), "summary": [], "content": [], "status": "in_progress"}
    return {"type": "message", "id": _id("msg"), "role": "assistant", "content": [], "status": "in_progress"}


def _part(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "text": text, **({"annotations": [], "logprobs": []} if kind == "output_text" else {})}


def _logprobs(kind: str) -> dict[str, Any]:
    return {"logprobs": []} if kind == "message" else {}


def _usage(timings: Timings, thinking_tokens: int) -> dict[str, Any]:
    prompt = timings.prompt_n + timings.cache_n
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": timings.cache_n},
        "output_tokens": timings.predicted_n,
        "output_tokens_details": {"reasoning_tokens": thinking_tokens},
        "total_tokens": prompt + timings.predicted_n,
    }


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


class Responses:
    """The handler of /v1/responses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, request: Request, reply: Reply) -> None:
        """POST /v1/responses."""
        body = await decoded(request, ResponsesBody)
        call = responses_call(body)
        writer = _Writer(body)
        try:
            async with self._engine.answer(call, time.monotonic_ns()) as answer:
                async for batch in answer.events:
                    data = writer.encoded(batch)
                    if body.stream:
                        if not reply.started:
                            await reply.start(EVENTS)
                        await reply.write(data)
        except ArenaError as error:
            if not reply.started:
                raise
            await reply.end(writer.failed(error))
            return
        if body.stream:
            await reply.end()
        else:
            await reply.json(writer.response)
