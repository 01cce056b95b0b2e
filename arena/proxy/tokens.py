"""How many tokens a request of Anthropic's clients has: counted by a host that can, else estimated, and said so."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from arena.errors import ArenaError, BadRequest, UpstreamError
from arena.exchange import Headers, Inbound
from arena.proxy.ask import fetch
from arena.proxy.headers import header_value
from arena.proxy.hosts import holders, kinds_of, model_in, object_in
from arena.proxy.reply import Reply, Surroundings, json_reply

PATH: Final = "/v1/messages/count_tokens"
CHARACTERS_PER_TOKEN: Final = 4
UNREAD: Final = frozenset({"data", "type", "role", "id", "tool_use_id", "media_type", "cache_control"})
"""Members that are no text for a model: names, and images."""


class Counted(Struct, frozen=True):
    """What Anthropic's route answers."""

    input_tokens: int


async def count_tokens(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """POST /v1/messages/count_tokens, from a host that has the model; Ollama does not count.

    Where no host counts the answer is an estimate, four characters a token, and `estimated` in it is true. Raises
    BadRequest and ModelNotFound.
    """
    wanted = object_in(body)
    model = model_in(wanted)
    ours: Headers = [(b"x-olla-model", header_value(model))]
    for endpoint, name in await holders(proxy, inbound, model, kinds_of(inbound)):
        if endpoint.kind == "ollama":
            continue
        try:
            told = await fetch(endpoint, PATH, Counted, {**wanted, "model": name})
        except ArenaError as error:
            if isinstance(error, UpstreamError) and error.upstream_status == 400:
                raise BadRequest(error.message) from None
            continue
        backend = b"openai" if endpoint.kind == "openai" else b"ollama"
        ours += [(b"x-olla-endpoint", header_value(endpoint.name)), (b"x-olla-backend-type", backend)]
        return json_reply({"input_tokens": told.input_tokens}, headers=ours)
    return json_reply({"input_tokens": estimate(wanted), "estimated": True}, headers=ours)


def estimate(request: dict[str, Any]) -> int:
    """About how many tokens the instructions, messages and tools of `request` have; images are not counted."""
    characters = len(msgspec.json.encode(request["tools"])) if request.get("tools") else 0
    left = [request.get("system"), request.get("messages")]
    while left:
        item = left.pop()
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            left += [value for key, value in item.items() if key not in UNREAD]
    return -(-characters // CHARACTERS_PER_TOKEN)
