"""The models of the fleet: list, pull with progress, delete, load and unload."""

from __future__ import annotations

from arena.fleet import Fleet
from arena.settings import Settings
from arena.types import LoadedModel, ModelInfo, PullJob


class Catalog:
    """What is installed, what is in memory, and the downloads under way."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self._fleet = fleet
        self._settings = settings

    async def models(self) -> tuple[ModelInfo, ...]:
        """All installed models, ordered by name."""
        return await self._fleet.models()

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """All models in memory."""
        return await self._fleet.loaded()

    def pull(self, model: str, endpoint: str | None = None) -> PullJob:
        """Start (or join) the download of `model`; one job per model and endpoint."""
        raise NotImplementedError

    def jobs(self) -> tuple[PullJob, ...]:
        """All downloads, newest first."""
        raise NotImplementedError

    def job(self, job_id: str) -> PullJob:
        """One download; raises NotFound."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> PullJob:
        """Stop a download; what is there already is kept for resuming."""
        raise NotImplementedError

    async def delete(self, model: str, endpoint: str | None = None) -> None:
        """Remove `model` from the endpoint(s) that hold it; raises ModelNotFound."""
        raise NotImplementedError

    async def load(self, model: str, endpoint: str | None = None) -> None:
        """Bring `model` into memory."""
        raise NotImplementedError

    async def unload(self, model: str, endpoint: str | None = None) -> None:
        """Free the memory of `model`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Stop all downloads."""
