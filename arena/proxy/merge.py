"""What the whole fleet has, told as one server would tell it: alive, tags, ps, version, lists of models, show."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import Struct

from arena.errors import ArenaError, ModelNotFound
from arena.exchange import Headers, Inbound
from arena.fleet import Endpoint
from arena.fleet.health import HealthState
from arena.keys import allows
from arena.names import canonical
from arena.proxy.ask import Told, fetch, names_hosts, some
from arena.proxy.headers import header_value
from arena.proxy.hosts import addressed, asked, holders, kinds_of, model_in, object_in, of_kind, seen
from arena.proxy.paths import shortened
from arena.proxy.reply import TEXT, Reply, Surroundings, json_reply
from arena.types import NATIVE

Entry = dict[str, Any]
T = TypeVar("T")


class Tags(Struct, frozen=True):
    """`/api/tags` and `/api/ps`, with every field of an entry."""

    models: list[Entry] | None


class Data(Struct, frozen=True):
    """`/v1/models`; null where a host has none."""

    data: list[Entry] | None


class Version(Struct, frozen=True):
    """`/api/version`."""

    version: str


def alive(proxy: Surroundings, inbound: Inbound) -> Reply:
    """GET /: Ollama's own word while any host can be used, 503 when none can; the headers sum the fleet up."""
    kinds = kinds_of(inbound)
    endpoints = addressed(proxy, inbound, kinds) if names_hosts(inbound) else of_kind(proxy, kinds)
    return _alive(tuple([(one.name, one.state, proxy.fleet.usable(one)) for one in endpoints]))


@lru_cache(64)
def _alive(hosts: tuple[tuple[str, HealthState, bool], ...]) -> Reply:
    """The same of hosts of which name, state, and whether they can be used are told."""
    up = [name for name, _, is_usable in hosts if is_usable]
    headers: Headers = [
        (b"x-olla-endpoint", header_value(",".join(up) or "none")),
        (b"x-olla-endpoints-up", b"%d/%d" % (len(up), len(hosts))),
        (b"x-olla-fleet", header_value(", ".join(f"{name}={state}" for name, state, _ in hosts))),
    ]
    if not up:
        return json_reply({"error": "No host can be used now", "code": "no_endpoint"}, 503, headers)
    return Reply(200, [(b"content-type", TEXT), *headers], b"Ollama is running")


async def tags(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /api/tags: one entry for each name and digest, ordered by name, with every field that a host sent.

    `olla` names the hosts that have it; `drift` means that what the hosts call so is not the same everywhere.
    """
    answers, headers = await _native(proxy, inbound, "/api/tags", Tags)
    union = Union(proxy, inbound, "name")
    for endpoint, told in answers:
        for entry in told.models or ():
            union.add(endpoint, {"name": entry.get("model"), **shortened(entry)}, _digest(entry), apart=True)
    return json_reply({"models": union.entries("model")}, headers=headers)


async def ps(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /api/ps: everything in memory anywhere, each entry with its `host`."""
    answers, headers = await _native(proxy, inbound, "/api/ps", Tags)
    models = [
        {**shortened(entry), "host": endpoint.name}
        for endpoint, told in answers
        for entry in told.models or ()
        if seen(endpoint, inbound, str(entry.get("name") or entry.get("model")))
    ]
    return json_reply({"models": models}, headers=headers)


async def version(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /api/version: the oldest of the fleet, which is what a client can rely on, and each host's own.

    The embedded engine tells the release of Ollama whose API it serves.
    """
    answers, headers = await _native(proxy, inbound, "/api/version", Version)
    versions = {endpoint.name: told.version for endpoint, told in answers}
    oldest = min((one for one in versions.values() if _age(one)[0]), key=_age, default="0.0.0")
    return json_reply({"version": oldest, "hosts": versions}, headers=headers)


async def v1_models(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /v1/models: OpenAI's list, one entry for each id; `olla` as with the tags."""
    models, headers = await _v1(proxy, inbound)
    return json_reply({"object": "list", "data": models}, headers=headers)


async def v1_model(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /v1/models/{id}, where the id may hold slashes. Raises ModelNotFound."""
    entry, headers = await _v1_one(proxy, inbound)
    return json_reply(entry, headers=headers)


async def anthropic_models(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /olla/anthropic/v1/models: the same models in Anthropic's form."""
    models, headers = await _v1(proxy, inbound)
    data = [_as_anthropics(entry) for entry in models]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return json_reply({"data": data, "has_more": False, "first_id": first, "last_id": last}, headers=headers)


async def anthropic_model(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """GET /olla/anthropic/v1/models/{id}: one of them. Raises ModelNotFound."""
    entry, headers = await _v1_one(proxy, inbound)
    return json_reply(_as_anthropics(entry), headers=headers)


def no_models(proxy: Surroundings, inbound: Inbound) -> Reply:
    """The list of models of a kind of server that no fleet of ours has."""
    return json_reply({"object": "list", "data": []})


async def show(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
    """POST /api/show, from a host that has the model; the next one is asked when that one fails.

    Paths of the host's disk are shortened. Where hosts differ, x-olla-digest-drift tells whose model is which. Raises
    BadRequest, ModelNotFound, and the last host's error.
    """
    wanted = object_in(body)
    model = model_in(wanted)
    found = await holders(proxy, inbound, model)
    failure: ArenaError = ModelNotFound(f"model '{model}' not found")
    for endpoint, name in found:
        try:
            told = await fetch(endpoint, "/api/show", Entry, {**wanted, "model": name})
        except ArenaError as error:
            failure = error
            continue
        headers: Headers = [
            (b"x-olla-endpoint", header_value(endpoint.name)),
            (b"x-olla-backend-type", b"ollama"),
            (b"x-olla-model", header_value(model)),
        ]
        digests = {one.name: info.digest for one, known in found if (info := one.known(known)) and info.digest}
        if len(set(digests.values())) > 1:
            drift = ", ".join(f"{host}={digest[:12]}" for host, digest in digests.items())
            headers.append((b"x-olla-digest-drift", header_value(drift)))
        return json_reply(shortened(told, name), headers=headers)
    raise failure


class Union:
    """The hosts' lists as one: what is the same is told once, with the hosts that have it."""

    def __init__(self, proxy: Surroundings, inbound: Inbound, field: str) -> None:
        """`field` holds an entry's name."""
        self._aliases = proxy.fleet.catalogue.aliases
        self._inbound = inbound
        self._field = field
        self._entries: dict[tuple[str, str], Entry] = {}
        self._hosts: dict[tuple[str, str], list[str]] = {}
        self._digests: dict[str, set[str]] = {}

    def add(self, endpoint: Endpoint, entry: Entry, digest: str, *, apart: bool) -> None:
        """One host's entry. `apart`: two digests of one name are two entries."""
        name = entry.get(self._field)
        if not isinstance(name, str) or not seen(endpoint, self._inbound, name):
            return
        plain = canonical(name)
        key = plain, digest if apart else ""
        self._entries.setdefault(key, entry)
        self._hosts.setdefault(key, []).append(endpoint.name)
        self._digests.setdefault(plain, set()).update({digest} - {""})

    def entries(self, *further: str) -> list[Entry]:
        """All entries, ordered by name; `further` fields hold the name too. Aliases stand beside what they mean now."""
        found = {key: {**entry, "olla": self._extension(key)} for key, entry in self._entries.items()}
        for alias, chain in self._aliases.items():
            key = next((key for model in chain for key in sorted(found) if key[0] == canonical(model)), None)
            if key is not None and allows(self._inbound.caller.models, alias):
                meant = found[key]
                names = dict.fromkeys((self._field, *further), alias)
                extension = {**meant["olla"], "alias_of": meant[self._field]}
                found.setdefault((canonical(alias), ""), {**meant, **names, "olla": extension})
        return [found[key] for key in sorted(found)]

    def _extension(self, key: tuple[str, str]) -> Entry:
        return {"hosts": self._hosts[key], "drift": len(self._digests[key[0]]) > 1}


async def _native(proxy: Surroundings, inbound: Inbound, path: str, kind: type[T]) -> tuple[Told[T], Headers]:
    """What every host with Ollama's API says at `path`, or those that the request names."""
    hosts = asked(addressed(proxy, inbound, NATIVE))
    answers, headers = await some(hosts, lambda endpoint: fetch(endpoint, path, kind))
    return answers, [(b"x-olla-backend-type", b"ollama"), *headers]


async def _v1(proxy: Surroundings, inbound: Inbound) -> tuple[list[Entry], Headers]:
    """Every host's `/v1/models` as one list."""
    endpoints = asked(addressed(proxy, inbound, kinds_of(inbound)))
    answers, headers = await some(endpoints, lambda endpoint: fetch(endpoint, "/v1/models", Data))
    union = Union(proxy, inbound, "id")
    for endpoint, told in answers:
        for entry in told.data or ():
            known = endpoint.known(str(entry.get("id")))
            union.add(endpoint, entry, known.digest if known else "", apart=False)
    backend = b"ollama" if kinds_of(inbound) == NATIVE else b"openai"
    return union.entries(), [(b"x-olla-backend-type", backend), *headers]


async def _v1_one(proxy: Surroundings, inbound: Inbound) -> tuple[Entry, Headers]:
    """The one model that the path ends with. Raises ModelNotFound."""
    model = inbound.path.partition("/v1/models/")[2]
    models, headers = await _v1(proxy, inbound)
    for entry in models:
        if canonical(entry["id"]) == canonical(model):
            return entry, [*headers, (b"x-olla-model", header_value(model))]
    raise ModelNotFound(f"model '{model}' not found")


def _as_anthropics(entry: Entry) -> Entry:
    name = entry["id"]
    return {"type": "model", "id": name, "display_name": name, "created_at": _moment(entry.get("created"))}


def _digest(entry: Entry) -> str:
    return str(entry.get("digest") or "").removeprefix("sha256:")


def _age(version: str) -> tuple[list[tuple[int, str]], bool]:
    """Older versions are less; what comes before a release is less than it. Numbers may be of any length, or none."""
    numbers = re.match(r"v?([0-9.]*)(.*)", version, re.DOTALL)
    assert numbers is not None  # it matches everything
    parts = [part.lstrip("0") for part in numbers[1].split(".") if part]
    return [(len(part), part) for part in parts], not numbers[2]


def _moment(created: Any) -> str:
    """Seconds since 1970 as Anthropic writes them."""
    seconds = created if isinstance(created, int) and 0 <= created < 2**33 else 0
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
