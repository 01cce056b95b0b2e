"""Ollama's routes as a table of (method, path), and the order in which state, scenario and route have their say."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tests.fake_ollama import generation, keeping
from tests.fake_ollama.bending import head_style
from tests.fake_ollama.exchange import PLAIN, Exchange
from tests.fake_ollama.oracle import draw
from tests.fake_ollama.plan import NAME, Plan, UnknownScenario, parse
from tests.fake_ollama.pulls import pull
from tests.fake_ollama.refusals import AFTER, BUSY, REFUSE
from tests.fake_ollama.scenarios import SCENARIOS

Route = Callable[[Exchange], Awaitable[None]]

HEALTH = frozenset({"/", "/api/version", "/api/tags", "/api/ps"})
NEEDS_SLOT = frozenset({
    "/api/chat", "/api/generate", "/api/embed", "/api/embeddings",
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings",
})  # fmt: skip
OPEN_ORIGINS = ("localhost", "127.0.0.1", "0.0.0.0")
APP_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")


async def answer(exchange: Exchange) -> None:
    """Answer one request: the server's state first, then the model's scenario, then the route."""
    request, state = exchange.request, exchange.fake.faults
    await exchange.pause(state.delay_ms / 1000)
    hosts = [value for name, value in request.headers if name == "host"]
    if len(hosts) != 1 and request.version == "HTTP/1.1":
        exchange.keep_alive = False
        reason = b"too many Host headers" if hosts else b"missing required Host header"
        await exchange.reply(400, b"400 Bad Request: " + reason, PLAIN)
    elif not host_allowed("".join(hosts)) or not origin_allowed(request.header("origin")):
        await exchange.reply(403, b"", "")
    elif state.health == "fail" and request.path in HEALTH:
        await exchange.error(500, "the fake is unhealthy")
    elif state.queue_full and request.path in NEEDS_SLOT:
        await exchange.error(503, BUSY)
    else:
        await _routed(exchange, state.routes.get(request.path, exchange.record.model))


async def _routed(exchange: Exchange, model: str) -> None:
    method, path = exchange.request.method, exchange.request.path
    blob = path.startswith("/api/blobs/")
    route = ROUTES.get((method, path)) or (keeping.blobs if blob and method in ("HEAD", "POST") else None)
    if route is None:
        known = blob or any(path == there for _, there in ROUTES)
        text = b"405 method not allowed" if known else b"404 page not found"
        await exchange.reply(405 if known else 404, text, PLAIN)
        return
    try:
        exchange.plan = parse(model, SCENARIOS)
    except UnknownScenario as slip:
        await exchange.error(400, str(slip))
        return
    await _played(exchange, route)


async def _played(exchange: Exchange, route: Route) -> None:
    """Run the scenario where it applies: everywhere but on show, unless key `on` names the route."""
    plan, path = exchange.plan, exchange.request.path
    applies = plan.word("on") == path.rpartition("/")[2] if "on" in plan.keys else path != "/api/show"
    if not applies:
        exchange.plan = plan = Plan(plan.model)
    exchange.record.scenario = f"fx-{plan.scenario}"
    exchange.style = head_style(plan)
    refusal = REFUSE.get(plan.scenario)
    if refusal is not None:
        await refusal(exchange)
    elif plan.scenario == "flaky" and _fails(exchange):
        exchange.plan = Plan(plan.model, "status", {"c": plan.word("c", "503")})
        await REFUSE["status"](exchange)
    else:
        await route(exchange)


def _fails(exchange: Exchange) -> bool:
    plan, count = exchange.plan, exchange.fake.count(exchange.plan.model)
    return draw(plan.number("seed", 1), count, 100) < plan.number("p", 50)


async def afterwards(exchange: Exchange) -> None:
    """What the scenario does on the connection once the answer is complete."""
    after = AFTER.get(exchange.plan.scenario)
    if after is not None and exchange.keep_alive:
        await after(exchange)


def host_allowed(host: str) -> bool:
    """Ollama's defence against DNS rebinding: loopback and private addresses and a few local names only."""
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    if name in ("", "localhost") or name.endswith((".local", ".internal", ".localhost")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def origin_allowed(origin: str) -> bool:
    """Ollama's defence against other sites: no origin, a local one, or an application's."""
    parts = urlsplit(origin)
    return not origin or parts.scheme in APP_SCHEMES or parts.hostname in OPEN_ORIGINS


async def _pull(exchange: Exchange) -> None:
    if not NAME.fullmatch(exchange.record.model):
        await exchange.error(400, "invalid model name")
    else:
        await pull(exchange)


ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/"): keeping.root,
    ("HEAD", "/"): keeping.root,
    ("GET", "/api/version"): keeping.version,
    ("HEAD", "/api/version"): keeping.version,
    ("GET", "/api/tags"): keeping.tags,
    ("HEAD", "/api/tags"): keeping.tags,
    ("GET", "/api/ps"): keeping.ps,
    ("POST", "/api/show"): keeping.show,
    ("POST", "/api/chat"): generation.chat,
    ("POST", "/api/generate"): generation.generate,
    ("POST", "/api/embed"): generation.embed,
    ("POST", "/api/embeddings"): generation.embeddings,
    ("POST", "/api/pull"): _pull,
    ("POST", "/api/push"): keeping.push,
    ("POST", "/api/create"): keeping.create,
    ("POST", "/api/copy"): keeping.copy,
    ("DELETE", "/api/delete"): keeping.delete,
    ("GET", "/v1/models"): keeping.v1_models,
    ("POST", "/v1/chat/completions"): generation.v1_chat,
    ("POST", "/v1/completions"): generation.v1_completion,
    ("POST", "/v1/embeddings"): generation.v1_embeddings,
}
