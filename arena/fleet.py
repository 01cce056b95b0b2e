"""The endpoints: which answer, which models they hold, and who is busy. The choice of endpoint is simple here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from arena.errors import ArenaError, ModelNotFound, NoEndpoint
from arena.names import canonical
from arena.ollama import OllamaClient
from arena.types import EndpointKind, EndpointStatus, LoadedModel, ModelInfo

log = logging.getLogger(__name__)

T = TypeVar("T")

FRESH_S = 5.0
"""Age in seconds at which a remembered list of models is asked for again."""
DESCRIBED_S = 60.0
"""The same where only a model's fixed properties are wanted."""


class Lease:
    """One generation's stay on an endpoint. `contended` turns True as soon as another overlaps with it."""

    __slots__ = ("contended",)

    def __init__(self, contended: bool) -> None:
        self.contended = contended


class Endpoint:
    """One Ollama-speaking server, with what it last said about itself."""

    def __init__(
        self,
        name: str,
        client: OllamaClient,
        kind: EndpointKind = "ollama",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.client = client
        self.kind = kind
        self.version: str | None = None
        self.error: str | None = None
        self._clock = clock
        self._leases: set[Lease] = set()
        self._models: tuple[ModelInfo, ...] = ()
        self._by_name: dict[str, ModelInfo] = {}
        self._contexts: dict[str, int | None] = {}
        self._loaded: tuple[LoadedModel, ...] = ()
        self._shown: dict[str, tuple[str, ...]] = {}
        self._asked_s: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The base url, without credentials."""
        return self.client.url

    @property
    def in_flight(self) -> int:
        """Generations running now."""
        return len(self._leases)

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Count a generation in and out, and notice overlap: figures taken under contention are not comparable."""
        lease = Lease(contended=bool(self._leases))
        if len(self._leases) == 1:  # where there are more, they have disturbed each other already
            next(iter(self._leases)).contended = True
        self._leases.add(lease)
        try:
            yield lease
        finally:
            self._leases.discard(lease)

    async def models(self, max_age_s: float = FRESH_S) -> tuple[ModelInfo, ...]:
        """The installed models, remembered for `max_age_s` seconds. Raises UpstreamError for a silent endpoint."""
        await self._refresh(max_age_s)
        return self._models

    async def loaded(self, max_age_s: float = FRESH_S) -> tuple[LoadedModel, ...]:
        """The models in memory, remembered for `max_age_s` seconds."""
        await self._refresh(max_age_s)
        return self._loaded

    def known(self, model: str) -> ModelInfo | None:
        """What is remembered of `model`; never asks."""
        return self._by_name.get(canonical(model))

    def context_length(self, model: str) -> int | None:
        """The context `model` really runs with, if it is remembered as loaded."""
        return self._contexts.get(canonical(model))

    async def describe(self, model: str) -> ModelInfo:
        """`model` with its capabilities, which older servers tell one model at a time. Raises ModelNotFound."""
        await self._refresh(DESCRIBED_S)
        info = self.known(model)
        if info is None:
            raise ModelNotFound(f"model '{model}' not found, try pulling it first")
        if info.capabilities is not None:
            return info
        key = info.digest or info.name
        if key not in self._shown:
            self._shown[key] = (await self.client.show(info.name)).capabilities or ()
        return msgspec.structs.replace(info, capabilities=self._shown[key])

    def freshen(self) -> None:
        """Have what is remembered renewed in the background if it is old; nobody waits for it."""
        if self._old(FRESH_S):
            self._ask_once().add_done_callback(_seen)

    def forget(self) -> None:
        """The next question asks anew (after a pull, a delete, a load); an answer on its way counts no more."""
        self._asked_s = self._refreshing = None

    async def status(self) -> EndpointStatus:
        """Does it answer, and as what? Never raises for a silent endpoint."""
        try:
            await self._refresh(FRESH_S)
        except ArenaError as error:
            return EndpointStatus(self.name, self.url, self.kind, reachable=False, error=error.message)
        return EndpointStatus(self.name, self.url, self.kind, True, self.version, len(self._models))

    async def _refresh(self, max_age_s: float) -> None:
        """Ask once for all who want to know at this moment; a caller who leaves does not cancel the others' answer."""
        if self._old(max_age_s):
            await asyncio.shield(self._ask_once())

    def _old(self, max_age_s: float) -> bool:
        return self._asked_s is None or self._clock() - self._asked_s >= max_age_s

    def _ask_once(self) -> asyncio.Task[None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask(), name=f"refresh {self.name}")
            self._asking.add(self._refreshing)
            self._refreshing.add_done_callback(self._asking.discard)
        return self._refreshing

    async def _ask(self) -> None:
        self._asked_s = None
        try:
            models = await self.client.tags()
            loaded = await self._loaded_now()
            self.version = await self._version_now()  # each time: a server may be updated between two answers
        except ArenaError as error:
            self._note(error)
            raise
        self._note(None)
        outdated = asyncio.current_task() is not self._refreshing
        if outdated and self._asked_s is not None:
            return  # a later question has been answered meanwhile
        self._loaded = loaded
        self._contexts = {canonical(item.name): item.context_length for item in loaded}
        self._models = tuple(
            msgspec.structs.replace(
                info, endpoints=(self.name,), loaded_on=(self.name,) if canonical(info.name) in self._contexts else ()
            )
            for info in models
        )
        self._by_name = {canonical(info.name): info for info in self._models}
        self._asked_s = None if outdated else self._clock()

    def _note(self, error: ArenaError | None) -> None:
        """Keep what is wrong with the endpoint; the log tells of each change once, however often it is asked."""
        before, self.error = self.error, None if error is None else error.message
        if error is not None and error.message != before:
            fields = {"endpoint": self.name, "code": error.code}
            log.warning("an endpoint does not answer: %s", error.message, extra=fields)
        elif error is None and before is not None:
            log.info("an endpoint answers again", extra={"endpoint": self.name})

    async def _loaded_now(self) -> tuple[LoadedModel, ...]:
        try:
            items = await self.client.ps()
        except ArenaError:
            return ()  # very old servers have no /api/ps; not knowing is not an error
        return tuple(msgspec.structs.replace(item, endpoint=self.name) for item in items)

    async def _version_now(self) -> str | None:
        try:
            return await self.client.version()
        except ArenaError:
            return None

    async def aclose(self) -> None:
        """End its connections."""
        asking = tuple(self._asking)
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
        await self.client.aclose()


def _seen(task: asyncio.Task[None]) -> None:
    """A background question may fail unheard: the endpoint's status keeps the reason."""
    if not task.cancelled():
        task.exception()


class Fleet:
    """All endpoints."""

    def __init__(self, endpoints: Sequence[Endpoint] = ()) -> None:
        self._endpoints = tuple(endpoints)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints, in the order of the settings."""
        return self._endpoints

    def add(self, endpoint: Endpoint) -> None:
        """Take one more endpoint into service (the embedded engine joins when it is ready)."""
        self._endpoints = (*self._endpoints, endpoint)

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint called `name`; raises NoEndpoint."""
        for endpoint in self._endpoints:
            if endpoint.name == name:
                return endpoint
        raise NoEndpoint(f"No endpoint is called {name!r}.")

    async def models(self, max_age_s: float = FRESH_S) -> tuple[ModelInfo, ...]:
        """The union of all endpoints' models, ordered by name. Raises the first error only if no endpoint answers."""
        answers, errors = await self._each(lambda endpoint: endpoint.models(max_age_s))
        if not answers and errors:
            raise errors[0]
        if not self._endpoints:
            raise NoEndpoint("No Ollama server is configured and the embedded engine is off.")
        merged: dict[str, ModelInfo] = {}
        for info in (info for models in answers for info in models):
            key = canonical(info.name)
            if (first := merged.get(key)) is None:
                merged[key] = info
            else:
                merged[key] = msgspec.structs.replace(
                    first, endpoints=first.endpoints + info.endpoints, loaded_on=first.loaded_on + info.loaded_on
                )
        return tuple(merged[key] for key in sorted(merged))

    async def loaded(self, max_age_s: float = FRESH_S) -> tuple[LoadedModel, ...]:
        """Everything in memory on the endpoints that answer."""
        answers, _ = await self._each(lambda endpoint: endpoint.loaded(max_age_s))
        return tuple(item for items in answers for item in items)

    async def statuses(self) -> tuple[EndpointStatus, ...]:
        """One status per endpoint, in order."""
        answers, _ = await self._each(lambda endpoint: endpoint.status())
        return tuple(answers)

    async def holder(self, model: str, endpoint: str | None = None) -> Endpoint:
        """The endpoint to ask for `model`: the named one, the only one, or the least busy of those that hold it.

        Raises NoEndpoint, ModelNotFound, or the endpoints' own error when none answers.
        """
        if endpoint is not None:
            return self.endpoint(endpoint)
        if len(self._endpoints) == 1:
            return self._endpoints[0]  # it says itself whether it has the model
        for max_age_s in (DESCRIBED_S, 0.0):
            await self.models(max_age_s)
            knowing = [candidate for candidate in self._endpoints if candidate.known(model)]
            if holders := [candidate for candidate in knowing if candidate.error is None]:
                return min(holders, key=lambda endpoint: (endpoint.in_flight, endpoint.context_length(model) is None))
        if knowing:
            return knowing[0]  # it had the model when it last answered, and says itself what is wrong now
        raise ModelNotFound(f"model '{model}' not found, try pulling it first")

    async def aclose(self) -> None:
        """End all connections."""
        for endpoint in self._endpoints:
            await endpoint.aclose()

    async def _each(self, ask: Callable[[Endpoint], Coroutine[Any, Any, T]]) -> tuple[list[T], list[ArenaError]]:
        """Ask all endpoints at once; a silent one delays the others' answers no longer than its own time-out."""
        tasks = [asyncio.create_task(ask(endpoint)) for endpoint in self._endpoints]
        if not tasks:
            return [], []
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        answers: list[T] = []
        errors: list[ArenaError] = []
        for task in tasks:
            error = task.exception()
            if error is None:
                answers.append(task.result())
            elif isinstance(error, ArenaError):
                errors.append(error)
            else:
                raise error
        return answers, errors
