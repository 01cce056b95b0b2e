"""What operators ask: is the fleet ready, how are its hosts, what was served, what does this process cost."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from hashlib import blake2s
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from arena import __version__
from arena.api import figures, unified
from arena.api.fleet_status import Snapshot, State, state
from arena.api.metrics import MEDIA_TYPE, exposition
from arena.exchange import Headers, Inbound, Refusals
from arena.proxy import Route, Rows
from arena.proxy.reply import JSON, Known, Reply, Surroundings, json_reply
from arena.proxy.table import Scope

GZIP_BYTES: Final = 256
"""Smaller bodies are not worth the work."""


def health(proxy: Surroundings, inbound: Inbound) -> Reply:
    """200 while any host can serve (`healthy`, or `degraded` if some cannot), else 503: what a readiness probe asks."""
    return _health(state(proxy.fleet))


@cache
def _health(word: State) -> Reply:
    return json_reply({"status": word}, 503 if word == "unhealthy" else 200, [(b"cache-control", b"no-store")])


def status(proxy: Surroundings, inbound: Inbound, refusals: Refusals | None = None) -> Reply:
    """Hosts, totals, queue, and what was turned away at the door."""
    return _told(inbound, Snapshot(proxy.fleet).status(refusals or Refusals()))


def endpoints(proxy: Surroundings, inbound: Inbound) -> Reply:
    """The hosts."""
    return _told(inbound, Snapshot(proxy.fleet).endpoints())


def models(proxy: Surroundings, inbound: Inbound) -> Reply:
    """The models by family; `detailed=true` lists all, `group=family` groups them."""
    query = parse_qs(inbound.query.decode("latin-1"))
    told = Snapshot(proxy.fleet).models(detailed=_on(query, "detailed"), grouped=query.get("group") == ["family"])
    return _told(inbound, told)


def model_stats(proxy: Surroundings, inbound: Inbound) -> Reply:
    """What each model has served; `include_endpoints=true` also on which host."""
    query = parse_qs(inbound.query.decode("latin-1"))
    return json_reply(Snapshot(proxy.fleet).model_stats(with_endpoints=_on(query, "include_endpoints")))


def sticky(proxy: Surroundings, inbound: Inbound) -> Reply:
    """How conversations stay where they were."""
    return json_reply(Snapshot(proxy.fleet).sticky())


def translators(proxy: Surroundings, inbound: Inbound) -> Reply:
    """What Anthropic's clients asked, and how much of it had to be said in OpenAI's words."""
    return json_reply({"timestamp": figures.moment(time.time()), **Snapshot(proxy.fleet).translators()})


def process(proxy: Surroundings, inbound: Inbound) -> Reply:
    """What this process costs."""
    resident = resident_bytes()
    cycles = gc.get_stats()
    told = {
        "timestamp": figures.moment(time.time()),
        "memory": {
            "heap_alloc": figures.size(resident or 0),
            "resident_bytes": resident,
            "memory_pressure": "NORMAL",
        },
        "garbage_collection": {
            "num_gc_cycles": sum(generation["collections"] for generation in cycles),
            "collected": sum(generation["collected"] for generation in cycles),
        },
        "goroutines": {
            "count": len(asyncio.all_tasks()),
            "health_status": "HEALTHY",
            "cgo_calls": 0,
            "threads": threading.active_count(),
        },
        "runtime": {
            "uptime": figures.span(time.time() - proxy.fleet.book.started_at),
            "go_version": "",
            "python_version": platform.python_version(),
            "num_cpu": os.cpu_count(),
            "gomaxprocs": 1,
        },
        "allocations": {"net_objects": sys.getallocatedblocks()},
    }
    return json_reply(told)


def metrics(proxy: Surroundings, inbound: Inbound, refusals: Refusals | None = None) -> Reply:
    """Everything counted, for Prometheus."""
    return Reply(200, [(b"content-type", MEDIA_TYPE)], exposition(proxy.fleet, refusals or Refusals()))


def version(proxy: Surroundings, inbound: Inbound) -> Reply:
    """Who answers, and where what is."""
    return _version()


@cache
def _version() -> Reply:
    return json_reply(
        {
            "name": "Ollama Arena",
            "version": __version__,
            "edition": "community",
            "description": "Compares language models side by side, and proxies any number of Ollama servers.",
            "build": {
                "commit": "",
                "date": "",
                "go_version": "",
                "python_version": platform.python_version(),
                "platform": f"{platform.system().lower()}/{platform.machine().lower()}",
            },
            "links": {},
            "api": {"version": "v1", "endpoints": {path.strip("/").replace("/", "_"): path for path in _PATHS}},
            "capabilities": [*_CAPABILITIES],
            "capabilities_experimental": [],
            "supported_backends": ["ollama", "openai-compatible", "llamacpp (embedded)"],
        }
    )


_CAPABILITIES: Final = (
    "model-routing", "model-aliases", "failover", "circuit-breaker", "fair-queue", "sticky-sessions",
    "model-management", "token-accounting", "prometheus", "anthropic-messages",
)  # fmt: skip

_KNOWN: Final[tuple[tuple[str, Known, Scope | None], ...]] = (
    ("/internal/health", health, None),
    ("/internal/status", status, "admin"),
    ("/internal/status/endpoints", endpoints, "admin"),
    ("/internal/status/models", models, "admin"),
    ("/internal/stats/models", model_stats, "admin"),
    ("/internal/stats/sticky", sticky, "admin"),
    ("/internal/stats/translators", translators, "admin"),
    ("/internal/process", process, "admin"),
    ("/internal/metrics", metrics, "admin"),
    ("/version", version, None),
)
_PATHS: Final = (*(path for path, _, _ in _KNOWN), "/olla/models")


def rows(refusals: Refusals) -> Rows:
    """All of these routes, for the proxy's table; `refusals` are those of the door that the server stands behind."""
    of_the_door: dict[str, Known] = {
        "/internal/status": partial(status, refusals=refusals),
        "/internal/metrics": partial(metrics, refusals=refusals),
    }
    return {
        ("GET", "/olla/models"): _of_the_fleet(unified.listed),
        ("GET", "/olla/models/*"): _of_the_fleet(unified.one),
        ("POST", "/internal/health"): Route("native", known=health),  # what some ask with
        **{
            ("GET", path): Route("native", scope=scope, known=of_the_door.get(path, known))
            for path, known, scope in _KNOWN
        },
    }


def resident_bytes() -> int | None:
    """The memory of this process, where the system tells it in a file (Linux)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _of_the_fleet(answer: Callable[[Surroundings, Inbound], Reply]) -> Route:
    """Answers out of memory, too, but not before it is clear who is in the fleet."""

    def known(proxy: Surroundings, inbound: Inbound) -> Reply | None:
        return answer(proxy, inbound) if proxy.fleet.endpoints else None

    async def action(proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        return answer(proxy, inbound)

    return Route("native", known=known, action=action)


def _on(query: dict[str, list[str]], name: str) -> bool:
    return query.get(name) == ["true"]


def _told(inbound: Inbound, value: dict[str, Any]) -> Reply:
    """`value` as JSON, unless the client has it already; packed, if that is wanted and worth it."""
    sent = dict(inbound.headers)
    content = msgspec.json.encode({key: item for key, item in value.items() if key != "timestamp"})
    etag = b'W/"%s"' % blake2s(content, digest_size=8).hexdigest().encode()
    headers: Headers = [
        (b"etag", etag),
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"accept-encoding"),
    ]
    if etag in sent.get(b"if-none-match", b""):
        return Reply(304, headers)
    body = msgspec.json.encode(value)
    if len(body) >= GZIP_BYTES and b"gzip" in sent.get(b"accept-encoding", b""):
        body = gzip.compress(body, 1)
        headers.append((b"content-encoding", b"gzip"))
    return Reply(200, [(b"content-type", JSON), *headers], body)
