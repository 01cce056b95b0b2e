"""The fleet: all endpoints, the choice among them, and their coming and going."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

from arena.errors import ArenaError, BadRequest, Busy, ModelNotFound, NoEndpoint, NoSuchEndpoint, Unreachable
from arena.fleet.balancer import Balancer
from arena.fleet.book import Book
from arena.fleet.breaker import is_failure
from arena.fleet.catalogue import Catalogue, Chain, ask, settled
from arena.fleet.connect import connect
from arena.fleet.endpoint import DESCRIBED_S, FRESH_S, Endpoint
from arena.fleet.health import IDLE_S
from arena.fleet.lease import Lease, Routing, StickyWord, Wanted
from arena.fleet.queue import Queue
from arena.fleet.spec import EndpointSpec, FleetSpec
from arena.fleet.sticky import Sticky
from arena.types import EndpointStatus, LoadedModel, ModelInfo

T = TypeVar("T")
Wait = Literal["full", "missing"]
"""Why there is no lease at once: every place is taken, or no endpoint is known to have the model."""

NONE_TRIED: frozenset[str] = frozenset()
_NO_MODEL: Chain = (("", ""),)
# In Olla's words, which its clients compare: who of those that have the model gets a request is no part of them.
_FOUND = Routing("strict", "routed", "model_found")
_ANY = Routing("strict", "routed", "any_endpoint")
_NAMED = Routing("strict", "routed", "endpoint_named")
_ALIASED = Routing("alias", "routed", "model_found")
_UNPROVEN = Routing("optimistic", "fallback", "model_not_found_fallback")
_PANIC = Routing("optimistic", "fallback", "all_unhealthy_fallback")


class Fleet:
    """All endpoints. It works as it is; `start()` adds probing, `aclose()` ends everything.

    `sticks`: do conversations stay where they were?
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint] = (),
        spec: FleetSpec | None = None,
        *,
        build: Callable[[EndpointSpec], Endpoint] = connect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`endpoints` come before those of `spec`, which `build` makes."""
        self.book = Book()
        self._build = build
        self._clock = clock
        self._watching = False
        self._used_s = clock()
        self._closing: set[asyncio.Task[None]] = set()
        self._retired: set[Endpoint] = set()
        self._endpoints: tuple[Endpoint, ...] = ()
        spec = spec or FleetSpec()
        self.queue = Queue(spec.queue, self._serve, clock)
        self._adopt(spec)
        for endpoint in (*endpoints, *map(build, spec.endpoints)):
            self.add(endpoint)

    def _adopt(self, spec: FleetSpec) -> None:
        """Everything that follows from `spec` but the endpoints; pins and whose turn it is begin anew if they must."""
        self.spec = spec
        self.catalogue = Catalogue(spec.aliases)
        self.balancer = Balancer(spec.strategy)
        self.sticky = Sticky(spec.sticky)
        self.queue.spec = spec.queue
        self.sticks = spec.sticks

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints, in the order of the settings."""
        return self._endpoints

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint called `name`. Raises BadRequest, and NoEndpoint where there is none at all."""
        for endpoint in self._endpoints:
            if endpoint.name == name:
                return endpoint
        if not self._endpoints:
            raise _nobody_at_all()
        names = ", ".join(endpoint.name for endpoint in self._endpoints)
        raise BadRequest(f"No endpoint is called {name!r}; there are {names}", code="unknown_endpoint")

    @property
    def default(self) -> Endpoint:
        """Where models are managed when nobody says where: the one that the settings name, else the first."""
        if self.spec.default_endpoint is not None:
            return self.endpoint(self.spec.default_endpoint)
        if not self._endpoints:
            raise _nobody_at_all()
        return self._endpoints[0]

    def usable(self, endpoint: Endpoint) -> bool:
        """Can it be given work now: up, neither being drained nor resting? An open breaker is no refusal."""
        return endpoint.health.up and not endpoint.draining and self._clock() >= endpoint.rests_until_s

    # leases

    def try_lease(self, wanted: Wanted, tried: frozenset[str] = NONE_TRIED) -> Lease | None:
        """A lease at once, or None where one would have to wait: for the endpoints to say what they have, or a place.

        `tried` are the endpoints that have failed this request already. Raises NoEndpoint where there is none (left)
        that could serve it, BadRequest for an endpoint's name that is none, and Busy with `retry_after_s` where all
        have asked for a rest.
        """
        found = self._pick(wanted, tried)
        return found if isinstance(found, Lease) else None

    def worth_another(self, error: ArenaError) -> bool:
        """Might another endpoint do better, where this one failed with `error` before its answer began?"""
        return is_failure(error, None) or getattr(error, "upstream_status", None) in self.spec.retry_on

    def elsewhere(self, lease: Lease) -> bool:
        """Could another endpoint take now what `lease` is for?"""
        wanted, now_s = lease.wanted, self._clock()
        if wanted.endpoint is not None:
            return False
        chain = _NO_MODEL if wanted.model is None else self.catalogue.chain(wanted.model)
        return any(
            (not key or key in endpoint.holds) and endpoint.has_room and endpoint.ready(now_s, key)
            for endpoint in self._able(wanted)
            if endpoint is not lease.endpoint and endpoint.name not in lease.tried
            for key, _ in chain
        )

    async def lease(self, wanted: Wanted, tried: frozenset[str] = NONE_TRIED) -> Lease:
        """A lease, after asking the endpoints or waiting for a place where that is needed.

        Raises ModelNotFound, NoEndpoint (none there, or none of that kind is left), BadRequest for an endpoint's name
        that is none, and Busy with `retry_after_s`.
        """
        found = self._pick(wanted, tried)
        if found == "missing":
            await self._ask(wanted, tried)
            found = self._pick(wanted, tried)
        if isinstance(found, Lease):
            return found
        began_s = self._clock()
        try:
            if found == "full":
                return await self.queue.wait(wanted, tried)
            raise _not_found(wanted.model)
        except ArenaError as error:
            if not tried:
                self.book.refuse(wanted, error, self._clock() - began_s)
            raise

    def _serve(self, wanted: Wanted, tried: frozenset[str]) -> Lease | None:
        """What the queue calls for one that waits; who waits for what has vanished meanwhile is told so."""
        found = self._pick(wanted, tried)
        if found == "missing" and all(endpoint.heard for endpoint in self._able(wanted)):
            raise _not_found(wanted.model)
        return found if isinstance(found, Lease) else None

    def _pick(self, wanted: Wanted, tried: frozenset[str]) -> Lease | Wait:
        """Choose. An alias stands for several models; the first that somebody can serve now is taken."""
        if wanted.endpoint is not None:
            return self._named_one(wanted, tried)
        now_s = self._clock()
        chain = _NO_MODEL if wanted.model is None else self.catalogue.chain(wanted.model)
        kinds = wanted.kinds
        sole = len(self._endpoints) == 1 and len(chain) == 1  # it says itself whether it has the model
        full = False
        troubled: list[tuple[Endpoint, str, str]] = []
        for key, name in chain:
            candidates: list[Endpoint] = []
            for endpoint in self._endpoints:
                if (
                    endpoint.name in tried
                    or (kinds is not None and endpoint.kind not in kinds)
                    or not (not key or key in endpoint.holds or (sole and endpoint.spec.shows(key)))
                ):
                    continue
                if not endpoint.ready(now_s, key):
                    troubled.append((endpoint, key, name))
                elif endpoint.has_room:
                    candidates.append(endpoint)
                else:
                    full = True
            if candidates:
                return self._choose(candidates, key, name, wanted, tried, now_s)
        if full:
            return "full"
        if troubled:
            return self._least_bad(troubled, wanted, tried, now_s)
        return self._nobody(chain, wanted, tried)

    def _choose(
        self, candidates: list[Endpoint], key: str, name: str, wanted: Wanted, tried: frozenset[str], now_s: float
    ) -> Lease:
        """One of those that are ready and have room."""
        endpoint: Endpoint | None = None
        word: StickyWord = "disabled"
        pin = (wanted.conversation, key) if self.sticks and wanted.conversation is not None else None
        if pin is not None:
            endpoint, word = self.sticky.find(pin, candidates, now_s)
        if endpoint is None:
            endpoint = self.balancer.choose(candidates, key)
        if pin is not None:
            self.sticky.pin(pin, endpoint, now_s)
        lease = self._give(endpoint, key, name, wanted, tried, now_s)
        lease.sticky = word
        return lease

    def _give(
        self,
        endpoint: Endpoint,
        key: str,
        name: str,
        wanted: Wanted,
        tried: frozenset[str],
        now_s: float,
        routing: Routing | None = None,
    ) -> Lease:
        if now_s - self._used_s > 1.0:
            self.wake()
        info = endpoint.holds.get(key)
        if routing is None:
            routing = _FOUND
            if not key:
                routing = _ANY
            elif info is None:
                routing = _UNPROVEN
            elif self.catalogue.is_alias(wanted.model):
                routing = _ALIASED
        model = name if info is None else info.name
        return Lease(endpoint, model, key, wanted, tried, routing, now_s, self._ended)

    def _named_one(self, wanted: Wanted, tried: frozenset[str]) -> Lease | Wait:
        """The endpoint that the request names, whatever its state: its own answer says best what is wrong."""
        assert wanted.endpoint is not None
        endpoint = self.endpoint(wanted.endpoint)
        if wanted.kinds is not None and endpoint.kind not in wanted.kinds:
            raise NoSuchEndpoint(f"{endpoint.name} is of type {endpoint.kind}, which cannot serve this request.")
        if endpoint.name in tried:
            raise NoEndpoint(f"{endpoint.name} has failed, and the request is for no other endpoint.")
        if not endpoint.has_room:
            return "full"
        chain = _NO_MODEL if wanted.model is None else self.catalogue.chain(wanted.model)
        key, name = next((link for link in chain if link[0] in endpoint.holds), chain[0])
        if key and key not in endpoint.holds and not endpoint.spec.shows(key):
            raise self._refused(wanted, tried, _not_found(wanted.model))
        return self._give(endpoint, key, name, wanted, tried, self._clock(), _NAMED)

    def _least_bad(
        self, troubled: list[tuple[Endpoint, str, str]], wanted: Wanted, tried: frozenset[str], now_s: float
    ) -> Lease | Wait:
        """None is as it should be. Better the least bad one than a refusal; but a rest that was asked for is kept."""
        serving = [link for link in troubled if not link[0].draining]
        awake = [link for link in serving if now_s >= link[0].rested_s(link[1])]
        if not serving:
            raise self._refused(wanted, tried, NoEndpoint("Every endpoint that could serve this is being drained."))
        if not awake:
            wait_s = min(endpoint.rested_s(key) for endpoint, key, _ in serving) - now_s
            text = "Every endpoint that could serve this asks to be left alone for a while."
            raise self._refused(wanted, tried, Busy(text, code="resting", retry_after_s=wait_s))
        roomy = [link for link in awake if link[0].has_room]
        if not roomy:
            return "full"
        endpoint, key, name = min(
            roomy,
            key=lambda link: (link[0].health.state == "offline", link[0].breaker.open_until_s, link[0].in_flight),
        )
        return self._give(endpoint, key, name, wanted, tried, now_s, _PANIC)

    def _nobody(self, chain: Chain, wanted: Wanted, tried: frozenset[str]) -> Wait:
        """Nobody can serve it: is that for sure, or only because nobody is known to have the model?"""
        if not self._endpoints:
            raise self._refused(wanted, tried, _nobody_at_all())
        able = self._able(wanted)
        if not able:
            kinds = " or ".join(sorted(wanted.kinds or ()))
            text = f"Only an endpoint of type {kinds} can serve this, and there is none in the fleet."
            raise self._refused(wanted, tried, NoSuchEndpoint(text))
        keys = [key for key, _ in chain]
        if wanted.model is None or any(e.name in tried and not e.holds.keys().isdisjoint(keys) for e in able):
            raise self._refused(wanted, tried, NoEndpoint("Every endpoint that could serve this has failed."))
        if len(self._endpoints) == 1 and tried:
            raise self._refused(wanted, tried, NoEndpoint("The only endpoint has failed."))
        return "missing"

    def _able(self, wanted: Wanted) -> list[Endpoint]:
        """The endpoints whose type can serve it."""
        return [e for e in self._endpoints if wanted.kinds is None or e.kind in wanted.kinds]

    def _refused(self, wanted: Wanted, tried: frozenset[str], error: ArenaError) -> ArenaError:
        if not tried:
            self.book.refuse(wanted, error)
        return error

    async def _ask(self, wanted: Wanted, tried: frozenset[str]) -> None:
        """Have the endpoints asked which models they have; raises why if none answers."""
        asked = [
            endpoint for endpoint in self._able(wanted) if not (self._watching and endpoint.health.state == "offline")
        ]
        errors = await ask(asked)
        if len(errors) == len(asked):  # also where nobody was asked, since all are known to be down
            raise self._refused(wanted, tried, _silent(errors))

    def _ended(self, lease: Lease) -> None:
        """A lease is closed: count it, and give its place to whoever waits."""
        endpoint = lease.endpoint
        now_s = endpoint.leave(lease)
        self.book.enter(lease, now_s)
        if lease.outcome == "succeeded":
            self.queue.served(now_s - lease.began_s)
        if self.queue.waiting:
            self.queue.offer()
        if endpoint in self._retired and not endpoint.in_flight:
            self._retired.discard(endpoint)
            self._close_soon(endpoint)

    # coming and going

    def start(self) -> None:
        """Probe every endpoint from now on, also those that are added later; rarely while nobody uses the fleet."""
        self._watching = True
        for endpoint in self._endpoints:
            endpoint.watch(self._idle)

    def wake(self) -> None:
        """Somebody wants to know how things stand: probe at full pace for the next while."""
        if self._idle():
            for endpoint in self._endpoints:
                endpoint.hurry()
        self._used_s = self._clock()

    def _idle(self) -> bool:
        return self._clock() - self._used_s > IDLE_S

    def add(self, endpoint: Endpoint) -> None:
        """Take one more endpoint into service (the embedded engine joins when it is ready)."""
        self._endpoints = (*self._endpoints, endpoint)
        endpoint.on_ready = self.queue.offer
        if self._watching:
            endpoint.watch(self._idle)
        self.queue.offer()

    def apply(self, spec: FleetSpec) -> None:
        """Go on under `spec`. Running answers go on, on endpoints that are gone too; those close after the last.

        Endpoints are known again by their names; one that is reached in another way now is a new one. Those that
        no specification has named (the embedded engine) stay, behind the others. Raises ValueError for an address that
        is none, and then nothing has changed.
        """
        named = {endpoint.name for endpoint in self.spec.endpoints}
        before = {endpoint.name: endpoint for endpoint in self._endpoints}
        after: list[Endpoint] = []
        fresh: list[Endpoint] = []
        for item in spec.endpoints:
            old = before.get(item.name)
            if old is not None and old.spec.same_server(item):
                after.append(old)
            else:
                fresh.append(self._build(item))
                after.append(fresh[-1])
        wanted = {item.name for item in spec.endpoints}
        stay = [e for e in self._endpoints if e.name not in named and e.name not in wanted]
        for endpoint, item in zip(after, spec.endpoints, strict=True):
            endpoint.adopt(item)
        gone = [endpoint for endpoint in self._endpoints if endpoint not in after and endpoint not in stay]
        self._adopt_changes(spec)
        self._endpoints = (*after, *stay)  # as at a start: whoever comes first is the default
        for endpoint in fresh:
            endpoint.on_ready = self.queue.offer
            if self._watching:
                endpoint.watch(self._idle)
        for endpoint in gone:
            self._retire(endpoint)
        self.queue.offer()

    def _adopt_changes(self, spec: FleetSpec) -> None:
        sticky, balancer, before = self.sticky, self.balancer, self.spec
        self._adopt(spec)
        if spec.sticky == before.sticky:
            self.sticky = sticky
        if spec.strategy == before.strategy:
            self.balancer = balancer

    def drain(self, name: str, on: bool) -> None:
        """Give `name` no more work, or give it work again; what runs there goes on. Raises BadRequest."""
        endpoint = self.endpoint(name)
        endpoint.draining = on
        if on:
            self.sticky.forget(name)
        self.queue.offer()

    def weight(self, name: str, value: float) -> None:
        """Change the share of `name` until the next change of its specification. Raises BadRequest."""
        self.endpoint(name).weight = value

    async def aclose(self) -> None:
        """End all probes and connections."""
        self._watching = False
        for endpoint in (*self._endpoints, *self._retired):
            await endpoint.aclose()
        if self._closing:
            await asyncio.wait(tuple(self._closing))

    def _retire(self, endpoint: Endpoint) -> None:
        """It gets no more work, and ends with its last answer."""
        endpoint.draining = True
        self.sticky.forget(endpoint.name)
        self.balancer.forget(endpoint.name)
        self.book.settle()
        if endpoint.in_flight:
            self._retired.add(endpoint)
        else:
            self._close_soon(endpoint)

    def _close_soon(self, endpoint: Endpoint) -> None:
        task = asyncio.create_task(endpoint.aclose(), name=f"close {endpoint.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # what the endpoints say

    async def models(self, max_age_s: float = FRESH_S) -> tuple[ModelInfo, ...]:
        """The union of all endpoints' models and the aliases, ordered by name.

        Raises the first error only if no endpoint answers.
        """
        answers, errors = await self._each(lambda endpoint: endpoint.models(max_age_s))
        if not answers and errors:
            raise errors[0]
        if not self._endpoints:
            raise _nobody_at_all()
        return tuple(self.catalogue.listed(info for models in answers for info in models).values())

    async def loaded(self, max_age_s: float = FRESH_S) -> tuple[LoadedModel, ...]:
        """Everything in memory on the endpoints that answer."""
        answers, _ = await self._each(lambda endpoint: endpoint.loaded(max_age_s))
        return tuple(item for items in answers for item in items)

    async def statuses(self) -> tuple[EndpointStatus, ...]:
        """One status per endpoint, in order."""
        self.wake()
        answers, _ = await self._each(lambda endpoint: endpoint.status())
        return tuple(answers)

    async def holder(self, model: str, endpoint: str | None = None) -> Endpoint:
        """The endpoint to ask for `model`: the named one, the only one, or the least busy of those that hold it.

        Raises BadRequest, NoEndpoint, ModelNotFound, or the endpoints' own error when none answers.
        """
        if endpoint is not None:
            return self.endpoint(endpoint)
        if len(self._endpoints) == 1:
            return self._endpoints[0]  # it says itself whether it has the model
        keys = [key for key, _ in self.catalogue.chain(model)]
        for max_age_s in (DESCRIBED_S, 0.0):
            await self.models(max_age_s)
            knowing = [candidate for key in keys for candidate in self._endpoints if key in candidate.holds]
            if holders := [candidate for candidate in knowing if candidate.error is None]:
                return min(holders, key=lambda endpoint: (endpoint.in_flight, endpoint.warm.isdisjoint(keys)))
        if knowing:
            return knowing[0]  # it had the model when it last answered, and says itself what is wrong now
        raise _not_found(model)

    async def describe(self, model: str, endpoint: str | None = None) -> ModelInfo:
        """`model`, or what it is an alias of, with its capabilities. Raises as `holder()` does."""
        holder = await self.holder(model, endpoint)
        name = next((name for key, name in self.catalogue.chain(model) if key in holder.holds), model)
        return await holder.describe(name)

    async def _each(self, ask: Callable[[Endpoint], Coroutine[Any, Any, T]]) -> tuple[list[T], list[ArenaError]]:
        """Ask all endpoints at once; a silent one delays the others' answers no longer than its own time-out."""
        return await settled(ask(endpoint) for endpoint in self._endpoints)


def _silent(errors: list[ArenaError]) -> ArenaError:
    """Nobody who could serve a request answers. That is not to say that nobody has the model."""
    if errors and not isinstance(errors[0], Unreachable):
        return errors[0]
    why = f": {errors[0].message}" if errors else ""
    return NoEndpoint(f"Every endpoint that could serve this is down{why}", code="model_unavailable")


def _not_found(model: str | None) -> ModelNotFound:
    return ModelNotFound(f"model '{model}' not found, try pulling it first")


def _nobody_at_all() -> NoEndpoint:
    return NoEndpoint("No Ollama server is configured and the embedded engine is off.")
