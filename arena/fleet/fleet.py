"""The fleet: all endpoints, and the choice among them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from arena.errors import ArenaError, ModelNotFound, NoEndpoint
from arena.fleet.balancer import Balancer
from arena.fleet.catalogue import Catalogue, ask
from arena.fleet.endpoint import DESCRIBED_S, FRESH_S, Endpoint
from arena.fleet.lease import Lease, Routing, Wanted
from arena.fleet.spec import FleetSpec
from arena.types import EndpointStatus, LoadedModel, ModelInfo

T = TypeVar("T")
NONE_TRIED: frozenset[str] = frozenset()


class Fleet:
    """All endpoints."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint] = (),
        spec: FleetSpec | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._clock = clock
        self._adopt(spec or FleetSpec())

    def _adopt(self, spec: FleetSpec) -> None:
        self.spec = spec
        self.catalogue = Catalogue(spec.aliases)
        self._balancer = Balancer(spec.strategy)
        self._found = Routing(spec.strategy, "routed", "model_found")
        self._any = Routing(spec.strategy, "routed", "any_endpoint")
        self._named = Routing(spec.strategy, "routed", "endpoint_named")
        self._panic = Routing(spec.strategy, "fallback", "least_bad")
        self._alias = Routing("alias", "routed", "alias_resolved")

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

    # leases

    def try_lease(self, wanted: Wanted, tried: frozenset[str] = NONE_TRIED) -> Lease | None:
        """A lease at once, or None where one would have to wait: for the endpoints to say what they have, or a place.

        Raises NoEndpoint where there is none (left) that could serve it.
        """
        chain = self.catalogue.chain(wanted.model) if wanted.model is not None else (("", ""),)
        now_s = self._clock()
        for key, name in chain:
            candidates = [
                endpoint
                for endpoint in self._endpoints
                if endpoint.name not in tried
                and (wanted.endpoint is None or endpoint.name == wanted.endpoint)
                and (wanted.kinds is None or endpoint.kind in wanted.kinds)
                and (not key or key in endpoint.holds or len(self._endpoints) == 1 or wanted.endpoint is not None)
            ]
            if candidates:
                chosen = self._balancer.choose(candidates, key)
                info = chosen.holds.get(key)
                model = info.name if info is not None else name
                return Lease(chosen, model, key, wanted, tried, self._found, now_s, self._ended)
        if wanted.endpoint is not None:
            self.endpoint(wanted.endpoint)
        if wanted.model is None or not self._endpoints or tried:
            raise NoEndpoint("No endpoint is left that could serve this.")
        return None

    async def lease(self, wanted: Wanted, tried: frozenset[str] = NONE_TRIED) -> Lease:
        """A lease, after asking the endpoints or waiting for a place where that is needed.

        Raises ModelNotFound, NoEndpoint (nothing up, or nothing of that kind) and Busy with `retry_after_s`.
        """
        lease = self.try_lease(wanted, tried)
        if lease is None:
            errors = await ask(self._endpoints)
            if len(errors) == len(self._endpoints):
                raise errors[0]
            lease = self.try_lease(wanted, tried)
        if lease is None:
            raise ModelNotFound(f"model '{wanted.model}' not found, try pulling it first")
        return lease

    def _ended(self, lease: Lease) -> None:
        lease.endpoint.leave(lease)

    # what the endpoints say

    async def models(self, max_age_s: float = FRESH_S) -> tuple[ModelInfo, ...]:
        """The union of all endpoints' models, ordered by name. Raises the first error only if no endpoint answers."""
        answers, errors = await self._each(lambda endpoint: endpoint.models(max_age_s))
        if not answers and errors:
            raise errors[0]
        if not self._endpoints:
            raise NoEndpoint("No Ollama server is configured and the embedded engine is off.")
        return tuple(self.catalogue.listed(info for models in answers for info in models).values())

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
