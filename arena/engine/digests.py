"""SHA-256 of model files, worked out in the background and remembered; "" until it is known, never invented."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

import msgspec

from arena.endings import finished
from arena.engine.models import LocalModel, Models

BLOCK_BYTES = 4 * 1024 * 1024


class Digests:
    """Digests by path, size and time of change, kept in one small JSON file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._working: asyncio.Task[None] | None = None

    def of(self, model: LocalModel) -> str:
        """The bare hex digest of the model's file; "" while it is not known."""
        return model.found.digest or self._known.get(f"{model.key}|{model.size_bytes}|{model.modified_ns}", "")

    def begin(self, models: Models) -> None:
        """Work out in the background what is missing, unless that is already being done."""
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self.keep(models))

    async def close(self) -> None:
        """Stop the work in the background."""
        if self._working is not None:
            self._working.cancel()
            await finished({self._working})

    async def keep(self, models: Models) -> None:
        """Work out what is missing, one file after the other, in a thread."""
        for model in await asyncio.to_thread(models.scan):
            if not self.of(model):
                await self.learn(model)

    async def learn(self, model: LocalModel) -> str:
        """Work out one digest and remember it; "" if the file cannot be read."""
        try:
            digest = await asyncio.to_thread(sha256_of, model.found.path)
        except OSError:
            return ""
        await self.note(model.found.path, digest)
        return digest

    async def note(self, path: Path, digest: str) -> None:
        """Remember a digest that was checked already. Raises OSError."""
        self._known[await asyncio.to_thread(_identity, path)] = digest
        await asyncio.to_thread(_write, self._file, dict(self._known))


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _read(file: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _write(file: Path, known: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # it can be worked out again
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        partial.write_bytes(msgspec.json.encode(known))
        os.replace(partial, file)
