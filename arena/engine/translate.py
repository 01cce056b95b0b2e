"""Between our calls and llama.cpp's server: request bodies one way, streamed events the other. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from arena.engine import options as allowed
from arena.engine.calls import Call, Message, ToolCall, ToolFunction
from arena.errors import ArenaError

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/completion"
TEMPLATE_PATH = "/apply-template"
COUNT_PATH = "/v1/chat/completions/input_tokens"
_IMAGE_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


class Timings(Struct, frozen=True):
    """llama.cpp's own measurements: tokens and milliseconds. `cache_n` prompt tokens were not computed again."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class Piece(Struct, frozen=True, gc=False):
    """A piece of the answer. `timings` are those so far, for a call that counts each piece."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[dict[str, Any], ...] = ()
    timings: Timings | None = None


class Ending(Struct, frozen=True):
    """The answer is complete. `reason` is stop, length or tool_calls; `context` the tokens to go on from."""

    reason: str
    timings: Timings
    context: list[int] | None = None


class Trouble(Struct, frozen=True):
    """llama.cpp says that something is wrong."""

    message: str
    status: int = 500
    kind: str = ""
    prompt_tokens: int = 0
    context: int = 0


Event = Piece | Ending | Trouble


def joined(events: list[Event]) -> tuple[Piece, Ending]:
    """A whole answer as one piece and its end. Raises ArenaError when it has none."""
    pieces = [event for event in events if isinstance(event, Piece)]
    ending = next((event for event in reversed(events) if isinstance(event, Ending)), None)
    if ending is None:
        raise ArenaError("an error was encountered while running the model: unexpected EOF")
    whole = Piece(
        "".join(piece.text for piece in pieces),
        "".join(piece.thinking for piece in pieces),
        tuple(call for piece in pieces for call in piece.tool_calls),
        tuple(entry for piece in pieces for entry in piece.logprobs),
        ending.timings,
    )
    return whole, ending


def request_body(call: Call, context: int) -> tuple[str, bytes]:
    """The path and body that make llama.cpp give this answer as a stream."""
    body: dict[str, Any] = allowed.sampling(call.options, context)
    body |= {"stream": True, "cache_prompt": True}
    if call.messages and not call.context:
        body |= _chat(call)
        return CHAT_PATH, msgspec.json.encode(body)
    text = call.prompt or ""
    body["prompt"] = [*call.context, text] if call.context else text
    if call.format is not None:
        body["json_schema"] = {} if call.format == "json" else call.format
    if call.top_logprobs is not None:
        body["n_probs"] = max(1, call.top_logprobs)
    return COMPLETION_PATH, msgspec.json.encode(body)


def template_body(messages: list[Message]) -> bytes:
    """The body that makes llama.cpp write messages as the model's template does."""
    return msgspec.json.encode({"messages": [_message(message) for message in messages]})


def _chat(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [_message(message) for message in call.messages],
        "stream_options": {"include_usage": True},
    }
    if call.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif call.format is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": call.format}}
    if call.tools:
        body["tools"] = call.tools
        body["tool_choice"] = call.tool_choice or "auto"
    if call.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": call.top_logprobs}
    if call.count_each:
        body["timings_per_token"] = True
    if call.think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": bool(call.think)}
        if isinstance(call.think, str):
            body["chat_template_kwargs"]["reasoning_effort"] = "high" if call.think == "max" else call.think
    return body


def _message(message: Message) -> dict[str, Any]:
    content: Any = message.content or ""
    if message.images:
        parts = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images]
        content = [{"type": "text", "text": content}, *parts]
    out: dict[str, Any] = {"role": message.role.lower(), "content": content}
    if message.thinking:
        out["reasoning_content"] = message.thinking
    if message.tool_calls:
        out["tool_calls"] = [_tool_call(call, number) for number, call in enumerate(message.tool_calls)]
    if message.role.lower() == "tool":
        out["tool_call_id"] = message.tool_call_id or "call_0"
        if message.tool_name:
            out["name"] = message.tool_name
    return out


def _tool_call(call: ToolCall, number: int) -> dict[str, Any]:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return {
        "id": call.id or f"call_{number}",
        "type": "function",
        "function": {"name": call.function.name, "arguments": text},
    }


def _data_url(image: str) -> str:
    begin = base64.b64decode(image[:24] + "=" * (-len(image[:24]) % 4))
    kind = next((name for mark, name in _IMAGE_KINDS.items() if begin.startswith(mark)), "png")
    return f"data:image/{kind};base64,{image}"


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolDelta(Struct):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Logprobs(Struct):
    content: list[dict[str, Any]] | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Error(Struct):
    message: str = ""
    code: int = 500
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _Chunk(Struct):
    """One event of either of llama.cpp's streams."""

    choices: list[_Choice] | None = None
    timings: Timings | None = None
    error: _Error | None = None
    content: str | None = None
    stop: bool = False
    stop_type: str | None = None
    completion_probabilities: list[dict[str, Any]] | None = None


class Decoder:
    """Turns the bytes of a server-sent stream into events. Feed it blocks as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._reason: str | None = None
        self._calls: dict[int, _ToolDelta] = {}
        self._chunks = msgspec.json.Decoder(_Chunk)

    def feed(self, block: bytes) -> list[Event]:
        """The events that are complete with this block."""
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        events: list[Event] = []
        for line in lines:
            if line.startswith(b"data: {"):
                events.extend(self._events(self._chunks.decode(line[6:])))
        return events

    def _events(self, chunk: _Chunk) -> Iterator[Event]:
        if chunk.error is not None:
            yield _trouble(chunk.error)
            return
        if chunk.choices is None:
            yield from self._completion(chunk)
            return
        for choice in chunk.choices:
            yield from self._choice(choice, chunk.timings)
        if chunk.timings is not None and (self._reason is not None or not chunk.choices):
            if self._calls:
                calls = tuple(_whole(call) for _, call in sorted(self._calls.items()))
                yield Piece(tool_calls=calls, timings=chunk.timings)
            yield Ending(self._reason or "stop", chunk.timings)

    def _choice(self, choice: _Choice, timings: Timings | None) -> Iterator[Event]:
        delta = choice.delta
        if delta is not None:
            for part in delta.tool_calls or ():
                self._add(part)
            if delta.content or delta.reasoning_content:
                logprobs = (choice.logprobs.content or []) if choice.logprobs else []
                text, thinking = delta.content or "", delta.reasoning_content or ""
                yield Piece(text, thinking, (), tuple(map(_probability, logprobs)), timings)
        if choice.finish_reason is not None:
            self._reason = choice.finish_reason

    def _completion(self, chunk: _Chunk) -> Iterator[Event]:
        if chunk.content:
            yield Piece(chunk.content, logprobs=tuple(map(_probability, chunk.completion_probabilities or ())))
        if chunk.stop:
            yield Ending("length" if chunk.stop_type == "limit" else "stop", chunk.timings or Timings())

    def _add(self, part: _ToolDelta) -> None:
        """Calls come in pieces; Ollama sends them whole."""
        call = self._calls.setdefault(part.index, _ToolDelta(part.index, None, _Function("", "")))
        call.id = call.id or part.id
        if part.function is not None and call.function is not None:
            call.function.name = (call.function.name or "") + (part.function.name or "")
            call.function.arguments = (call.function.arguments or "") + (part.function.arguments or "")


def _whole(call: _ToolDelta) -> ToolCall:
    function = call.function or _Function()
    try:
        arguments = msgspec.json.decode(function.arguments or "{}")
    except msgspec.DecodeError:
        arguments = {}  # cut by the length limit: a call that cannot be made
    return ToolCall(ToolFunction(function.name or "", arguments, call.index), call.id)


def _probability(entry: dict[str, Any]) -> dict[str, Any]:
    kept = _token(entry)
    if top := entry.get("top_logprobs"):
        kept["top_logprobs"] = [_token(item) for item in top]
    return kept


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key in ("token", "logprob", "bytes")}


def _trouble(error: _Error) -> Trouble:
    return Trouble(error.message, error.code, error.type, error.n_prompt_tokens, error.n_ctx)


def trouble_of(status: int, body: bytes) -> Trouble:
    """What llama.cpp says in a response that is not a stream."""
    try:
        error = msgspec.json.decode(body, type=_Chunk).error
    except msgspec.DecodeError:
        error = None
    return _trouble(error) if error else Trouble(f"the runner answered with status {status}", status)
