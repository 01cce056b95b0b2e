"""Anthropic's messages in the words of OpenAI's chat: a request one way, an answer the other. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from arena.anthropic import CountBody, MessagesBody, MessageWriter, tokens
from arena.anthropic.body import Base64Source, Block, Image, Text, Thinking, Tool, ToolResult, ToolUse, Turn
from arena.anthropic.message import StopReason
from arena.errors import BadRequest, UpstreamBroken
from arena.openai.events import DONE, Events, payloads
from arena.openai.failures import failed, read_object
from arena.upstream import clean, count

Json = dict[str, Any]

_REASONS: Final[dict[str, StopReason]] = {"length": "max_tokens", "content_filter": "refusal"}
_TEMPLATE: Final = "chat_template_kwargs"
"""Servers that know this key also read a model's earlier thoughts."""


# the request


Body = TypeVar("Body", bound=CountBody)


def read_body(body: bytes, kind: type[Body]) -> Body:
    """What a client asks. Raises BadRequest."""
    try:
        asked = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"invalid request body: {error}") from None
    asked.check()
    return asked


def chat_body(asked: MessagesBody, keys: Set[str]) -> Json:
    """The JSON of the same request; of the optional keys only those in `keys`. Raises BadRequest."""
    body = {**prompt_body(asked, keys), "max_tokens": asked.max_tokens}
    optional: Json = {"top_k": asked.top_k}
    if asked.stream:
        body["stream"] = True
        optional["stream_options"] = {"include_usage": True}
    if asked.thinking is not None and asked.thinking.type != "adaptive":
        optional[_TEMPLATE] = {"enable_thinking": asked.thinking.type == "enabled"}
    if asked.output_config is not None and asked.output_config.format is not None:
        form = {"name": "answer", "schema": asked.output_config.format.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    body |= {"temperature": asked.temperature, "top_p": asked.top_p, "stop": asked.stop_sequences or None}
    body |= {key: value for key, value in optional.items() if key in keys}
    return {key: value for key, value in body.items() if value is not None}


def prompt_body(asked: CountBody, keys: Set[str]) -> Json:
    """Of that what a model reads. Raises BadRequest."""
    thoughts = _TEMPLATE in keys
    messages = [message for turn in asked.messages for message in _messages(turn, thoughts)]
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    return {"model": asked.model, "messages": messages, **_tools(asked)}


def _messages(turn: Turn, thoughts: bool) -> Iterator[Json]:
    """One message of theirs as OpenAI's: results of tools are messages of their own, and come first."""
    blocks: Sequence[Block] = [Text(turn.content)] if isinstance(turn.content, str) else turn.content
    rest: list[Block] = []
    for block in blocks:
        if not isinstance(block, ToolResult):
            rest.append(block)
            continue
        content = [Text(block.content)] if isinstance(block.content, str) else block.content or []
        yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(content)}
        rest += [part for part in content if isinstance(part, Image)]  # for which a result of theirs has no place
    if not rest and blocks:
        return
    yield _assistant(rest, thoughts) if turn.role == "assistant" else {"role": "user", "content": _content(rest)}


def _assistant(blocks: Sequence[Block], thoughts: bool) -> Json:
    message: Json = {"role": "assistant", "content": _text(blocks)}
    thinking = "".join(block.thinking for block in blocks if isinstance(block, Thinking))
    if thinking and thoughts:
        message["reasoning_content"] = thinking
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": msgspec.json.encode(block.input).decode()},
        }
        for block in blocks
        if isinstance(block, ToolUse)
    ]
    return {**message, "tool_calls": calls} if calls else message


def _content(blocks: Sequence[Block]) -> str | list[Json]:
    """Text, or text and pictures in their order."""
    if not any(isinstance(block, Image) for block in blocks):
        return _text(blocks)
    parts: list[Json] = []
    for block in blocks:
        if isinstance(block, Text):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, Image):
            parts.append({"type": "image_url", "image_url": {"url": _address(block)}})
    return parts


def _text(blocks: Sequence[Block]) -> str:
    return "".join(block.text for block in blocks if isinstance(block, Text))


def _address(image: Image) -> str:
    source = image.source
    return f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Source) else source.url


def _tools(asked: CountBody) -> Json:
    tools, choice = asked.offered, asked.tool_choice
    if not tools:
        return {}
    told: Json = {"tools": [_tool(tool) for tool in tools]}
    if choice is None:
        return told
    if choice.type == "tool":
        told["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        told["tool_choice"] = "required" if choice.type == "any" else "auto"
    if choice.disable_parallel_tool_use:
        told["parallel_tool_calls"] = False
    return told


def _tool(tool: Tool) -> Json:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


# the answer


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | Json | None = None


class _ToolCall(Struct):
    function: _Function
    index: int | None = None
    id: str | None = None


class _Said(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    index: int | None = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM: the stop sequence


class _Details(Struct):
    cached_tokens: Any = None


class _Usage(Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _Details | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Chunk).decode


class ChatReader:
    """Reads an answer of OpenAI's chat and has it written as Anthropic's.

    `stops` are the stop sequences asked for. `pieces` is how many there were; `counted` whether the server has told
    what they cost. Every method raises UpstreamError where the server tells of one, and UpstreamBroken for what is no
    answer.
    """

    def __init__(self, endpoint: str, writer: MessageWriter, stops: Sequence[str]) -> None:
        self._endpoint = endpoint
        self._writer = writer
        self._stops = stops
        self._events = Events(endpoint)
        self._usage: _Usage | None = None
        self._reason = ""
        self._sequence: str | None = None
        self._call: int | None = None
        self.pieces = 0
        self.done = False

    @property
    def counted(self) -> bool:
        """Has the server told what the answer cost?"""
        return self._usage is not None

    def feed(self, data: bytes) -> None:
        """Some of a stream."""
        for payload in payloads(self._events.feed(data)):
            if payload == DONE:
                self.end()
            elif not self.done:
                self._read(payload)

    def whole(self, body: bytes) -> None:
        """An answer that is no stream, or that did not become one."""
        self._read(body)
        self.end()
        if not self.done:
            text = f"{self._endpoint} ended its answer without saying why it ended"
            raise UpstreamBroken(text, endpoint=self._endpoint, code="upstream_eof")

    def over(self) -> None:
        """The stream has ended, be it in the middle of an event."""
        if rest := self._events.taken():
            self.feed(rest + b"\n\n")
        self.end()

    def end(self) -> None:
        """There is no more: the message is complete if the server has said why it ended."""
        if self._reason and not self.done:
            self.done = True
            self._writer.end(self._stop_reason(), self._sequence, self._cost())

    def _read(self, payload: bytes) -> None:
        chunk = self._chunk(payload)
        if chunk.error is not None:
            raise failed(chunk.error, self._endpoint)
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            if not choice.index:
                if not self._writer.begun:
                    self._writer.begin(self._cost())
                self._take(choice)

    def _chunk(self, payload: bytes) -> _Chunk:
        try:
            return _decode(payload)
        except (ValueError, RecursionError):
            pass
        try:
            return msgspec.convert(_cleaned(read_object(payload, self._endpoint)), _Chunk)
        except (msgspec.ValidationError, RecursionError):
            raise self._malformed() from None

    def _take(self, choice: _Choice) -> None:
        said = choice.delta or choice.message
        if said is not None:
            thought = said.reasoning_content or said.reasoning
            self.pieces += bool(thought or said.content or said.tool_calls)
            if thought:
                self._writer.thinking(thought)
            if said.content:
                self._writer.text(said.content)
            if thought or said.content:
                self._call = None
            for number, call in enumerate(said.tool_calls or ()):
                self._tool(call, number)
        if choice.finish_reason:
            self._reason = choice.finish_reason
            if choice.stop_reason in self._stops:
                self._sequence = choice.stop_reason

    def _tool(self, call: _ToolCall, number: int) -> None:
        """A call begins with its name; what it is called with may come in many pieces, one call after the other."""
        index = number if call.index is None else call.index
        if call.function.name and index != self._call:
            self._call = index
            self._writer.tool(call.id, call.function.name)
        elif index != self._call:
            raise self._malformed()
        given = call.function.arguments
        if given:
            self._writer.arguments(given if isinstance(given, str) else msgspec.json.encode(given).decode())

    def _stop_reason(self) -> StopReason:
        if self._sequence is not None:
            return "stop_sequence"
        return _REASONS.get(self._reason) or ("tool_use" if self._writer.called else "end_turn")

    def _cost(self) -> Json:
        """What it has cost so far; where the server does not tell, the pieces are what is known."""
        usage = self._usage
        if usage is None:
            return tokens(0, 0, self.pieces)
        details = usage.prompt_tokens_details
        cached = count(details.cached_tokens) or 0 if details is not None else 0
        prompt, completion = count(usage.prompt_tokens) or 0, count(usage.completion_tokens) or 0
        return tokens(max(0, prompt - cached), cached, completion)

    def _malformed(self) -> UpstreamBroken:
        text = f"{self._endpoint} sent an answer that OpenAI's API does not know"
        return UpstreamBroken(text, endpoint=self._endpoint, code="malformed")


def _cleaned(value: Any) -> Any:
    """JSON without halves of characters, which could not be written."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return {key: _cleaned(item) for key, item in value.items()} if isinstance(value, dict) else value
