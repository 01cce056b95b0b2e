"""The models of the fleet: list, pull with progress, delete, load and unload."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec

from arena import names
from arena.errors import ArenaError, Busy, Forbidden, ModelNotFound, NoEndpoint, NotFound, Unreachable
from arena.fleet import Endpoint, Fleet
from arena.log import warn_failed
from arena.settings import Settings
from arena.types import LoadedModel, ModelInfo, PullJob, PullProgress

log = logging.getLogger(__name__)

MAX_JOBS = 100
"""Downloads that are remembered; the oldest ended ones go first."""

MAX_DOWNLOADS = 16
"""Downloads under way at a time."""


class Download:
    """One pull that the arena carries on by itself, whoever asked for it. `job` is its state as last heard."""

    def __init__(self, job: PullJob, endpoint: Endpoint) -> None:
        self.job = job
        self._endpoint = endpoint
        self._began_s = time.monotonic()
        self._task = asyncio.create_task(self._run(), name=f"pull {job.id}")
        self._task.add_done_callback(self._ended)

    @property
    def key(self) -> tuple[str, str]:
        """What two callers must share to share the download: the endpoint, and the model however it is spelled."""
        return self._endpoint.name, names.canonical(self.job.model)

    @property
    def running(self) -> bool:
        """Is it still under way?"""
        return self.job.state == "downloading"

    def cancel(self) -> None:
        """Stop it; it is `cancelled` at once, and its connection ends in the next turn of the loop."""
        if self.running:
            self._update(state="cancelled")
            self._task.cancel()

    async def wait(self) -> None:
        """Until it has ended and its connection is free."""
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        async with aclosing(self._endpoint.client.pull(self.job.model)) as progress:
            async for step in progress:
                self._told(step)

    def _told(self, step: PullProgress) -> None:
        if self.running:
            self._update(status=step.status, completed_bytes=step.completed_bytes, total_bytes=step.total_bytes)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """However the task ended, the job tells of it; also when it was cancelled before its first step."""
        self._endpoint.forget()
        if not self.running:
            return
        if task.cancelled():
            self._update(state="cancelled")
        elif (error := task.exception()) is None:
            self._update(state="done")
        elif isinstance(error, ArenaError):
            # a host says best itself what it lacks; of one that is not reached only the system has spoken
            told = error.message if isinstance(error, Unreachable) else error.details or error.message
            self._update(state="failed", error=told)
            warn_failed(log, "a pull", error, self._began_s, model=self.job.model, endpoint=self.job.endpoint)
        else:
            log.error("pull failed", exc_info=error, extra={"job": self.job.id})
            self._update(state="failed", error="The download ended without a result.")

    def _update(self, **changes: Any) -> None:
        self.job = msgspec.structs.replace(self.job, **changes)


class Catalog:
    """What is installed, what is in memory, and the downloads under way."""

    def __init__(
        self, fleet: Fleet, settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._now = now
        self._downloads: dict[str, Download] = {}

    def check_management(self) -> None:
        """Raises Forbidden where models may not be pulled, deleted or moved in and out of memory."""
        if not self._settings.management_allowed:
            raise Forbidden("Managing models is turned off on this server (ARENA_MANAGEMENT)")

    async def models(self) -> tuple[ModelInfo, ...]:
        """All installed models, ordered by name."""
        return await self._fleet.models()

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """All models in memory."""
        return await self._fleet.loaded()

    def pull(self, model: str, endpoint: str | None = None) -> PullJob:
        """Start (or join) the download of `model`; one job per model and endpoint.

        Without `endpoint` the first one downloads. Raises BadRequest for a name that is not legal or points to a
        registry that is not allowed, NoEndpoint, and Busy while too many downloads run.
        """
        names.checked(model)
        names.check_registry(model, self._settings.registry_hosts)
        target = self._target(endpoint)
        key = target.name, names.canonical(model)
        running = [download for download in self._downloads.values() if download.running]
        for download in running:
            if download.key == key:
                return download.job
        if len(running) >= MAX_DOWNLOADS:
            raise Busy(f"{MAX_DOWNLOADS} downloads are running; wait for one to end or cancel it")
        job = PullJob(
            uuid.uuid4().hex, model, target.name, "downloading", started_at=self._now().isoformat(timespec="seconds")
        )
        self._downloads[job.id] = Download(job, target)
        self._drop_oldest()
        return job

    def jobs(self) -> tuple[PullJob, ...]:
        """All downloads, newest first."""
        return tuple(download.job for download in reversed(self._downloads.values()))

    def job(self, job_id: str) -> PullJob:
        """One download; raises NotFound."""
        return self._download(job_id).job

    async def wait(self, job_id: str) -> PullJob:
        """One download once it has ended; raises NotFound. Leaving does not stop it."""
        download = self._download(job_id)
        await download.wait()
        return download.job

    def cancel(self, job_id: str) -> PullJob:
        """Stop a download; what is there already is kept for resuming. One that has ended stays as it is."""
        download = self._download(job_id)
        download.cancel()
        return download.job

    async def describe(self, model: str, endpoint: str | None = None) -> ModelInfo:
        """One model with its capabilities; raises ModelNotFound."""
        return await self._fleet.describe(names.checked(model), endpoint)

    async def delete(self, model: str, endpoint: str | None = None) -> None:
        """Remove `model` from the endpoint(s) that hold it; raises ModelNotFound, or the first endpoint's error."""
        holders = await self._holders(names.checked(model), endpoint)
        await self._on_each("a delete", model, holders, lambda holder: holder.client.delete(model))

    async def load(self, model: str, endpoint: str | None = None) -> None:
        """Bring `model` into memory."""
        holder = await self._fleet.holder(names.checked(model), endpoint)
        await self._on_each("a load", model, [holder], lambda holder: holder.client.load(model))

    async def unload(self, model: str, endpoint: str | None = None) -> None:
        """Free the memory of `model`."""
        holders = await self._holders(names.checked(model), endpoint)
        await self._on_each("an unload", model, holders, lambda holder: holder.client.unload(model))

    async def aclose(self) -> None:
        """Stop all downloads."""
        running = [download for download in self._downloads.values() if download.running]
        for download in running:
            download.cancel()
        for download in running:
            await download.wait()

    def _target(self, endpoint: str | None) -> Endpoint:
        if endpoint is not None:
            return self._fleet.endpoint(endpoint)
        if not self._fleet.endpoints:
            raise NoEndpoint("No Ollama server is configured and the embedded engine is off.")
        return self._fleet.endpoints[0]

    def _download(self, job_id: str) -> Download:
        try:
            return self._downloads[job_id]
        except KeyError:
            raise NotFound("There is no such download") from None

    def _drop_oldest(self) -> None:
        ended = [job_id for job_id, download in self._downloads.items() if not download.running]
        for job_id in ended[: max(0, len(self._downloads) - MAX_JOBS)]:
            del self._downloads[job_id]

    async def _holders(self, model: str, endpoint: str | None) -> list[Endpoint]:
        """The named endpoint, the only one (it says itself whether it has the model), or all that have it."""
        if endpoint is not None:
            return [self._fleet.endpoint(endpoint)]
        if len(self._fleet.endpoints) == 1:
            return list(self._fleet.endpoints)
        await self._fleet.models(0.0)
        holders = [candidate for candidate in self._fleet.endpoints if candidate.known(model)]
        if not holders:
            raise ModelNotFound(f"model '{model}' not found")
        return holders

    async def _on_each(
        self, what: str, model: str, endpoints: list[Endpoint], act: Callable[[Endpoint], Coroutine[Any, Any, object]]
    ) -> None:
        """Do the same on every endpoint, also after one failed; then raise the first error.

        That one does not have the model (any more) is an error only if it is true of all.
        """
        began_s = time.monotonic()
        errors: list[tuple[Endpoint, ArenaError]] = []
        for endpoint in endpoints:
            try:
                await act(endpoint)
            except ArenaError as error:
                errors.append((endpoint, error))
            finally:
                endpoint.forget()
        told = [pair for pair in errors if not isinstance(pair[1], ModelNotFound)]
        if told or len(errors) == len(endpoints):
            for holder, reason in told or errors[:1]:
                warn_failed(log, what, reason, began_s, model=model, endpoint=holder.name)
            raise (told or errors)[0][1]
