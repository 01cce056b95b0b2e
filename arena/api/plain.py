"""The requests that most programs send most of the time, checked by one typed decode.

What does not fit is read with care by `arena.api.requests`, which also finds the words for what is wrong.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from arena import names
from arena.api.fields import MAX_ID_CHARACTERS, PARAMETERS
from arena.types import ChatMessage, ChatRequest, ModelInstance, Options

_TEMPERATURE, _TOP_P, _TOP_K, _REPEAT, _PREDICT, _SEED, _CONTEXT = PARAMETERS


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class _Instance(Struct, forbid_unknown_fields=True):
    """A whole number that is written as one, in range; everything else is for the careful reader."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]
    model: Annotated[str, Meta(pattern=names.PATTERN, max_length=names.MAX_BYTES)]
    temperature: Annotated[float, Meta(ge=_TEMPERATURE.low, le=_TEMPERATURE.high)] | None = _TEMPERATURE.default
    top_p: Annotated[float, Meta(ge=_TOP_P.low, le=_TOP_P.high)] | None = _TOP_P.default
    top_k: Annotated[int, Meta(ge=int(_TOP_K.low), le=int(_TOP_K.high))] | None = 40
    repeat_penalty: Annotated[float, Meta(ge=_REPEAT.low, le=_REPEAT.high)] | None = _REPEAT.default
    num_predict: Annotated[int, Meta(ge=int(_PREDICT.low), le=int(_PREDICT.high))] | None = -1
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    num_ctx: Annotated[int, Meta(ge=int(_CONTEXT.low), le=int(_CONTEXT.high))] | None = None


class _Request(Struct, forbid_unknown_fields=True):
    history: list[_Message]
    model_instances: list[_Instance]


_decode: Final = msgspec.json.Decoder(_Request).decode


def plain_requests(body: bytes, max_instances: int, max_messages: int) -> tuple[ChatRequest, ...] | None:
    """The requests in `body`, if they are of the plainest form and sound; else None, whatever the reason."""
    try:
        wanted = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    instances, history = wanted.model_instances, wanted.history
    if not 0 < len(instances) <= max_instances or not 0 < len(history) <= max_messages:
        return None
    messages = tuple([ChatMessage(message.role, message.content) for message in history])
    if messages[-1].role == "system" or (len(instances) > 1 and len({each.id for each in instances}) < len(instances)):
        return None
    requests = []
    for item in instances:
        if item.num_predict == 0 or not item.id.isprintable():
            return None
        options = Options(
            item.temperature,
            item.top_p,
            item.top_k,
            item.repeat_penalty,
            item.num_predict,
            item.seed or None,
            item.num_ctx,
        )
        requests.append(ChatRequest(ModelInstance(item.id, item.model, options), messages))
    return tuple(requests)
