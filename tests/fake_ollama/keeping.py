"""The routes that list, describe and keep models."""

from __future__ import annotations

from tests.fake_ollama import catalogue
from tests.fake_ollama.dialects import Json, Native
from tests.fake_ollama.exchange import PLAIN, Exchange
from tests.fake_ollama.plan import NAME
from tests.fake_ollama.turn import BodyStyle, Turn


async def root(exchange: Exchange) -> None:
    """`GET /`."""
    await exchange.reply(200, b"Ollama is running", PLAIN)


async def version(exchange: Exchange) -> None:
    """`GET /api/version`."""
    await exchange.json({"version": exchange.fake.faults.version})


async def tags(exchange: Exchange) -> None:
    """`GET /api/tags`."""
    await exchange.json({"models": [catalogue.tags_entry(name) for name in exchange.fake.models]})


async def ps(exchange: Exchange) -> None:
    """`GET /api/ps`: what a generation or a load request has left in memory."""
    loaded = exchange.fake.loaded
    await exchange.json({"models": [catalogue.ps_entry(name, **kept) for name, kept in loaded.items()]})


async def show(exchange: Exchange) -> None:
    """`POST /api/show`."""
    model = exchange.record.model
    if not model:
        await exchange.error(400, "model is required")
    elif not NAME.fullmatch(model):
        await exchange.error(400, "invalid model name")
    elif not exchange.fake.has(model):
        await exchange.error(404, f"model '{catalogue.tagged(model)}' not found")
    else:
        await exchange.json(catalogue.show(model))


async def v1_models(exchange: Exchange) -> None:
    """`GET /v1/models`; like Ollama's its list is null when empty."""
    items = [
        {"id": catalogue.tagged(name), "object": "model", "created": 1767225600, "owned_by": "library"}
        for name in exchange.fake.models
    ]
    await exchange.json({"object": "list", "data": items or None})


async def push(exchange: Exchange) -> None:
    """`POST /api/push`."""
    if not exchange.fake.has(exchange.record.model):
        await _steps(exchange, {"status": "couldn't retrieve manifest"}, {"error": "file does not exist"})
    else:
        await _steps(exchange, {"status": "retrieving manifest"}, {"status": "pushing manifest"}, {"status": "success"})


async def create(exchange: Exchange) -> None:
    """`POST /api/create`; the model is listed from then on."""
    if not exchange.body.get("from") and not exchange.body.get("files"):
        await exchange.error(400, "neither 'from' or 'files' was specified")
        return
    exchange.fake.add_model(exchange.record.model)
    await _steps(exchange, {"status": "parsing GGUF"}, {"status": "writing manifest"}, {"status": "success"})


async def _steps(exchange: Exchange, *lines: Json) -> None:
    """Lines of progress; without a stream only the last."""
    if exchange.body.get("stream") is False:
        await exchange.json(lines[-1], 500 if "error" in lines[-1] else 200)
        return
    turn = Turn(exchange, Native(exchange.plan.model), (), BodyStyle(), stream=True)
    for line in lines:
        await turn.line(line)
    await turn.end()


async def copy(exchange: Exchange) -> None:
    """`POST /api/copy`."""
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


async def delete(exchange: Exchange) -> None:
    """`DELETE /api/delete`; a model in memory stays there, as with Ollama."""
    model = exchange.record.model
    if not NAME.fullmatch(model):
        await exchange.error(400, f'name "{model}" is invalid')
    elif not exchange.fake.remove_model(model):
        await exchange.error(404, f"model '{model}' not found")
    else:
        await exchange.reply(200, b"", "")


async def blobs(exchange: Exchange) -> None:
    """`/api/blobs/...`: nothing is kept, only logged."""
    await exchange.reply(404, b"", "")
