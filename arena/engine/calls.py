"""What a client asks, free of dialect: Ollama's bodies and OpenAI's both become a Call."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import msgspec
from msgspec import Struct, field

from arena.engine import options as allowed
from arena.engine.durations import parse_duration
from arena.errors import ArenaError, BadRequest

THINK_LEVELS = ("low", "medium", "high", "max")
MOST_MESSAGES = 10_000
LARGEST_TOKEN = 2**31 - 1  # llama.cpp takes what is larger for another token


class ToolFunction(Struct, frozen=True, omit_defaults=True):
    """The call a model wants made; natively `arguments` is an object."""

    name: str
    arguments: Any = None
    index: int | None = None


class ToolCall(Struct, frozen=True, omit_defaults=True):
    """One call of a tool."""

    function: ToolFunction
    id: str | None = None


class Message(Struct, frozen=True, omit_defaults=True):
    """One message in Ollama's form."""

    role: str
    content: str | None = ""
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Common(Struct, frozen=True, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    options: dict[str, Any] | None = None
    format: Any = None
    keep_alive: Any = None
    think: Any = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatBody(_Common, frozen=True, kw_only=True):
    """The body of POST /api/chat."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateBody(_Common, frozen=True, kw_only=True):
    """The body of POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class EmbedBody(Struct, frozen=True):
    """The body of POST /api/embed and of the older /api/embeddings (which has `prompt`)."""

    model: str | None = None
    input: str | list[str] | None = None
    prompt: str | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class Call(Struct, frozen=True, kw_only=True):
    """One answer that is wanted. Without messages and prompt it only loads (or unloads) the model.

    `context`: token ids of the conversation so far (none at its beginning); None: the end tells none, either.
    `count_each`: every piece says what the answer has cost so far.
    """

    model: str
    messages: list[Message] = field(default_factory=list)
    prompt: str | None = None
    context: list[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Any = None
    keep_alive_s: float | None = None
    think: bool | str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: str | None = None
    truncate: bool = True
    shift: bool = True
    top_logprobs: int | None = None
    count_each: bool = False

    @property
    def empty(self) -> bool:
        """Is nothing asked but to load or unload?"""
        return not self.messages and self.prompt is None

    @property
    def has_images(self) -> bool:
        """Does any message bring a picture?"""
        return any(message.images for message in self.messages)


def chat_call(body: ChatBody) -> Call:
    """Check a chat body. Raises BadRequest, or ArenaError where Ollama answers 500."""
    if not body.model:
        raise BadRequest("model is required")
    messages = body.messages or []
    if len(messages) > MOST_MESSAGES:
        raise BadRequest(f"at most {MOST_MESSAGES} messages are taken")
    for message in messages:
        check_images(message.images or [])
    return Call(messages=messages, tools=body.tools or [], **_common(body))


def generate_call(body: GenerateBody) -> Call:
    """Check a generate body; without `raw` it becomes a chat of one question. Raises BadRequest, or as Ollama does."""
    if not body.model:
        raise ArenaError("model '' not found", code="model_not_found")
    if body.template:
        raise BadRequest("template is not supported: the model's own template is used")
    if body.suffix:
        raise BadRequest(f'"{body.model}" does not support insert')
    check_images(body.images or [])
    context = body.context or []
    if not all(0 <= token <= LARGEST_TOKEN for token in context):
        raise BadRequest(f"context: token ids are from 0 to {LARGEST_TOKEN}; send the last answer's array as it came")
    if context and body.images:
        raise BadRequest("context: pictures cannot follow one: send the conversation to /api/chat")
    if body.raw:
        if body.system or body.context:
            raise BadRequest("raw mode does not support template, system, or context")
        return Call(prompt=body.prompt or None, **_common(body))
    if not body.prompt and not body.images:
        return Call(**_common(body))
    messages = [Message("system", body.system)] if body.system else []
    messages.append(Message("user", body.prompt or "", images=body.images))
    return Call(messages=messages, context=context, **_common(body))


def _common(body: _Common) -> dict[str, Any]:
    return {
        "model": body.model,
        "options": allowed.checked(body.options or {}),
        "format": checked_format(body.format),
        "keep_alive_s": None if body.keep_alive is None else parse_duration(body.keep_alive),
        "think": checked_think(body.think),
        "truncate": body.truncate is not False,
        "shift": body.shift is not False,
        "top_logprobs": checked_logprobs(body.logprobs, body.top_logprobs),
    }


def checked_format(value: Any) -> Any:
    """None, "json" or a JSON Schema. Raises ArenaError for anything else, which is Ollama's 500."""
    if value is None or value == "":
        return None
    if value == "json" or isinstance(value, dict):
        return value
    shown = msgspec.json.encode(value).decode()[:200]
    raise ArenaError(f'invalid format: {shown}; expected "json" or a valid JSON Schema object')


def checked_think(value: Any) -> bool | str | None:
    """None (the model's own habit), a bool, or a level. Raises BadRequest."""
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise BadRequest('think must be a boolean or string ("high", "medium", "low", "max", true, or false)')
    if value not in THINK_LEVELS:
        raise BadRequest(
            f'invalid think value: "{value[:40]}" (must be "high", "medium", "low", "max", true, or false)'
        )
    return value


def checked_logprobs(wanted: bool | None, top: int | None) -> int | None:
    """How many alternatives to give with each token; None gives no probabilities. Raises BadRequest."""
    if top is not None and not 0 <= top <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20")
    return (top or 0) if wanted else None


def check_images(images: list[str]) -> None:
    """Raise BadRequest unless all are bare base64."""
    for image in images:
        try:
            base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            legal = re.match(r"[A-Za-z0-9+/]*={0,2}", image)
            raise BadRequest(f"illegal base64 data at input byte {legal.end() if legal else 0}") from None
