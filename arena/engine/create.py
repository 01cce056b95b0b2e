"""Making models, from one that is here or from sent files, with a system text, parameters and licence of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from starlette.requests import Request

from arena.engine import options as allowed
from arena.engine import shelf
from arena.engine.blobs import Blobs
from arena.engine.core import Engine
from arena.engine.digests import Digests
from arena.engine.header import BrokenModel, read_header
from arena.engine.http import NDJSON, Reply, Unsupported, decoded
from arena.engine.manage import NameBody, legal
from arena.engine.pull import path_of
from arena.errors import ArenaError, BadRequest, ModelNotFound
from arena.names import canonical

POSSIBLE = (
    "a model is made from one that is here (from) or from GGUF files (files), with system, parameters and license"
)
_PROJECTOR_KIND = "clip"


class CreateBody(NameBody, frozen=True, rename={"source": "from"}):
    """The body of POST /api/create."""

    source: str | None = None
    files: dict[str, str] | None = None
    system: str | None = None
    license: str | list[str] | None = None
    parameters: dict[str, Any] | None = None
    template: str | None = None
    adapters: dict[str, str] | None = None
    messages: list[Any] | None = None
    quantize: str | None = None
    modelfile: str | None = None


class Weights(Struct, frozen=True):
    """The files of a model to be made, and what is noted of where they come from."""

    model: Path
    projector: Path | None = None
    digest: str = ""
    noted: dict[str, Any] = {}


class Creation:
    """The handler of create."""

    def __init__(self, engine: Engine, digests: Digests, blobs: Blobs) -> None:
        self._engine = engine
        self._digests = digests
        self._blobs = blobs

    async def create(self, request: Request, reply: Reply) -> None:
        """POST /api/create: what is wrong has its own status; then the lines follow, or one document."""
        body = await decoded(request, CreateBody)
        name = canonical(legal(body.required(), "invalid model name"))
        _check_possible(body)
        changes = _changes(body)
        weights = await self._weights(body)
        try:
            await self._make(name, weights, changes)
        except OSError as error:
            raise ArenaError(f"the model cannot be written: {error.strerror}") from None
        if body.stream is False:
            await reply.json({"status": "success"})
            return
        await reply.start(NDJSON)
        told = [f"using existing layer sha256:{weights.digest}"] if weights.digest else []
        lines = [{"status": status} for status in (*told, "writing manifest", "success")]
        await reply.end(msgspec.json.Encoder().encode_lines(lines))

    async def _make(self, name: str, weights: Weights, changes: dict[str, Any]) -> None:
        models, config = self._engine.models, self._engine.config
        if (old := await asyncio.to_thread(models.find, name)) is not None:
            await self._engine.runners.unload(old)
        noted = {**weights.noted, **changes}
        if "parameters" in changes:
            noted["parameters"] = {**weights.noted.get("parameters", {}), **changes["parameters"]}
        await asyncio.to_thread(shelf.store, config, name, weights.model, weights.projector, noted)
        if weights.digest:
            await self._digests.note(path_of(config.models, name), weights.digest)
        for path in (weights.model, weights.projector):
            if path is not None:
                await asyncio.to_thread(self._blobs.forget, path)
        await asyncio.to_thread(models.scan)

    async def _weights(self, body: CreateBody) -> Weights:
        if body.source and body.files:
            raise BadRequest("give either from or files, not both")
        if body.files:
            return await asyncio.to_thread(self._sent, body.files)
        if not body.source:
            raise BadRequest("neither 'from' or 'files' was specified")
        legal(body.source, f"invalid model name in from: {body.source!r}")
        try:
            model = await self._engine.model(body.source)
        except ModelNotFound:
            raise ModelNotFound(f"model '{body.source}' not found, try pulling it first") from None
        if body.template and (model.header is None or body.template != model.header.chat_template):
            raise _unsupported("template (the Jinja template in the model's own file is used)")
        return Weights(model.found.path, model.found.projector, self._digests.of(model), shelf.noted(model))

    def _sent(self, files: Mapping[str, str]) -> Weights:
        """The files that were sent before, told apart by what their headers say."""
        found: dict[bool, tuple[Path, str]] = {}
        for name, digest in files.items():
            path = self._blobs.find(digest)
            if path is None:
                raise BadRequest(f"{name}: nothing with the digest {digest} is here; send it to /api/blobs first")
            try:
                projector = read_header(path).architecture == _PROJECTOR_KIND
            except BrokenModel as error:
                raise BadRequest(f"{name}: {error.message}") from None
            if projector in found:
                raise _unsupported("a model in several files")
            found[projector] = (path, digest[-64:])
        if False not in found:
            raise BadRequest("files: a projector alone is not a model")
        model, digest = found[False]
        return Weights(model, found[True][0] if True in found else None, digest)


def _check_possible(body: CreateBody) -> None:
    for field in ("adapters", "messages", "quantize", "modelfile"):
        if getattr(body, field):
            raise _unsupported(field)
    if body.template and not body.source:
        raise _unsupported("template (the Jinja template in the model's own file is used)")


def _unsupported(what: str) -> Unsupported:
    return Unsupported(f"create does not support {what}: {POSSIBLE}")


def _changes(body: CreateBody) -> dict[str, Any]:
    """What is to be noted beside the weights. Raises BadRequest, or ArenaError for a parameter of a wrong kind."""
    changes: dict[str, Any] = {}
    if body.system is not None:
        changes["system"] = body.system
    if body.license:
        changes["license"] = body.license if isinstance(body.license, str) else "\n".join(body.license)
    if body.parameters:
        given = {name: [value] if name == "stop" and isinstance(value, str) else value
                 for name, value in body.parameters.items()}  # fmt: skip
        if unknown := given.keys() - allowed.RULES.keys():
            raise BadRequest(f"unknown parameter '{min(unknown)}'")
        changes["parameters"] = allowed.checked(given)
    return changes
