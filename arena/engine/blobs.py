"""Files sent here for `create`: /api/blobs. A file lies among the blobs until a model is made of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from arena.engine.digests import Digests
from arena.engine.http import Dialect
from arena.engine.models import Models
from arena.errors import ArenaError, BadRequest

BLOCK_BYTES = 4 * 1024 * 1024
"""How much is gathered before it is written, in a thread."""
KEPT_S = 24 * 3600.0
"""A blob of which no model was made in this time goes at the next start."""
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


class Blobs:
    """The blobs' folder, and the files of models by their digest."""

    def __init__(self, folder: Path, models: Models, digests: Digests) -> None:
        self._folder = folder
        self._models = models
        self._digests = digests

    def find(self, digest: str) -> Path | None:
        """The file with this digest ("sha256:" and hex), if one is here. Touches the disk. Raises BadRequest."""
        path = self._path(digest)
        if path.is_file():
            return path
        known = (model for model in self._models.scan() if self._digests.of(model) == path.name)
        return next((model.found.path for model in known), None)

    def forget(self, path: Path) -> None:
        """A model was made of the blob at `path`, which holds its bytes from now on."""
        if path.parent == self._folder:
            path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what nobody made a model of, and half of what was sent."""
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                if path.suffix or time.time() - path.stat().st_mtime > KEPT_S:
                    path.unlink()

    async def store(self, digest: str, body: AsyncIterator[bytes]) -> bool:
        """Take a file in; False if it was here already. Raises BadRequest, or ArenaError when it cannot be written."""
        target = self._path(digest)
        if await asyncio.to_thread(self.find, digest) is not None:
            return False
        partial = target.with_suffix(f".{secrets.token_hex(4)}")
        try:
            found = await _written(partial, body)
            if found != target.name:
                raise BadRequest(f'digest mismatch, expected "sha256:{target.name}", got "sha256:{found}"')
            await asyncio.to_thread(os.replace, partial, target)
        except OSError as error:
            raise ArenaError(f"the blob cannot be written: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
        return True

    def _path(self, digest: str) -> Path:
        if (match := _DIGEST.fullmatch(digest)) is None:
            raise BadRequest("invalid digest format: it must be sha256: and 64 hexadecimal digits")
        return self._folder / match.group(1)


class BlobRoutes:
    """The handlers of /api/blobs."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def head(self, request: Request) -> Response:
        """HEAD /api/blobs/{digest}: is it here?"""
        try:
            found = await asyncio.to_thread(self._blobs.find, request.path_params["digest"])
        except BadRequest:
            return Response(status_code=400)
        return Response(status_code=404 if found is None else 200)

    async def post(self, request: Request) -> Response:
        """POST /api/blobs/{digest}: 201 when it is here and what it says it is, 200 when it was here before."""
        body = request.stream()
        try:
            created = await self._blobs.store(request.path_params["digest"], body)
            answer = Response(status_code=201 if created else 200)
        except ArenaError as error:
            answer = Response(Dialect().body(error), error.status, media_type="application/json")
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        async for _ in body:
            pass  # a client reads the answer only when it has sent everything
        return answer


async def _written(path: Path, body: AsyncIterator[bytes]) -> str:
    """Write a body to a file, block by block in a thread; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    file = await asyncio.to_thread(_opened, path)

    def write(blocks: list[bytes]) -> None:
        for block in blocks:
            digest.update(block)
            file.write(block)

    try:
        blocks: list[bytes] = []
        size = 0
        async for block in body:
            blocks.append(block)
            size += len(block)
            if size >= BLOCK_BYTES:
                await asyncio.to_thread(write, blocks)
                blocks, size = [], 0
        await asyncio.to_thread(write, blocks)
    finally:
        file.close()
    return digest.hexdigest()


def _opened(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")
