"""The routes that generate or embed: loading and unloading, and the telling of a turn."""

from __future__ import annotations

from tests.fake_ollama.bending import body_style
from tests.fake_ollama.checks import inability, rejection
from tests.fake_ollama.dialects import Answer, Dialect, Native, OpenAI
from tests.fake_ollama.exchange import Exchange
from tests.fake_ollama.oracle import draw
from tests.fake_ollama.scenarios import tell
from tests.fake_ollama.texts import said_by
from tests.fake_ollama.turn import Turn


async def chat(exchange: Exchange) -> None:
    """`POST /api/chat`; without messages it loads or unloads."""
    if problem := rejection(exchange) or inability(exchange):
        await exchange.error(*problem)
    elif not exchange.body.get("messages"):
        await _load(exchange, Native(exchange.plan.model))
    else:
        await _told(exchange, Native(exchange.plan.model), stream=exchange.body.get("stream") is not False)


async def generate(exchange: Exchange) -> None:
    """`POST /api/generate`; without a prompt it loads or unloads."""
    dialect = Native(exchange.plan.model, generate=True)
    if exchange.body and not exchange.record.model:
        await exchange.error(404, "model '' not found")
    elif problem := rejection(exchange) or inability(exchange):
        await exchange.error(*problem)
    elif not exchange.body.get("prompt"):
        await _load(exchange, dialect)
    else:
        await _told(exchange, dialect, stream=exchange.body.get("stream") is not False)


async def v1_chat(exchange: Exchange) -> None:
    """`POST /v1/chat/completions`."""
    if problem := rejection(exchange):
        await exchange.error(*problem)
    elif not exchange.body.get("messages"):
        await exchange.error(400, "[] is too short - 'messages'")
    else:
        await _told(exchange, _openai(exchange), stream=exchange.body.get("stream") is True)


async def v1_completion(exchange: Exchange) -> None:
    """`POST /v1/completions`."""
    if problem := rejection(exchange):
        await exchange.error(*problem)
    else:
        await _told(exchange, _openai(exchange, completion=True), stream=exchange.body.get("stream") is True)


def _openai(exchange: Exchange, *, completion: bool = False) -> OpenAI:
    wanted = exchange.body.get("stream_options")
    usage = isinstance(wanted, dict) and wanted.get("include_usage") is True
    return OpenAI(exchange.plan.model, completion=completion, usage=usage)


async def _told(exchange: Exchange, dialect: Dialect, *, stream: bool) -> None:
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
    await exchange.json({**dialect.delta(0), "done": True, "done_reason": "unload" if unload else "load"})


async def embed(exchange: Exchange) -> None:
    """`POST /api/embed`."""
    if await _unknown(exchange):
        return
    vectors = [_vector(text) for text in _inputs(exchange.body.get("input"))]
    counters = Answer("", "", 0, len(vectors), "stop").counters()
    kept = ("total_duration", "load_duration", "prompt_eval_count")
    known = {name: counters[name] for name in kept if name in counters}
    await exchange.json({"model": exchange.plan.model, "embeddings": vectors, **known})


async def embeddings(exchange: Exchange) -> None:
    """`POST /api/embeddings`, the old form."""
    if not await _unknown(exchange):
        await exchange.json({"embedding": _vector(str(exchange.body.get("prompt", "")))})


async def v1_embeddings(exchange: Exchange) -> None:
    """`POST /v1/embeddings`."""
    if await _unknown(exchange):
        return
    vectors = [_vector(text) for text in _inputs(exchange.body.get("input"))]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    await exchange.json({"object": "list", "data": data, "model": exchange.plan.model, "usage": usage})


async def _unknown(exchange: Exchange) -> bool:
    if exchange.fake.has(exchange.record.model):
        return False
    await exchange.error(404, f'model "{exchange.record.model}" not found, try pulling it first')
    return True


def _inputs(given: object) -> list[str]:
    if isinstance(given, list):
        return [str(item) for item in given]
    return [] if given is None else [str(given)]


def _vector(text: str) -> list[float]:
    """A made-up vector of length 1 that depends on the text alone."""
    seed = int.from_bytes(text.encode()[:8] or b"\0", "big")
    raw = [draw(seed, index, 2001) - 1000 for index in range(8)]
    norm = sum(value * value for value in raw) ** 0.5 or 1.0
    return [value / norm for value in raw]
