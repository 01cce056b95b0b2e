"""Which hosts a route that we answer ourselves speaks to, and which models its caller may see."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec

from arena import names
from arena.errors import BadRequest, ModelNotFound
from arena.exchange import Inbound
from arena.fleet import Endpoint
from arena.fleet.catalogue import ask
from arena.keys import allows
from arena.names import canonical
from arena.proxy.reply import Surroundings
from arena.types import NATIVE

ALL = "all"
MISSING = "missing"
"""What may stand for the names of endpoints: all of them; those that lack a model."""


def of_kind(proxy: Surroundings, kinds: frozenset[str] | None) -> tuple[Endpoint, ...]:
    """All endpoints of `kinds` (None: any), in the order of the settings."""
    return tuple(one for one in proxy.fleet.endpoints if kinds is None or one.kind in kinds)


def said(inbound: Inbound) -> list[str]:
    """The endpoints that a request names: the query's word (`endpoint`), else the header's (X-Olla-Endpoint)."""
    values = parse_qs(inbound.query.decode("latin-1")).get("endpoint") or [
        value.decode("latin-1") for name, value in inbound.headers if name == b"x-olla-endpoint"
    ]
    return [name for value in values for part in value.split(",") if (name := part.strip())]


def addressed(proxy: Surroundings, inbound: Inbound, kinds: frozenset[str] | None) -> tuple[Endpoint, ...]:
    """The endpoints of `kinds` that a request is about: all, unless it names some. Raises BadRequest."""
    able, names = of_kind(proxy, kinds), said(inbound)
    if not names or names in ([ALL], [MISSING]):
        return able
    by_name = {one.name: one for one in able}
    if unknown := [name for name in names if name not in by_name]:
        text = f"No endpoint here is called {', '.join(unknown)}; there are {', '.join(by_name) or 'none'}"
        raise BadRequest(text, code="unknown_endpoint")
    return tuple(by_name[name] for name in dict.fromkeys(names))


def kinds_of(inbound: Inbound) -> frozenset[str] | None:
    """The kinds of endpoints that stand behind the path: Ollama's own prefix is strict, the others take any."""
    return NATIVE if f"{inbound.path}/".startswith("/olla/ollama/") else None


def asked(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Whom to ask: those that are believed to answer, or all, where that is said of none."""
    return tuple(one for one in endpoints if one.health.up) or endpoints


def seen(endpoint: Endpoint, inbound: Inbound, model: str) -> bool:
    """May the caller see `model` on `endpoint`: neither hidden by the operator nor outside the caller's own list?"""
    return endpoint.spec.shows(canonical(model)) and allows(inbound.caller.models, model)


async def holders(
    proxy: Surroundings, inbound: Inbound, model: str, kinds: frozenset[str] | None = NATIVE
) -> list[tuple[Endpoint, str]]:
    """The hosts of `kinds` that have `model`, each with its own spelling, those that answer first.

    An alias tries its models; a name that nobody knows has the hosts asked once more. Raises ModelNotFound, and
    BadRequest for the name of a host that is none.
    """
    if allows(inbound.caller.models, model):
        able = addressed(proxy, inbound, kinds)
        chain = proxy.fleet.catalogue.chain(model)
        for miss in (False, True):
            if miss:
                await ask(asked(able))
            for key, _ in chain:
                if known := [(one, one.holds[key].name) for one in able if key in one.holds]:
                    return sorted(known, key=lambda pair: not pair[0].health.up)
    raise ModelNotFound(f"model '{model}' not found")


def object_in(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises BadRequest, in Ollama's words where it has any.

    Ollama reads `From` as `from`, and of two the last: what was checked must be what is done.
    """
    if not body.strip():
        raise BadRequest("missing request body")
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise BadRequest("The request body must be a JSON object") from None
    for key in found:
        if key != key.lower():
            raise BadRequest(f"{key[:40]} is no key of this request; keys are written in lower case")
    return found


def model_in(asked_for: dict[str, Any]) -> str:
    """The model that a body names (`model`, or its older name `name`). Raises BadRequest."""
    model = asked_for.get("model") or asked_for.get("name")
    if not model:
        raise BadRequest("model is required")
    return names.checked(model)
