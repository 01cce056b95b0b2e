"""OpenAI's routes, as Ollama offers them: /v1/models, chat/completions, completions and embeddings."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field
from starlette.requests import Request

from arena.engine import options as allowed
from arena.engine.calls import Call, Message, ToolCall, ToolFunction, check_images, checked_logprobs
from arena.engine.core import Engine
from arena.engine.http import EVENTS, Dialect, Reply, decoded
from arena.engine.translate import Ending, Event, Piece, Timings, joined
from arena.errors import ArenaError, BadRequest

EFFORTS: Mapping[str, bool | str] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max",
}  # fmt: skip
SYSTEM_FINGERPRINT = "fp_arena"
_TYPES = {400: "invalid_request_error", 404: "not_found_error", 413: "invalid_request_error"}


class OpenAIDialect(Dialect):
    """Errors as OpenAI's clients expect them."""

    def body(self, error: ArenaError) -> bytes:
        """An error object."""
        kind = _TYPES.get(error.status, "api_error")
        return msgspec.json.encode({"error": {"message": error.message, "type": kind, "param": None, "code": None}})

    def line(self, error: ArenaError) -> bytes:
        """An event with the error object; no [DONE] follows."""
        return b"data: " + self.body(error) + b"\n\n"


class StreamOptions(Struct, frozen=True):
    """What else a stream should carry."""

    include_usage: bool = False


class ResponseFormat(Struct, frozen=True):
    """The form the answer must have."""

    type: str = "text"
    json_schema: dict[str, Any] | None = None


class _Sampling(Struct, frozen=True, kw_only=True):
    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class ChatCompletionBody(_Sampling, frozen=True, kw_only=True):
    """The body of POST /v1/chat/completions; what Ollama ignores is ignored.

    `max_completion_tokens` is OpenAI's newer word for `max_tokens`, and wins where both are given.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    max_completion_tokens: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class CompletionBody(_Sampling, frozen=True, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str = ""


class EmbeddingBody(Struct, frozen=True):
    """The body of POST /v1/embeddings."""

    model: str = ""
    input: str | list[str] = ""
    dimensions: int | None = None
    encoding_format: str = "float"


def _options(body: _Sampling, limit: int | None = None) -> dict[str, Any]:
    """OpenAI's defaults are 1.0, and override the model's own. `limit` wins over `max_tokens`."""
    given = {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "seed": body.seed,
        "num_predict": body.max_tokens if limit is None else limit,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
    }
    return allowed.checked(given)


def _format(wanted: ResponseFormat | None) -> Any:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return "json"
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        return wanted.json_schema.get("schema") or {}
    raise BadRequest("response_format must be of type text, json_object or json_schema")


def _message(message: dict[str, Any]) -> Message:
    try:
        texts, images = _parts(message.get("content"))
        calls = [_tool_call(call) for call in message.get("tool_calls") or []]
        return Message(
            role=str(message["role"]),
            content="".join(texts),
            thinking=message.get("reasoning"),
            images=images or None,
            tool_calls=calls or None,
            tool_call_id=message.get("tool_call_id"),
            tool_name=message.get("name"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"invalid message: {error}") from None


def _parts(content: Any) -> tuple[list[str], list[str]]:
    if content is None or isinstance(content, str):
        return [content or ""], []
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        if part["type"] == "text":
            texts.append(part["text"])
        elif part["type"] == "image_url":
            url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
            images.append(data_of(url))
        else:
            raise BadRequest(f"invalid message format: part of type {part['type']}")
    check_images(images)
    return texts, images


def data_of(url: str) -> str:
    """The base64 of a picture in a data URL. Raises BadRequest for any other URL: nothing is fetched."""
    if not url.startswith("data:image/") or ";base64," not in url:
        raise BadRequest("invalid image input: only data URLs are taken")
    return url.split(",", 1)[1]


def _tool_call(call: dict[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(ToolFunction(str(function["name"]), str(function.get("arguments") or "{}")), call.get("id"))


def _chat_call(body: ChatCompletionBody) -> Call:
    if not body.messages:
        raise BadRequest("[] is too short - 'messages'")
    return Call(
        model=_named(body.model),
        messages=[_message(message) for message in body.messages],
        options=_options(body, body.max_completion_tokens),
        format=_format(body.response_format),
        tools=body.tools or [],
        think=think_of(body.reasoning_effort),
        top_logprobs=checked_logprobs(body.logprobs, body.top_logprobs),
    )


def think_of(effort: str | None) -> bool | str | None:
    """What an effort of OpenAI's is here; None leaves it to the model. Raises BadRequest."""
    if effort is None:
        return None
    if effort not in EFFORTS:
        raise BadRequest(f"invalid reasoning value: {effort!r} (must be one of {', '.join(EFFORTS)})")
    return EFFORTS[effort]


def _named(model: str) -> str:
    if not model:
        raise BadRequest("model is required")
    return model


def _usage(timings: Timings) -> dict[str, Any]:
    prompt = timings.prompt_n + timings.cache_n
    return {
        "prompt_tokens": prompt,
        "completion_tokens": timings.predicted_n,
        "total_tokens": prompt + timings.predicted_n,
        "prompt_tokens_details": {"cached_tokens": timings.cache_n},
    }


class _Chunks:
    """Writes the events of one answer in OpenAI's form, whole or as server-sent events."""

    def __init__(self, call: Call, chat: bool, usage: bool) -> None:
        self._chat = chat
        self._usage = usage
        self._base = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": call.model,
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }
        self._first = True
        self._called = False

    def encoded(self, events: list[Event]) -> bytes:
        """The events of a batch as bytes of a stream."""
        return b"".join(self._encoded(event) for event in events)

    def _encoded(self, event: Event) -> bytes:
        if isinstance(event, Piece):
            return self._chunk(self._piece(event))
        if isinstance(event, Ending):
            reason = self._reason(event.reason)
            nothing: dict[str, Any] = {"delta": {}} if self._chat else {"text": ""}
            out = self._chunk({**nothing, "finish_reason": reason})
            if self._usage:
                out += self._chunk(None, _usage(event.timings))
            return out + b"data: [DONE]\n\n"
        return b""

    def _chunk(self, choice: dict[str, Any] | None, usage: dict[str, Any] | None = None) -> bytes:
        chunk: dict[str, Any] = dict(self._base)
        if self._chat:
            chunk["object"] = "chat.completion.chunk"
        chunk["choices"] = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
        if usage is not None:
            chunk["usage"] = usage
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _piece(self, piece: Piece) -> dict[str, Any]:
        if not self._chat:
            return {"text": piece.text}
        delta: dict[str, Any] = {"role": "assistant"} if self._first else {}
        self._first = False
        delta |= self._content(piece)
        return {"delta": delta, **({"logprobs": {"content": piece.logprobs}} if piece.logprobs else {})}

    def _content(self, piece: Piece) -> dict[str, Any]:
        content: dict[str, Any] = {"content": piece.text}
        if piece.thinking:
            content["reasoning"] = piece.thinking
        if piece.tool_calls:
            self._called = True
            content["tool_calls"] = [_call(call, number) for number, call in enumerate(piece.tool_calls)]
        return content

    def _reason(self, reason: str) -> str:
        return "tool_calls" if self._called and reason != "length" else "length" if reason == "length" else "stop"

    def whole(self, events: list[Event]) -> dict[str, Any]:
        """The whole answer as one document."""
        piece, ending = joined(events)
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["message"] = {"role": "assistant", **self._content(piece)}
            choice["logprobs"] = {"content": piece.logprobs} if piece.logprobs else None
        else:
            choice["text"] = piece.text
        choice["finish_reason"] = self._reason(ending.reason)
        return {**self._base, "choices": [choice], "usage": _usage(ending.timings)}


def _call(call: ToolCall, number: int) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.function.arguments or {}).decode()
    return {
        "id": call.id or f"call_{number}",
        "index": number,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }


class OpenAI:
    """The handlers of /v1."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def chat(self, request: Request, reply: Reply) -> None:
        """POST /v1/chat/completions."""
        body = await decoded(request, ChatCompletionBody)
        await self._answer(_chat_call(body), body, True, reply)

    async def completions(self, request: Request, reply: Reply) -> None:
        """POST /v1/completions: as in Ollama, the prompt is one question put through the chat template."""
        body = await decoded(request, CompletionBody)
        call = Call(model=_named(body.model), messages=[Message("user", body.prompt)], options=_options(body))
        await self._answer(call, body, False, reply)

    async def _answer(self, call: Call, body: _Sampling, chat: bool, reply: Reply) -> None:
        usage = body.stream_options is not None and body.stream_options.include_usage
        chunks = _Chunks(call, chat, usage)
        whole: list[Event] = []
        async with self._engine.answer(call, time.monotonic_ns()) as answer:
            async for batch in answer.events:
                if not body.stream:
                    whole += batch
                    continue
                if not reply.started:
                    await reply.start(EVENTS)
                await reply.write(chunks.encoded(batch))
        if body.stream:
            await reply.end()
        else:
            await reply.json(chunks.whole(whole))

    async def embeddings(self, request: Request, reply: Reply) -> None:
        """POST /v1/embeddings."""
        body = await decoded(request, EmbeddingBody)
        if body.encoding_format not in ("float", "base64"):
            raise BadRequest("Invalid value for 'encoding_format': must be 'float' or 'base64'")
        inputs = [body.input] if isinstance(body.input, str) else body.input
        if not inputs or inputs == [""]:
            raise BadRequest("invalid input")
        result = await self._engine.embed(Call(model=_named(body.model)), inputs, body.dimensions)
        data = [
            {"object": "embedding", "index": number, "embedding": _packed(vector, body.encoding_format)}
            for number, vector in enumerate(result["embeddings"])
        ]
        count = result["prompt_eval_count"]
        usage = {"prompt_tokens": count, "total_tokens": count}
        await reply.json({"object": "list", "data": data, "model": body.model, "usage": usage})


def _packed(vector: list[float], form: str) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if form == "base64" else vector


def listed(model: dict[str, Any], created: int) -> dict[str, Any]:
    """A model's item in /v1/models."""
    return {"id": model["name"], "object": "model", "created": created, "owned_by": "library"}
