"""A chat request in OpenAI's words, and what of it this kind of server does not take."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Set
from typing import Any

import msgspec
from msgspec.structs import replace

from arena.errors import BadRequest
from arena.types import ChatMessage, ChatRequest, ModelInstance

_SAME = ("temperature", "top_p", "seed", "stop")
_OTHER_NAMES = {"top_k": ("top_k",), "repeat_penalty": ("repeat_penalty", "repetition_penalty")}
COMMON = frozenset({"stream_options", "reasoning_effort"})
"""Keys that most servers know; a strict one may refuse them, and answers without."""
REFUSING = (400, 422)
"""The statuses with which a strict server answers a key it does not know."""
# Further keys, by the word for their makers in a list of models. Others ignore them unsaid, and get none of them.
_FURTHER = {
    "llamacpp": frozenset({"top_k", "repeat_penalty", "chat_template_kwargs"}),
    "vllm": frozenset({"top_k", "repetition_penalty", "chat_template_kwargs"}),
    "sglang": frozenset({"top_k", "repetition_penalty", "chat_template_kwargs"}),
    "organization_owner": frozenset({"top_k", "repeat_penalty"}),  # LM Studio
}
_UNKNOWN_KEY = re.compile(
    rb"(?i)unrecogni[sz]ed|unknown|unexpected|unsupported|not (?:supported|permitted|allowed)|extra"
)
_IMAGES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


def keys_of(owner: str | None) -> frozenset[str]:
    """The optional keys that a server takes whose models are `owned_by` this word."""
    return COMMON | _FURTHER.get(owner or "", frozenset())


def chat_body(request: ChatRequest, keys: Set[str]) -> dict[str, Any]:
    """The JSON of a chat request; of the optional keys only those in `keys`."""
    instance = request.instance
    messages = [_message(message) for message in request.messages]
    if instance.system and not any(message.role == "system" for message in request.messages):
        messages.insert(0, {"role": "system", "content": instance.system})
    body = {"model": instance.model, "messages": messages, "stream": True}
    options = instance.options.sent()
    body |= {name: options[name] for name in _SAME if name in options}
    if options.get("num_predict", -1) >= 0:
        body["max_tokens"] = options["num_predict"]
    optional: dict[str, Any] = {"stream_options": {"include_usage": True}, **_thinking(instance.think)}
    for name, others in _OTHER_NAMES.items():
        if name in options:
            optional |= dict.fromkeys(others, options[name])
    return body | {key: value for key, value in optional.items() if key in keys}


def told(instance: ModelInstance, keys: Set[str]) -> ModelInstance:
    """`instance` without what such a server is not told: a manifest must not claim it. The context never is."""
    options = replace(instance.options, num_ctx=None)
    for name, others in _OTHER_NAMES.items():
        if not keys & set(others):
            options = replace(options, **{name: None})
    if (options.num_predict or 0) < 0:
        options = replace(options, num_predict=None)  # "no limit" is what it does when it is told none
    think = instance.think if _thinking(instance.think).keys() <= keys else None
    return replace(instance, options=options, think=think)


def refused_keys(body: dict[str, Any], keys: Set[str], answer: bytes) -> frozenset[str]:
    """The optional keys in `body` that `answer`, the body of a 400 or 422, complains about not to know."""
    if not _UNKNOWN_KEY.search(answer):
        return frozenset()
    return frozenset(key for key in keys if key in body and key.encode() in answer)


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
