"""Ollama's routes as a table of (method, path), and what each answers."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tests.fake_ollama import catalogue
from tests.fake_ollama.dialects import Answer, Dialect, Json, Native, OpenAI
from tests.fake_ollama.exchange import PLAIN, Exchange
from tests.fake_ollama.oracle import draw
from tests.fake_ollama.plan import Plan, UnknownScenario, parse
from tests.fake_ollama.pulls import pull
from tests.fake_ollama.scenarios import AFTER, BUSY, NESTED, REFUSE, SCENARIOS, body_style, head_style, tell
from tests.fake_ollama.texts import said_by
from tests.fake_ollama.turn import Turn

Route = Callable[[Exchange], Awaitable[None]]

NAME = re.compile(r"(?:[\w.-]+(?::\d{1,5})?/)?(?:[\w.-]+/)?\w[\w.-]{0,79}(?::\w[\w.-]{0,79})?", re.ASCII)
INTEGERS = ("num_predict", "num_ctx", "top_k", "seed", "num_keep", "repeat_last_n", "num_gpu", "num_thread")
FLOATS = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
HEALTH = frozenset({"/", "/api/version", "/api/tags", "/api/ps"})
NEEDS_SLOT = frozenset(
    {"/api/chat", "/api/generate", "/api/embed", "/api/embeddings"}
    | {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}
)


async def answer(exchange: Exchange) -> None:
    """Answer one request: the server's state first, then the model's scenario, then the route."""
    request, state = exchange.request, exchange.fake.faults
    if state.delay_ms:
        await exchange.pause(state.delay_ms / 1000)
    if not _host_allowed(request.header("host")) or not _origin_allowed(request.header("origin")):
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
    route = ROUTES.get((method, path)) or (_blobs if blob and method in ("HEAD", "POST") else None)
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
    plan = exchange.plan
    if plan.word("on", "" if exchange.request.path == "/api/show" else "all") not in ("all", _word(exchange)):
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


def _word(exchange: Exchange) -> str:
    return exchange.request.path.rpartition("/")[2]


def _fails(exchange: Exchange) -> bool:
    plan, count = exchange.plan, exchange.fake.count(exchange.plan.model)
    return draw(plan.number("seed", 1), count, 100) < plan.number("p", 50)


async def afterwards(exchange: Exchange) -> None:
    """What the scenario does on the connection once the answer is complete."""
    after = AFTER.get(exchange.plan.scenario)
    if after is not None and exchange.keep_alive:
        await after(exchange)


def _host_allowed(host: str) -> bool:
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    if name in ("", "localhost") or name.endswith((".local", ".internal", ".localhost")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


def _origin_allowed(origin: str) -> bool:
    return not origin or urlsplit(origin).hostname in ("localhost", "127.0.0.1", "0.0.0.0")


# lists and facts


async def _root(exchange: Exchange) -> None:
    await exchange.reply(200, b"Ollama is running", PLAIN)


async def _version(exchange: Exchange) -> None:
    await exchange.json({"version": exchange.fake.faults.version})


async def _tags(exchange: Exchange) -> None:
    await exchange.json({"models": [catalogue.tags_entry(name) for name in exchange.fake.models]})


async def _ps(exchange: Exchange) -> None:
    loaded = exchange.fake.loaded
    await exchange.json({"models": [catalogue.ps_entry(name, **kept) for name, kept in loaded.items()]})


async def _show(exchange: Exchange) -> None:
    model = exchange.record.model
    if not model:
        await exchange.error(400, "model is required")
    elif not NAME.fullmatch(model):
        await exchange.error(400, "invalid model name")
    elif not exchange.fake.has(model):
        await exchange.error(404, f"model '{catalogue.tagged(model)}' not found")
    else:
        await exchange.json(catalogue.show(model))


async def _v1_models(exchange: Exchange) -> None:
    items = [
        {"id": catalogue.tagged(name), "object": "model", "created": 1767225600, "owned_by": "library"}
        for name in exchange.fake.models
    ]
    await exchange.json({"object": "list", "data": items or None})


# generations


async def _chat(exchange: Exchange) -> None:
    body = exchange.body
    if await _rejected(exchange) or await _cannot(exchange):
        return
    if not body.get("messages"):
        await _load(exchange, Native(exchange.plan.model))
        return
    await _told(exchange, Native(exchange.plan.model), stream=body.get("stream") is not False)


async def _generate(exchange: Exchange) -> None:
    body = exchange.body
    if not exchange.record.model:
        await exchange.error(404, "model '' not found")
        return
    if await _rejected(exchange) or await _cannot(exchange):
        return
    dialect = Native(exchange.plan.model, generate=True)
    if not body.get("prompt"):
        await _load(exchange, dialect)
        return
    await _told(exchange, dialect, stream=body.get("stream") is not False)


async def _v1_chat(exchange: Exchange) -> None:
    if await _rejected(exchange):
        return
    if not exchange.body.get("messages"):
        await exchange.error(400, "[] is too short - 'messages'")
        return
    await _told(exchange, _openai(exchange), stream=exchange.body.get("stream") is True)


async def _v1_completion(exchange: Exchange) -> None:
    if not await _rejected(exchange):
        await _told(exchange, _openai(exchange, completion=True), stream=exchange.body.get("stream") is True)


def _openai(exchange: Exchange, *, completion: bool = False) -> OpenAI:
    wanted = exchange.body.get("stream_options")
    usage = isinstance(wanted, dict) and wanted.get("include_usage") is True
    return OpenAI(exchange.plan.model, completion=completion, usage=usage)


async def _told(exchange: Exchange, dialect: Dialect, *, stream: bool) -> None:
    exchange.fake.load(exchange.plan.model, exchange.body)
    said = said_by(exchange.plan, exchange.fake.canary_url)
    style = body_style(exchange.plan, native=not exchange.openai)
    await tell(Turn(exchange, dialect, said, style, stream=stream))


async def _load(exchange: Exchange, dialect: Native) -> None:
    """A request without a prompt loads the model, or with keep_alive 0 unloads it; always one object."""
    unload = exchange.body.get("keep_alive") in (0, "0")
    if unload:
        exchange.fake.unload(exchange.plan.model)
    else:
        await exchange.pause(exchange.plan.seconds("load"))
        exchange.fake.load(exchange.plan.model, exchange.body)
    said = dialect.delta(0)
    await exchange.json({**said, "done": True, "done_reason": "unload" if unload else "load"})


async def _rejected(exchange: Exchange) -> bool:
    """Send the error of a request that no model could answer; False when it is sound."""
    error = _error_of(exchange)
    if error is not None:
        await exchange.error(*error)
    return error is not None


def _error_of(exchange: Exchange) -> tuple[int, str] | None:
    model = exchange.record.model
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
    return _wrong_option(exchange.body.get("options"))


def _wrong_option(options: object) -> tuple[int, str] | None:
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


async def _cannot(exchange: Exchange) -> bool:
    """Send the error where the model lacks what is asked of it."""
    model, body = exchange.record.model, exchange.body
    can = catalogue.capabilities(model)
    images = _images(body)
    think = body.get("think")
    if think not in (None, True, False, "low", "medium", "high", "max"):
        levels = 'high", "medium", "low", "max", true, or false'
        await exchange.error(400, f'invalid think value: "{think}" (must be "{levels})')
    elif think and "thinking" not in can:
        await exchange.error(400, f'"{model}" does not support thinking')
    elif body.get("tools") and "tools" not in can:
        await exchange.error(400, f"registry.ollama.ai/library/{model} does not support tools")
    elif images and not all(map(_base64, images)):
        await exchange.error(400, "illegal base64 data at input byte 4")
    elif images and "vision" not in can:
        text = "Multimodal data provided, but model does not support multimodal requests."
        await exchange.error(400, NESTED.replace("MESSAGE", text))
    else:
        return False
    return True


def _images(body: Json) -> list[object]:
    messages = body.get("messages")
    holders = [body, *(messages if isinstance(messages, list) else [])]
    return [image for holder in holders if isinstance(holder, dict) for image in holder.get("images") or []]


def _base64(image: object) -> bool:
    try:
        return isinstance(image, str) and bool(base64.b64decode(image, validate=True))
    except binascii.Error:
        return False


# embeddings


async def _embed(exchange: Exchange) -> None:
    if await _unknown_for_embed(exchange):
        return
    texts = _inputs(exchange.body.get("input"))
    counters = Answer("", "", 0, len(texts), "stop").counters()
    vectors = [_vector(text) for text in texts]
    kept = ("total_duration", "load_duration", "prompt_eval_count")
    known = {name: counters[name] for name in kept if name in counters}
    await exchange.json({"model": exchange.plan.model, "embeddings": vectors, **known})


async def _embeddings(exchange: Exchange) -> None:
    if not await _unknown_for_embed(exchange):
        await exchange.json({"embedding": _vector(str(exchange.body.get("prompt", "")))})


async def _v1_embeddings(exchange: Exchange) -> None:
    if await _unknown_for_embed(exchange):
        return
    vectors = [_vector(text) for text in _inputs(exchange.body.get("input"))]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    await exchange.json({"object": "list", "data": data, "model": exchange.plan.model, "usage": usage})


async def _unknown_for_embed(exchange: Exchange) -> bool:
    if exchange.fake.has(exchange.record.model):
        return False
    await exchange.error(404, f'model "{exchange.record.model}" not found, try pulling it first')
    return True


def _inputs(given: object) -> list[str]:
    if isinstance(given, list):
        return [str(item) for item in given]
    return [] if given is None else [str(given)]


def _vector(text: str) -> list[float]:
    raw = [draw(len(text), index, 2001) - 1000 for index in range(8)]
    norm = sum(value * value for value in raw) ** 0.5 or 1.0
    return [value / norm for value in raw]


# keeping models


async def _pull(exchange: Exchange) -> None:
    if not NAME.fullmatch(exchange.record.model):
        await exchange.error(400, "invalid model name")
    else:
        await pull(exchange)


async def _push(exchange: Exchange) -> None:
    await exchange.json({"status": "success"})


async def _create(exchange: Exchange) -> None:
    if not exchange.body.get("from") and not exchange.body.get("files"):
        await exchange.error(400, "neither 'from' or 'files' was specified")
        return
    exchange.fake.add_model(exchange.record.model)
    await exchange.json({"status": "success"})


async def _copy(exchange: Exchange) -> None:
    source, destination = exchange.body.get("source"), exchange.body.get("destination")
    for field, name in (("source", source), ("destination", destination)):
        if not isinstance(name, str) or not NAME.fullmatch(name):
            await exchange.error(400, f'{field} "{name or ""}" is invalid')
            return
    if not exchange.fake.has(str(source)):
        await exchange.error(404, f'model "{source}" not found')
        return
    exchange.fake.add_model(str(destination))
    await exchange.reply(200, b"", "")


async def _delete(exchange: Exchange) -> None:
    model = exchange.record.model
    if not NAME.fullmatch(model):
        await exchange.error(400, f'name "{model}" is invalid')
    elif not exchange.fake.remove_model(model):
        await exchange.error(404, f"model '{model}' not found")
    else:
        await exchange.reply(200, b"", "")


async def _blobs(exchange: Exchange) -> None:
    await exchange.reply(404, b"", "")


ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/"): _root, ("HEAD", "/"): _root,
    ("GET", "/api/version"): _version, ("HEAD", "/api/version"): _version,
    ("GET", "/api/tags"): _tags, ("HEAD", "/api/tags"): _tags,
    ("GET", "/api/ps"): _ps, ("POST", "/api/show"): _show,
    ("POST", "/api/chat"): _chat, ("POST", "/api/generate"): _generate,
    ("POST", "/api/embed"): _embed, ("POST", "/api/embeddings"): _embeddings,
    ("POST", "/api/pull"): _pull, ("POST", "/api/push"): _push, ("POST", "/api/create"): _create,
    ("POST", "/api/copy"): _copy, ("DELETE", "/api/delete"): _delete,
    ("GET", "/v1/models"): _v1_models, ("POST", "/v1/chat/completions"): _v1_chat,
    ("POST", "/v1/completions"): _v1_completion, ("POST", "/v1/embeddings"): _v1_embeddings,
}  # fmt: skip
