"""A chat request in OpenAI's words, and what of it this kind of server does not take."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Set
from typing import Any

import msgspec

from arena.errors import BadRequest
from arena.types import ChatMessage, ChatRequest, Options

# Words of ours that OpenAI's API has under another name; num_ctx is fixed when such a server starts.
_SAME = ("temperature", "top_p", "seed", "stop")
_EXTRA_OPTIONS = {"top_k": ("top_k",), "repeat_penalty": ("repeat_penalty", "repetition_penalty")}
EXTRAS = ("stream_options", "top_k", "repeat_penalty", "repetition_penalty", "chat_template_kwargs", "reasoning_effort")
"""Keys of a body that a strict server may refuse; without them it still answers."""
_UNKNOWN_KEY = re.compile(
    rb"(?i)unrecogni[sz]ed|unknown|unexpected|unsupported|not (?:supported|permitted|allowed)|extra"
)
_IMAGES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


def chat_body(request: ChatRequest, refused: Set[str]) -> dict[str, Any]:
    """The JSON of a chat request, without the keys this server has refused before."""
    instance = request.instance
    messages = [_message(message) for message in request.messages]
    if instance.system and not any(message.role == "system" for message in request.messages):
        messages.insert(0, {"role": "system", "content": instance.system})
    body = {
        "model": instance.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_options(instance.options),
        **_thinking(instance.think),
    }
    return {key: value for key, value in body.items() if key not in refused}


def unsent(options: Options, refused: Set[str]) -> tuple[str, ...]:
    """The names of the set options that are not sent: a manifest must not claim them."""
    sent = options.sent()
    left = {"num_ctx"} | {name for name, keys in _EXTRA_OPTIONS.items() if refused >= set(keys)}
    if (options.num_predict or 0) < 0:
        left.add("num_predict")  # "no limit" is what such a server does when it is told none
    return tuple(name for name in sent if name in left)


def refused_keys(body: dict[str, Any], answer: bytes) -> set[str]:
    """The extras that `answer`, the body of a 400 or 422, complains about not to know."""
    if not _UNKNOWN_KEY.search(answer):
        return set()
    return {key for key in EXTRAS if key in body and key.encode() in answer}


def encoded(body: dict[str, Any]) -> bytes:
    """`body` as JSON; raises BadRequest for half a character."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise BadRequest("The text holds half of a character (a lone surrogate), which cannot be sent.") from None


def _options(options: Options) -> dict[str, Any]:
    sent = options.sent()
    body = {name: sent[name] for name in _SAME if name in sent}
    for name, keys in _EXTRA_OPTIONS.items():
        if name in sent:
            body |= dict.fromkeys(keys, sent[name])
    if sent.get("num_predict", -1) >= 0:
        body["max_tokens"] = sent["num_predict"]
    return body


def _thinking(think: bool | str | None) -> dict[str, Any]:
    if think is None:
        return {}
    if isinstance(think, str):
        return {"reasoning_effort": "high" if think == "max" else think}
    return {"chat_template_kwargs": {"enable_thinking": think}}


def _message(message: ChatMessage) -> dict[str, Any]:
    sent: dict[str, Any] = {**message.extra, "role": message.role, "content": message.content}
    if isinstance(calls := sent.get("tool_calls"), list):
        sent["tool_calls"] = [_tool_call(call, number) for number, call in enumerate(calls)]
    if message.images:
        parts = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in message.images]
        sent["content"] = [{"type": "text", "text": message.content}, *parts]
    return sent


def _tool_call(call: Any, number: int) -> Any:
    """A call in OpenAI's form, where arguments are a text; Ollama's form has an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
    return {"id": f"call_{number}", "type": "function", **call, "function": {**function, "arguments": arguments}}


def _data_url(image: str) -> str:
    try:
        begin = base64.b64decode(image[:24])
    except (binascii.Error, ValueError):
        raise BadRequest("An image is not base64.") from None
    kind = next((kind for mark, kind in _IMAGES.items() if begin.startswith(mark)), "png")
    return f"data:image/{kind};base64,{image}"
