"""All models of the fleet in one list, in the form that a client asks for. Nothing here asks a host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

from msgspec import Struct

from arena.api import figures
from arena.api.fleet_status import in_memory, usable
from arena.errors import BadRequest, ModelNotFound
from arena.exchange import Inbound
from arena.fleet import Endpoint, Fleet
from arena.names import canonical
from arena.proxy.hosts import seen
from arena.proxy.reply import Reply, Surroundings, json_reply
from arena.types import ModelInfo

Json = dict[str, Any]
PREFIX: Final = "/olla/models/"
OF_KIND: Final = {
    "unified": None,
    "openai": None,
    "ollama": frozenset({"ollama", "engine"}),
    "llamacpp": frozenset({"engine"}),
    **dict.fromkeys(
        ("lmstudio", "vllm", "sglang", "lemonade", "lmdeploy", "docker-model-runner", "vllm-mlx"), frozenset[str]()
    ),
}
"""The forms, each with the kinds of hosts it is about; None: all."""


class Model(Struct):
    """What has the same name, with the hosts that have it. Its id is that name: what a list tells can be asked for."""

    id: str
    info: ModelInfo
    hosts: list[Endpoint]
    aliases: list[str]


def listed(proxy: Surroundings, inbound: Inbound) -> Reply:
    """GET /olla/models: the models that can be used now, or all with `include_unavailable=true`.

    `endpoint`, `family`, `type`, `capability` and `available` narrow the list. Raises BadRequest for an unknown
    `format`.
    """
    query = {key: values[-1] for key, values in parse_qs(inbound.query.decode("latin-1")).items()}
    form = query.get("format", "unified")
    if form not in OF_KIND:
        raise BadRequest(f"format must be one of: {', '.join(OF_KIND)}")
    kinds = OF_KIND[form]
    everything = query.get("include_unavailable") == "true" or query.get("available") == "false"
    found = [
        model
        for model in models(proxy.fleet, inbound, kinds)
        if (everything or any(map(usable, model.hosts))) and all(test(model, query) for test in _TESTS)
    ]
    if form == "ollama":
        return json_reply({"models": [_ollama(model) for model in found]})
    told = _unified if form == "unified" else _openai
    return json_reply({"object": "list", "data": [told(model) for model in found]})


def one(proxy: Surroundings, inbound: Inbound) -> Reply:
    """GET /olla/models/{id}, by id or alias; an id may hold slashes. Raises ModelNotFound."""
    wanted = canonical(inbound.path.removeprefix(PREFIX))
    for model in models(proxy.fleet, inbound):
        if wanted in map(canonical, (model.id, *model.aliases)):
            return json_reply(_detailed(model))
    raise ModelNotFound("Model not found")


def models(fleet: Fleet, inbound: Inbound, kinds: frozenset[str] | None = None) -> Iterator[Model]:
    """What the caller may see, ordered by name."""
    found: dict[str, Model] = {}
    for endpoint in fleet.endpoints:
        if kinds is not None and endpoint.kind not in kinds:
            continue
        for key, info in endpoint.holds.items():
            if seen(endpoint, inbound, info.name):
                found.setdefault(key, Model(info.name, info, [], [])).hosts.append(endpoint)
    for key, model in sorted(found.items()):
        model.aliases = [alias for alias, names in fleet.catalogue.aliases.items() if key in map(canonical, names)]
        yield model


def _available(model: Model, query: dict[str, str]) -> bool:
    return query.get("available") not in ("true", "false") or any(map(usable, model.hosts)) is (
        query["available"] == "true"
    )


def _like(key: str, told: Callable[[Model], set[str]]) -> Callable[[Model, dict[str, str]], bool]:
    """A test that `key` of the query, if it is there, is among what a model has."""

    def test(model: Model, query: dict[str, str]) -> bool:
        return key not in query or query[key] in told(model)

    return test


_TESTS: Final = (
    _available,
    _like("endpoint", lambda model: {host.name for host in model.hosts}),
    _like("family", lambda model: {model.info.family}),
    _like("capability", lambda model: set(_capabilities(model))),
    _like("type", lambda model: {host.kind for host in model.hosts} | {_type(model)}),
)


def _unified(model: Model) -> Json:
    info = model.info
    olla: Json = {
        "family": info.family,
        "variant": info.name.rpartition(":")[2],
        "parameter_size": info.parameter_size,
        "quantization": info.quantization,
        "aliases": model.aliases,
        "availability": [
            {"endpoint": host.name, "state": _state(host, model), "digest": _file(host, model).digest}
            for host in model.hosts
        ],
        "capabilities": _capabilities(model),
        "digest": info.digest,
        "drift": _drifts(model),
    }
    if info.context_length:
        olla["max_context_length"] = info.context_length
    return {**_openai(model), "olla": olla}


def _openai(model: Model) -> Json:
    return {
        "id": model.id,
        "object": "model",
        "created": figures.unix_seconds(model.info.modified_at),
        "owned_by": "olla",
    }


def _ollama(model: Model) -> Json:
    info = model.info
    return {
        "name": info.name,
        "model": info.name,
        "modified_at": info.modified_at,
        "size": info.size_bytes,
        "digest": info.digest,
        "details": {
            "family": info.family,
            "parameter_size": info.parameter_size,
            "quantization_level": info.quantization,
        },
    }


def _detailed(model: Model) -> Json:
    info = model.info
    told: Json = {
        "id": model.id,
        "family": info.family,
        "variant": info.name.rpartition(":")[2],
        "parameter_size": info.parameter_size,
        "quantization": info.quantization,
        "format": "gguf" if info.digest else "",
        "total_disk_size": sum(_file(host, model).size_bytes for host in model.hosts),
        "last_seen": figures.seen_at(host.health.checked_s for host in model.hosts),
        "aliases": model.aliases,
        "endpoints": [host.name for host in model.hosts],
        "loaded_endpoints": [host.name for host in model.hosts if in_memory(host, info.name)],
        "capabilities": _capabilities(model),
        "parameter_count": figures.quantity(info.parameter_size),
        "digest": info.digest,
        "drift": _drifts(model),
    }
    if info.context_length:
        told["max_context_length"] = info.context_length
    return told


def _state(host: Endpoint, model: Model) -> str:
    if not usable(host):
        return "unavailable"
    return "loaded" if in_memory(host, model.info.name) else "available"


def _file(host: Endpoint, model: Model) -> ModelInfo:
    """What lies on `host` under the name."""
    return host.known(model.info.name) or model.info


def _drifts(model: Model) -> bool:
    """Do hosts have different files under this name?"""
    return len({_file(host, model).digest for host in model.hosts} - {""}) > 1


def _capabilities(model: Model) -> list[str]:
    return list(model.info.capabilities or ())


def _type(model: Model) -> str:
    """What it is for: embedding, vision, or chat."""
    able = model.info.capabilities or ()
    return "embedding" if "embedding" in able else "vlm" if "vision" in able else "llm"
