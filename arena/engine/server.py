"""The engine's routes in one table, and the server that carries them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from arena import __version__
from arena.endings import finished
from arena.engine.anthropic import Anthropic, AnthropicDialect
from arena.engine.blobs import BlobRoutes, Blobs
from arena.engine.config import Config
from arena.engine.core import Engine
from arena.engine.create import Creation
from arena.engine.digests import Digests
from arena.engine.http import Dialect, Guard, Reply, Work, attended, decoded
from arena.engine.launch import Launcher
from arena.engine.manage import Management, NameBody
from arena.engine.models import Models
from arena.engine.native import Native
from arena.engine.openai import OpenAI, OpenAIDialect, listed
from arena.engine.prepare import first_start
from arena.engine.pull import Pulls
from arena.engine.responses import Responses
from arena.engine.runners import Launch, Runners
from arena.errors import BadRequest, ModelNotFound
from arena.names import canonical

GRACE_S = 1
OLLAMA_API: Final = "0.30.0"
"""The Ollama release whose API is served: clients refuse what they take to be older than they need."""


class Inventory:
    """The handlers that tell which models there are."""

    def __init__(self, engine: Engine, digests: Digests) -> None:
        self._engine = engine
        self._digests = digests

    async def tags(self, _: Request, reply: Reply) -> None:
        """GET /api/tags."""
        models = await asyncio.to_thread(self._engine.models.scan)
        if not all(self._digests.of(model) for model in models):
            self._digests.begin(self._engine.models)  # a file that was put here meanwhile
        await reply.json({"models": [model.listed(self._digests.of(model)) for model in models]})

    async def ps(self, _: Request, reply: Reply) -> None:
        """GET /api/ps."""
        loaded = self._engine.runners.in_memory
        await reply.json({"models": [item.listed(self._digests.of(item.model)) for item in loaded]})

    async def show(self, request: Request, reply: Reply) -> None:
        """POST /api/show."""
        name = (await decoded(request, NameBody)).required()
        try:
            model = await self._engine.model(name)
        except ModelNotFound:
            raise ModelNotFound(f"model '{_with_tag(name)}' not found") from None
        await reply.json(model.shown())

    async def version(self, _: Request, reply: Reply) -> None:
        """GET /api/version: that of the API, and the engine's own."""
        await reply.json({"version": OLLAMA_API, "engine": __version__})

    async def v1_models(self, _: Request, reply: Reply) -> None:
        """GET /v1/models."""
        models = await asyncio.to_thread(self._engine.models.scan)
        data = [listed(model.listed(""), model.modified_ns // 10**9) for model in models]
        await reply.json({"object": "list", "data": data or None})

    async def v1_model(self, request: Request, reply: Reply) -> None:
        """GET /v1/models/{id}."""
        name = request.path_params["id"]
        try:
            model = await self._engine.model(name)
        except (BadRequest, ModelNotFound):
            raise ModelNotFound(f"model '{name}' not found") from None
        await reply.json(listed({"name": name}, model.modified_ns // 10**9))


def _with_tag(name: str) -> str:
    return name if canonical(name) == name.lower() else f"{name}:latest"


def create_app(config: Config, launch: Launch | None = None) -> ASGIApp:
    """The engine as an ASGI application; its lifespan starts the background work and ends every runner.

    `launch` loads models; by default as processes of llama.cpp.
    """
    runners = Runners(config, launch or Launcher(config))
    models = Models(config)
    engine = Engine(config, models, runners)
    digests = Digests(config.data / "engine" / "digests.json")
    pulls = Pulls(config, models, digests)
    blobs = Blobs(config.data / "engine" / "blobs", models, digests)

    async def prepare() -> None:
        await asyncio.to_thread(blobs.prune)
        if config.fetch:
            await first_start(config, models, pulls, runners.quiet)
        digests.begin(models)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        background = asyncio.create_task(prepare())
        try:
            yield
        finally:
            background.cancel()
            await finished({background})
            await digests.close()
            await pulls.close()
            await runners.close()

    routes = [
        *_ollama_routes(Native(engine), Inventory(engine, digests)),
        *_management_routes(Management(engine, pulls), Creation(engine, digests, blobs), BlobRoutes(blobs)),
        *_v1_routes(OpenAI(engine), Responses(engine), Anthropic(engine), Inventory(engine, digests)),
    ]
    refusals = {404: _no_such_path, 405: _no_such_method}
    return Guard(Starlette(routes=routes, lifespan=lifespan, exception_handlers=refusals))


def _route(path: str, method: str, work: Work, dialect: Dialect) -> Route:
    return Route(path, attended(work, dialect), methods=[method])


def _ollama_routes(native: Native, inventory: Inventory) -> list[Route]:
    dialect = Dialect()
    works: list[tuple[str, str, Work]] = [
        ("/api/version", "GET", inventory.version),
        ("/api/tags", "GET", inventory.tags),
        ("/api/ps", "GET", inventory.ps),
        ("/api/show", "POST", inventory.show),
        ("/api/chat", "POST", native.chat),
        ("/api/generate", "POST", native.generate),
        ("/api/embed", "POST", native.embed),
        ("/api/embeddings", "POST", native.embeddings),
    ]
    routes = [_route(path, method, work, dialect) for path, method, work in works]
    return [Route("/", _alive, methods=["GET"]), *routes]


def _management_routes(management: Management, creation: Creation, blobs: BlobRoutes) -> list[Route]:
    dialect = Dialect()
    return [
        _route("/api/pull", "POST", management.pull, dialect),
        _route("/api/push", "POST", management.push, dialect),
        _route("/api/create", "POST", creation.create, dialect),
        _route("/api/delete", "DELETE", management.delete, dialect),
        _route("/api/copy", "POST", management.copy, dialect),
        Route("/api/blobs/{digest}", blobs.head, methods=["HEAD"]),
        Route("/api/blobs/{digest}", blobs.post, methods=["POST"]),
    ]


def _v1_routes(openai: OpenAI, responses: Responses, anthropic: Anthropic, inventory: Inventory) -> list[Route]:
    dialect, other = OpenAIDialect(), AnthropicDialect()
    return [
        _route("/v1/models", "GET", inventory.v1_models, dialect),
        _route("/v1/models/{id:path}", "GET", inventory.v1_model, dialect),
        _route("/v1/chat/completions", "POST", openai.chat, dialect),
        _route("/v1/completions", "POST", openai.completions, dialect),
        _route("/v1/embeddings", "POST", openai.embeddings, dialect),
        _route("/v1/responses", "POST", responses.create, dialect),
        _route("/v1/messages", "POST", anthropic.messages, other),
        _route("/v1/messages/count_tokens", "POST", anthropic.count_tokens, other),
    ]


async def _alive(_: Request) -> Response:
    return PlainTextResponse("Ollama is running")


async def _no_such_path(_: Request, __: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _no_such_method(_: Request, __: Exception) -> Response:
    return PlainTextResponse("405 method not allowed", 405)


Announce = Callable[[int], None]


def announce_on_stdout(port: int) -> None:
    """Tell the parent, as one line of JSON, where the engine answers."""
    sys.stdout.write(json.dumps({"port": port, "version": __version__}) + "\n")
    sys.stdout.flush()


class Announcing(uvicorn.Server):
    """Says which port it has as soon as it answers."""

    def __init__(self, settings: uvicorn.Config, announce: Announce) -> None:
        super().__init__(settings)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port and announce it."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            self._announce(port)


def create_server(app: ASGIApp, host: str, port: int, announce: Announce) -> Announcing:
    """A server for the engine; `await server.serve()` runs it until `should_exit` is set."""
    settings = uvicorn.Config(
        app, host=host, port=port, http="httptools", ws="none", lifespan="on",
        log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    return Announcing(settings, announce)


async def serve(app: ASGIApp, host: str, port: int, *, watch_parent: bool = False) -> bool:
    """Serve until a signal comes, or until the parent has closed our standard input. False: it could not start."""
    server = create_server(app, host, port, announce_on_stdout)
    if watch_parent:
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    await server.serve()
    return server.started


def _end_with_input(server: uvicorn.Server) -> None:
    """Wait in a thread, since not every system can watch a pipe otherwise; os.read, since it holds no lock at exit."""
    while os.read(0, 4096):
        pass
    server.should_exit = True
