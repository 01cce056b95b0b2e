"""The shapes of an answer: Ollama's chat and generate lines, OpenAI's chunks. Values only, no bytes on sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from tests.fake_ollama.oracle import checksum

Json = dict[str, Any]

NS_PER_TOKEN = 20_000_000
NS_PER_PROMPT_TOKEN = 1_000_000
LOAD_NS = 2_000_000


def encoded(value: object) -> bytes:
    """JSON as Go writes it: no spaces, raw UTF-8 (U+0085 too), but < > & U+2028 U+2029 as escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for raw in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(raw, f"\\u{ord(raw):04x}")
    return text.encode()


def stamp(index: int) -> str:
    """A made-up `created_at`; like Go's its fraction has no zeros at the end, so the width varies."""
    fraction = f"{index * 20_000_000 % 1_000_000_000:09d}".rstrip("0")
    second = f"2026-01-01T00:{index // 50 // 60 % 60:02d}:{index // 50 % 60:02d}"
    return f"{second}.{fraction}Z" if fraction else f"{second}Z"


@dataclass(frozen=True)
class Answer:
    """What was said and what it cost, once it is over."""

    text: str
    thinking: str
    tokens: int
    prompt_tokens: int
    reason: str
    load_ns: int = LOAD_NS
    queue_ns: int = 0
    tools: tuple[Json, ...] = ()

    def counters(self) -> Json:
        """Ollama's counters; one that is zero is left out, as Ollama does."""
        prompt_ns, eval_ns = self.prompt_tokens * NS_PER_PROMPT_TOKEN, self.tokens * NS_PER_TOKEN
        counters = {
            "total_duration": self.queue_ns + self.load_ns + prompt_ns + eval_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": prompt_ns,
            "eval_count": self.tokens,
            "eval_duration": eval_ns,
        }
        return {name: value for name, value in counters.items() if value}

    def oracle(self) -> Json:
        """The fake's own two fields, for tests."""
        return {"fx_sha256": checksum(self.text), "fx_count": self.tokens}


class Dialect(Protocol):
    """One route's way of saying things. All values are JSON objects, framed by `frame`."""

    content_type: str
    tail: bytes

    def delta(self, index: int, text: str = "", thinking: str = "", tools: tuple[Json, ...] = ()) -> Json:
        """One piece of the stream."""
        ...

    def final(self, answer: Answer) -> list[Json]:
        """What closes the stream."""
        ...

    def whole(self, answer: Answer, *, done: bool = True) -> Json:
        """The answer in one object, for `stream: false`."""
        ...

    def error(self, text: str) -> Json:
        """An error as this route words it."""
        ...

    def frame(self, value: Json, newline: bytes = b"\n") -> bytes:
        """The bytes of one value in the stream."""
        ...


class Native:
    """`/api/chat` and `/api/generate`: NDJSON."""

    content_type = "application/x-ndjson"
    tail = b""

    def __init__(self, model: str, *, generate: bool = False) -> None:
        self._model, self._generate = model, generate

    def delta(self, index: int, text: str = "", thinking: str = "", tools: tuple[Json, ...] = ()) -> Json:
        """One line with `done:false`."""
        return {"model": self._model, "created_at": stamp(index), **self._said(text, thinking, tools), "done": False}

    def final(self, answer: Answer) -> list[Json]:
        """The last line: empty content, reason, counters."""
        line: Json = {"model": self._model, "created_at": stamp(answer.tokens), **self._said("", "", ()), "done": True}
        context = {"context": [1, 2, 3]} if self._generate else {}
        return [{**line, "done_reason": answer.reason, **context, **answer.counters(), **answer.oracle()}]

    def whole(self, answer: Answer, *, done: bool = True) -> Json:
        """All content in the last line's object."""
        said = self._said(answer.text, answer.thinking, answer.tools)
        if not done:
            return {**self.delta(answer.tokens), **said}
        return {**self.final(answer)[0], **said}

    def error(self, text: str) -> Json:
        """`{"error": text}`."""
        return {"error": text}

    def frame(self, value: Json, newline: bytes = b"\n") -> bytes:
        """One line."""
        return encoded(value) + newline

    def _said(self, text: str, thinking: str, tools: tuple[Json, ...]) -> Json:
        thought = {"thinking": thinking} if thinking else {}
        called = {"tool_calls": list(tools)} if tools else {}
        if self._generate:
            return {"response": text, **thought}
        return {"message": {"role": "assistant", "content": text, **thought, **called}}


class OpenAI:
    """`/v1/chat/completions` and `/v1/completions`: server-sent events that end with `[DONE]`."""

    content_type = "text/event-stream"
    tail = b"data: [DONE]\n\n"

    def __init__(self, model: str, *, completion: bool = False, usage: bool = False) -> None:
        self._model, self._completion, self._usage = model, completion, usage

    def delta(self, index: int, text: str = "", thinking: str = "", tools: tuple[Json, ...] = ()) -> Json:
        """One chunk; the role comes in the first only."""
        if self._completion:
            return self._chunk({"text": text, "index": 0, "finish_reason": None})
        thought = {"reasoning": thinking} if thinking else {}
        called = {"tool_calls": _as_strings(tools)} if tools else {}
        role = {"role": "assistant"} if index == 0 else {}
        return self._chunk({"index": 0, "delta": {**role, "content": text, **thought, **called}, "finish_reason": None})

    def final(self, answer: Answer) -> list[Json]:
        """A chunk with the finish reason, then one with the usage if it was asked for."""
        reason = "tool_calls" if answer.tools else answer.reason
        said: Json = {"text": ""} if self._completion else {"delta": {}}
        finish = {**self._chunk({"index": 0, **said, "finish_reason": reason}), **answer.oracle()}
        return [finish, {**self._chunk(), "usage": _usage(answer)}] if self._usage else [finish]

    def whole(self, answer: Answer, *, done: bool = True) -> Json:
        """One completion object."""
        reason = ("tool_calls" if answer.tools else answer.reason) if done else None
        thought = {"reasoning": answer.thinking} if answer.thinking else {}
        called = {"tool_calls": _as_strings(answer.tools)} if answer.tools else {}
        message = {"role": "assistant", "content": answer.text, **thought, **called}
        said: Json = {"text": answer.text} if self._completion else {"message": message}
        kind = "text_completion" if self._completion else "chat.completion"
        body = {**self._chunk({"index": 0, **said, "finish_reason": reason}), "object": kind}
        return {**body, "usage": _usage(answer), **answer.oracle()}

    def error(self, text: str) -> Json:
        """OpenAI's error object."""
        return openai_error(text, "api_error")

    def frame(self, value: Json, newline: bytes = b"\n") -> bytes:
        """One event."""
        return b"data: " + encoded(value) + newline * 2

    def _chunk(self, *choices: Json) -> Json:
        kind = "text_completion" if self._completion else "chat.completion.chunk"
        return {
            "id": "chatcmpl-1",
            "object": kind,
            "created": 1767225600,
            "model": self._model,
            "system_fingerprint": "fp_ollama",
            "choices": list(choices),
        }


def openai_error(text: str, kind: str) -> Json:
    """OpenAI's error object."""
    return {"error": {"message": text, "type": kind, "param": None, "code": None}}


def _usage(answer: Answer) -> Json:
    prompt, tokens = answer.prompt_tokens, answer.tokens
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _as_strings(tools: tuple[Json, ...]) -> list[Json]:
    """OpenAI's tool calls carry their arguments as a JSON string."""
    return [
        {
            "id": call["id"],
            "type": "function",
            "index": call["function"]["index"],
            "function": {"name": call["function"]["name"], "arguments": json.dumps(call["function"]["arguments"])},
        }
        for call in tools
    ]
