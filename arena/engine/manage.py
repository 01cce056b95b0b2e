"""The routes that change which models there are: pull, delete, copy; push has nowhere to go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
from msgspec import Struct
from starlette.requests import Request

from arena.engine import shelf
from arena.engine.core import Engine
from arena.engine.http import NDJSON, Reply, Unsupported, decoded
from arena.engine.pull import Pulls
from arena.errors import ArenaError, BadRequest, ModelNotFound, NotFound
from arena.names import canonical, checked


class NameBody(Struct, frozen=True):
    """A body that names a model; `name` is the older spelling."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None

    def required(self) -> str:
        """The name. Raises BadRequest when there is none."""
        if not (name := self.model or self.name):
            raise BadRequest("model is required")
        return name


class CopyBody(Struct, frozen=True):
    """The body of POST /api/copy."""

    source: str = ""
    destination: str = ""


class Management:
    """The handlers of pull, push, delete and copy."""

    def __init__(self, engine: Engine, pulls: Pulls) -> None:
        self._engine = engine
        self._pulls = pulls

    async def pull(self, request: Request, reply: Reply) -> None:
        """POST /api/pull: status 200 as soon as the stream begins; later failures are an error line."""
        body = await decoded(request, NameBody)
        name = legal(body.required(), "invalid model name")
        stream = body.stream is not False
        if stream:
            await reply.start(NDJSON)
        try:
            async with aclosing(self._pulls.pull(name)) as lines:
                async for line in lines:
                    if stream:
                        await reply.write(msgspec.json.encode(line) + b"\n")
        except NotFound as error:
            raise ArenaError(error.message) from None  # Ollama's 500
        if stream:
            await reply.end()
        else:
            await reply.json({"status": "success"})

    async def push(self, request: Request, reply: Reply) -> None:
        """POST /api/push: the engine knows no registry that it could publish to."""
        name = (await decoded(request, NameBody)).required()
        raise Unsupported(f"{name} cannot be pushed: the embedded engine publishes nothing; push it from an Ollama")

    async def delete(self, request: Request, reply: Reply) -> None:
        """DELETE /api/delete: 200 with an empty body."""
        name = (await decoded(request, NameBody)).required()
        legal(name, f'name "{name}" is invalid')
        model = await self._engine.model(name)
        await asyncio.to_thread(shelf.delete, model)
        await asyncio.to_thread(self._engine.models.scan)
        await _empty(reply)

    async def copy(self, request: Request, reply: Reply) -> None:
        """POST /api/copy: 200 with an empty body."""
        body = await decoded(request, CopyBody)
        legal(body.source, f'source "{body.source}" is invalid')
        legal(body.destination, f'destination "{body.destination}" is invalid')
        try:
            model = await self._engine.model(body.source)
        except ModelNotFound:
            raise ModelNotFound(f'model "{body.source}" not found') from None
        try:
            await asyncio.to_thread(shelf.copy, self._engine.config, model, canonical(body.destination))
        except OSError as error:
            raise ArenaError(f"the model cannot be copied: {error.strerror}") from None
        await asyncio.to_thread(self._engine.models.scan)
        await _empty(reply)


def legal(name: str, complaint: str) -> str:
    """`name` if it is a legal model name; raises BadRequest with `complaint` if not."""
    try:
        return checked(name)
    except BadRequest:
        raise BadRequest(complaint) from None


async def _empty(reply: Reply) -> None:
    await reply.start("text/plain; charset=utf-8")
    await reply.end()
