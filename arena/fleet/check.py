"""A look at every host of a fleet before it serves: does it answer, as what, with which models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec import Struct

from arena.errors import ArenaError, Unreachable, UpstreamError, UpstreamTimeout
from arena.fleet.spec import EndpointSpec, FleetSpec
from arena.names import canonical
from arena.ollama import OllamaClient
from arena.openai import OpenAIClient
from arena.types import LoadedModel, ModelInfo
from arena.wire import Pool


class Looked(Struct, frozen=True):
    """What one host said. `ok`: it answers as the type it was declared; `remedy`: what to change, else ""."""

    name: str
    url: str
    type: str
    ok: bool
    version: str = ""
    models: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    round_trip_ms: float | None = None
    error: str = ""
    remedy: str = ""


async def look(endpoints: Iterable[EndpointSpec], clock: Callable[[], float] = time.perf_counter) -> tuple[Looked, ...]:
    """Ask all hosts at once; never raises for one that does not answer."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look_at(endpoint, clock)) for endpoint in endpoints]
    return tuple(task.result() for task in tasks)


def missed(spec: FleetSpec, looked: Iterable[Looked]) -> tuple[str, ...]:
    """The aliases none of whose models was found on any host."""
    there = {canonical(model) for host in looked for model in host.models}
    return tuple(alias for alias, models in spec.aliases.items() if not there & set(map(canonical, models)))


async def _look_at(spec: EndpointSpec, clock: Callable[[], float]) -> Looked:
    auth = ((spec.auth.header, spec.auth.value.reveal()),) if spec.auth else ()
    base = spec.url.removesuffix("/v1") if spec.type == "openai" else spec.url
    headers = (*spec.headers, *auth)
    pool = Pool(base, name=spec.name, timeouts=spec.timeouts, headers=headers, verify=spec.tls_verify)
    ollama = OllamaClient(spec.url, name=spec.name, timeouts=spec.timeouts, pool=pool)
    openai = OpenAIClient(spec.url, name=spec.name, timeouts=spec.timeouts, pool=pool)
    try:
        if spec.type == "openai":
            return await _as_openai(spec, openai, ollama, clock)
        return await _as_ollama(spec, ollama, openai, clock)
    except (Unreachable, UpstreamTimeout) as error:
        return _failed(spec, error, "")
    except ArenaError as error:
        refused = isinstance(error, UpstreamError) and error.upstream_status in (401, 403)
        return _failed(spec, error, "check its auth" if refused and auth else "give it auth" if refused else "")
    finally:
        await pool.aclose()


async def _as_ollama(
    spec: EndpointSpec, ollama: OllamaClient, openai: OpenAIClient, clock: Callable[[], float]
) -> Looked:
    try:
        models = await ollama.tags()
    except (Unreachable, UpstreamTimeout):
        raise
    except ArenaError as error:
        with suppress(ArenaError):
            await openai.tags()
            return _failed(spec, error, "it speaks OpenAI's API: set type: openai")
        raise
    loaded: tuple[LoadedModel, ...] = ()
    with suppress(ArenaError):  # very old servers do not tell
        loaded = await ollama.ps()
    began_s = clock()
    version = await ollama.version()
    return _answered(spec, version, models, loaded, clock() - began_s)


async def _as_openai(
    spec: EndpointSpec, openai: OpenAIClient, ollama: OllamaClient, clock: Callable[[], float]
) -> Looked:
    await openai.tags()
    began_s = clock()
    models = await openai.tags()
    took_s = clock() - began_s
    remedy, version = "", ""
    with suppress(ArenaError):
        version = await openai.version()
    with suppress(ArenaError):
        version = await ollama.version()
        remedy = "it is an Ollama server: set type: ollama to use all of it"
    return _answered(spec, version, models, (), took_s, remedy)


def _answered(
    spec: EndpointSpec,
    version: str,
    models: tuple[ModelInfo, ...],
    loaded: tuple[LoadedModel, ...],
    took_s: float,
    remedy: str = "",
) -> Looked:
    shown = tuple(info.name for info in models if spec.shows(canonical(info.name)))
    if models and not shown:
        remedy = f"include and exclude hide all of its {len(models)} models"
    return Looked(
        name=spec.name,
        url=spec.url,
        type=spec.type,
        ok=True,
        version=version,
        models=shown,
        loaded=tuple(item.name for item in loaded),
        round_trip_ms=round(took_s * 1000, 2),
        remedy=remedy,
    )


def _failed(spec: EndpointSpec, error: ArenaError, remedy: str) -> Looked:
    return Looked(name=spec.name, url=spec.url, type=spec.type, ok=False, error=error.message, remedy=remedy)
