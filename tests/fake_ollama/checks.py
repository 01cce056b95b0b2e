"""What Ollama rejects before it generates, with its own words: pure functions from a request to (status, text)."""

from __future__ import annotations

import base64
import binascii

from tests.fake_ollama import catalogue
from tests.fake_ollama.dialects import Json
from tests.fake_ollama.exchange import Exchange
from tests.fake_ollama.plan import NAME
from tests.fake_ollama.refusals import NESTED

Rejection = tuple[int, str]

INTEGERS = ("num_predict", "num_ctx", "top_k", "seed", "num_keep", "repeat_last_n", "num_gpu", "num_thread")
FLOATS = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
THINK_LEVELS = ("low", "medium", "high", "max")


def rejection(exchange: Exchange) -> Rejection | None:
    """Why no model could answer this request; None when it is sound."""
    model, body = exchange.record.model, exchange.body
    if not exchange.request.body:
        return 400, "missing request body"
    if not isinstance(exchange.record.body, dict):
        return 400, "invalid character 'x' looking for beginning of value"
    if not model:
        return 400, "model is required"
    if not NAME.fullmatch(model):
        return 400, "invalid model name"
    if not exchange.fake.has(model):
        return 404, f"model '{model}' not found"
    parts = exchange.request.path.startswith("/v1/")
    return _wrong_message(body.get("messages"), parts) or _wrong_option(body.get("options")) or _wrong_keep(body)


def inability(exchange: Exchange) -> Rejection | None:
    """What this model lacks of what is asked on Ollama's own routes; None when nothing."""
    model, body = exchange.record.model, exchange.body
    can = catalogue.capabilities(model)
    think, images = body.get("think"), _images(body)
    if think is not None and not isinstance(think, bool) and think not in THINK_LEVELS:
        return 400, f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)'
    if think and "thinking" not in can:
        return 400, f'"{model}" does not support thinking'
    if body.get("tools") and "tools" not in can:
        return 400, f"registry.ollama.ai/library/{model} does not support tools"
    if not all(map(_base64, images)):
        return 400, "illegal base64 data at input byte 4"
    if images and "vision" not in can:
        text = "Multimodal data provided, but model does not support multimodal requests."
        return 400, NESTED.replace("MESSAGE", text)
    return None


def _wrong_message(messages: object, parts: bool) -> Rejection | None:
    """OpenAI's routes also take a message in `parts`."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content", "") if isinstance(message, dict) else None
        if not isinstance(content, str) and not (parts and isinstance(content, list | None)):
            return 400, "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"
    return None


def _wrong_option(options: object) -> Rejection | None:
    for name, value in options.items() if isinstance(options, dict) else ():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or number:
            continue
        if name in INTEGERS:
            return 500, f'option "{name}" must be of type integer'
        if name in FLOATS:
            return 500, f'option "{name}" must be of type float32'
        if name == "stop" and not isinstance(value, list):
            return 500, 'option "stop" must be of type array'
    return None


def _wrong_keep(body: Json) -> Rejection | None:
    keep = body.get("keep_alive")
    if isinstance(keep, bool):
        return 400, "json: cannot unmarshal bool into Go value of type api.Duration"
    if isinstance(keep, str) and keep != "0" and not keep.endswith(("s", "m", "h")):
        return 400, f'time: missing unit in duration "{keep}"'
    return None


def _images(body: Json) -> list[object]:
    messages = body.get("messages")
    holders = [body, *(messages if isinstance(messages, list) else [])]
    return [image for holder in holders if isinstance(holder, dict) for image in holder.get("images") or []]


def _base64(image: object) -> bool:
    try:
        return isinstance(image, str) and bool(base64.b64decode(image, validate=True))
    except binascii.Error:
        return False
