"""How many tokens a request of Anthropic's clients has: counted by a host that can, else estimated, and said so."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from arena.anthropic import CountBody
from arena.errors import ArenaError, BadRequest
from arena.exchange import Headers, Inbound
from arena.fleet import Endpoint
from arena.ollama.failures import refusal
from arena.proxy.ask import decoded, quick
from arena.proxy.chat import prompt_body, read_body
from arena.proxy.failures import UNKNOWN_HERE
from arena.proxy.headers import header_value
from arena.proxy.hosts import holders, kinds_of, model_in, object_in
from arena.proxy.reply import Reply, Surroundings, json_reply
from arena.upstream import count

PATH: Final = "/v1/messages/count_tokens"
CHAT_PATHS: Final = ("/v1/chat/completions/input_tokens", "/tokenize")
"""Where servers count that know OpenAI's chat only: llama.cpp, vLLM."""
CHARACTERS_PER_TOKEN: Final = 4
UNREAD: Final = frozenset({"data", "type", "role", "id", "tool_use_id", "media_type", "cache_control"})
"""Members that are no text for a model: names, and images."""


class Counted(Struct, frozen=True):
    """What one of these routes answers."""

    input_tokens: Any = None
    count: Any = None  # vLLM


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
        tokens = await _counted(endpoint, {**wanted, "model": name})
        if tokens is not None:
            backend = b"ollama" if endpoint.native else b"openai"
            ours += [(b"x-olla-endpoint", header_value(endpoint.name)), (b"x-olla-backend-type", backend)]
            return json_reply({"input_tokens": tokens}, headers=ours)
    return json_reply({"input_tokens": estimate(wanted), "estimated": True}, headers=ours)


async def _counted(endpoint: Endpoint, wanted: dict[str, Any]) -> int | None:
    """The tokens of a request by the endpoint's own count, None where it has no way to tell. Raises BadRequest."""
    for path in (PATH, *(() if endpoint.native else CHAT_PATHS)):
        if endpoint.takes.get(path) is False:
            continue
        sent = wanted
        if path != PATH:
            asked = read_body(msgspec.json.encode(wanted), CountBody)
            sent = prompt_body(asked, endpoint.keys(asked.model))
        try:
            fetched = await endpoint.pool.fetch("POST", path, msgspec.json.encode(sent), timeouts=quick(endpoint))
            told = decoded(endpoint, fetched, Counted) if fetched.status == 200 else Counted()
        except ArenaError:
            continue
        if fetched.status == 400 and path == PATH:
            raise BadRequest(refusal(*fetched, endpoint.name).message)
        tokens = count(told.input_tokens if told.count is None else told.count)
        if tokens is not None:
            return tokens
        if fetched.status in UNKNOWN_HERE:
            endpoint.takes[path] = False
    return None


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
