"""One server of the fleet, with what it last said about itself and what runs on it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from arena.errors import ArenaError, Busy, ModelNotFound, Unreachable, UpstreamTimeout
from arena.fleet.breaker import Breaker, is_failure
from arena.fleet.frozen import give_up
from arena.fleet.health import DOWN_CHECK_S, IDLE_CHECK_S, Health, HealthState, Prober
from arena.fleet.lease import Lease
from arena.fleet.spec import EndpointSpec
from arena.names import canonical
from arena.ollama import OllamaClient
from arena.openai import COMMON, OpenAIClient
from arena.types import NATIVE, EndpointKind, EndpointStatus, LoadedModel, ModelInfo
from arena.wire import Pool

log = logging.getLogger("arena.fleet")

FRESH_S = 5.0
"""Age in seconds at which a remembered list of models is asked for again."""
DESCRIBED_S = 60.0
"""The same where only a model's fixed properties are wanted."""
LISTED_S = 30.0
"""The same for the prober: what has changed unseen is noticed after this long, or when somebody misses it."""
MAX_VERSION = 64
"""Characters of a server's version that are kept."""

Client: TypeAlias = OllamaClient | OpenAIClient


class Endpoint:
    """One server. `client` speaks its API; `pool` carries bytes to it that somebody else has made.

    Until `rests_until_s`, on its clock, it asks to be left alone altogether.
    `in_flight` requests run now. `holds` has its models by canonical name, `warm` the names of those in its memory, by
    its own word or because they have just answered; `heard` turns True when it has told its models once.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        kind: EndpointKind = "ollama",
        clock: Callable[[], float] = time.monotonic,
        *,
        spec: EndpointSpec | None = None,
        pool: Pool | None = None,
    ) -> None:
        """`pool` is the client's own, where it shares it; otherwise one is made when it is needed."""
        self.name = name
        self.client = client
        self.kind = kind
        self.version: str | None = None
        self.error: str | None = None
        self.spec = spec or EndpointSpec(name=name, url=client.url, type=kind)
        self.weight = self.spec.weight
        self.draining = False
        self.in_flight = 0
        self.health = Health(clock, self.spec.up_after, self.spec.down_after)
        self.breaker = Breaker(clock)
        self.rests_until_s = 0.0
        self.resting: dict[str, float] = {}
        """Until when it asks to be left alone with a model, by canonical name."""
        self.on_ready: Callable[[], object] = lambda: None
        """Called when work may come again, after there was none to be had, and when there are other models."""
        self.takes: dict[str, bool] = {}
        """Which routes and keys of a body it was found to know (or not), until it is started anew."""
        self.holds: dict[str, ModelInfo] = {}
        self.warm: set[str] = set()
        self.heard = False
        self._clock = clock
        self._pool = pool
        self._own_pool: Pool | None = None
        self._leases: set[Lease] = set()
        self._per_model: dict[str, int] = {}
        self._listed: tuple[ModelInfo, ...] = ()
        self._models: tuple[ModelInfo, ...] = ()
        self._contexts: dict[str, int | None] = {}
        self._loaded: tuple[LoadedModel, ...] = ()
        self._answered: dict[str, float] = {}
        self._shown: dict[str, tuple[str, ...]] = {}
        self._asked_s: float | None = None
        self._listed_s: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._prober: Prober | None = None
        self._idle: Callable[[], bool] = lambda: False

    @property
    def native(self) -> bool:
        """Does it speak Ollama's own API?"""
        return self.kind in NATIVE

    @property
    def url(self) -> str:
        """The base url, without credentials."""
        return self.client.url

    @property
    def pool(self) -> Pool:
        """The connections, for requests that are handed on as they came; they carry the endpoint's credentials."""
        if self._pool is None:
            self._pool = self._own_pool = Pool(self.url, name=self.name, timeouts=self.spec.timeouts)
        return self._pool

    def adopt(self, spec: EndpointSpec) -> None:
        """Go on under a changed specification of the same server."""
        if spec.weight != self.spec.weight:
            self.weight = spec.weight
        self.spec = spec
        self.health.limits(spec.up_after, spec.down_after)
        if self.heard:
            self._take_models(self._listed)
        self.hurry()

    @property
    def in_flight_per_model(self) -> dict[str, int]:
        """Requests running now, by canonical name."""
        return {key: count for key, count in self._per_model.items() if key}

    @property
    def state(self) -> HealthState:
        """Its state of health; "draining" for as long as it is being emptied, "resting" while it asks for no work."""
        if self.draining:
            return "draining"
        return "resting" if self.health.up and self._clock() < self.rests_until_s else self.health.state

    @property
    def has_room(self) -> bool:
        """Is it below its limit of requests at a time?"""
        limit = self.spec.max_in_flight
        return limit is None or self.in_flight < limit

    def ready(self, now_s: float, key: str = "") -> bool:
        """May it get work for the model called `key`: up, not draining, not resting, its breaker not open?"""
        passes = self.breaker.calm or self.breaker.admits(now_s)
        if not passes or not self.health.up or self.draining or now_s < self.rests_until_s:
            return False
        return not self.resting or now_s >= self.resting.get(key, 0.0)

    def rested_s(self, key: str) -> float:
        """When it may be asked for the model called `key` again, on its clock."""
        return max(self.rests_until_s, self.resting.get(key, 0.0))

    @property
    def rests(self) -> dict[str, float]:
        """Seconds for which it still asks to be left alone with a model, by canonical name ("": with all of them)."""
        now_s = self._clock()
        until = {"": self.rests_until_s, **self.resting}
        return {key: until_s - now_s for key, until_s in until.items() if until_s > now_s}

    def may_be_slow(self) -> bool:
        """Is it believed to be there, so that a long silence means that it works?"""
        return self.health.up

    def keys(self, model: str) -> frozenset[str]:
        """The optional keys of OpenAI's chat that it may be sent for a model in its own spelling."""
        keys = self.client.keys(model) if isinstance(self.client, OpenAIClient) else COMMON
        return keys - {key for key, taken in self.takes.items() if not taken}

    def resident(self, key: str) -> bool:
        """Is the model with this canonical name in its memory?"""
        return key in self.warm

    # what runs on it

    def enter(self, lease: Lease) -> int:
        """Count a lease in, and notice overlap; returns the breaker's ticket."""
        leases = self._leases
        if leases:
            lease.contended = True
            if len(leases) == 1:  # where there are more, they have disturbed each other already
                next(iter(leases)).contended = True
        leases.add(lease)
        self.in_flight = len(leases)
        self._per_model[lease.key] = self._per_model.get(lease.key, 0) + 1
        breaker = self.breaker
        return breaker.ticket if breaker.calm else breaker.enter(lease.began_s)

    def began(self, lease: Lease) -> float:
        """A good answer has begun: its model is in memory. Returns the time."""
        now_s = self._clock()
        self._has_answered(lease.key, now_s)
        if not self.breaker.calm:
            self.breaker.began(lease.ticket)
        return now_s

    def leave(self, lease: Lease) -> float:
        """Count a lease out and draw the conclusions from how it went; returns the time."""
        self._leases.discard(lease)
        self.in_flight = len(self._leases)
        key = lease.key
        if left := self._per_model[key] - 1:
            self._per_model[key] = left
        else:
            del self._per_model[key]
        now_s = self._clock()
        if lease.outcome == "succeeded":
            if not self.breaker.calm:
                self.breaker.good(lease.ticket)
            self._has_answered(key, now_s)
            if not self.health.up:
                self.health.alive()
                self.on_ready()
        elif lease.outcome == "left":
            self.breaker.left(lease.ticket)
        else:
            self._failed(lease, now_s)
        return now_s

    def _has_answered(self, key: str, now_s: float) -> None:
        if key:
            self._answered[key] = now_s
            self.warm.add(key)

    def _failed(self, lease: Lease, now_s: float) -> None:
        error = lease.error
        status = lease.status or getattr(error, "upstream_status", None)
        if (status == 404 or isinstance(error, ModelNotFound)) and lease.key in self.holds:
            self.forget()
            self.freshen()
        wait_s = lease.retry_after_s or (error.retry_after_s if isinstance(error, Busy) else None)
        if wait_s is not None:
            limits_one = lease.key != "" and (status == 429 or getattr(error, "code", "") == "rate_limited")
            self._rest(lease.key if limits_one else "", now_s, now_s + wait_s)
        if is_failure(error, status):
            self.breaker.bad(lease.ticket)
        elif status is not None and status < 500:
            self.breaker.good(lease.ticket)
        else:
            self.breaker.left(lease.ticket)
        if isinstance(error, Unreachable):
            self._contexts, self._answered, self.warm = {}, {}, set()
            self.health.refused()
            self.hurry()

    def _rest(self, key: str, now_s: float, until_s: float) -> None:
        """Leave it alone: with one model, whose account or limit is used up, or ("") altogether."""
        until_s = max(until_s, self.resting.get(key, 0.0) if key else self.rests_until_s)
        if key:
            over = [other for other, ended_s in self.resting.items() if ended_s <= now_s]
            for other in over:
                del self.resting[other]
            self.resting[key] = until_s
        else:
            self.rests_until_s = until_s

    # what it says about itself

    async def models(self, max_age_s: float = FRESH_S) -> tuple[ModelInfo, ...]:
        """The installed models, remembered for `max_age_s` seconds. Raises UpstreamError for a silent endpoint."""
        await self._refresh(max_age_s)
        return self._models

    async def loaded(self, max_age_s: float = FRESH_S) -> tuple[LoadedModel, ...]:
        """The models in memory, remembered for `max_age_s` seconds."""
        await self._refresh(max_age_s)
        return self._loaded

    @property
    def in_memory(self) -> tuple[LoadedModel, ...]:
        """What was in its memory when it last told; never asks."""
        return self._loaded

    def known(self, model: str) -> ModelInfo | None:
        """What is remembered of `model`; never asks."""
        return self.holds.get(canonical(model))

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
            self._ask_once()

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
            asking = self._ask_once()
            await asyncio.wait({asking})
            if asking.cancelled():  # by `aclose()`: whoever asked is not cancelled with it
                raise Unreachable(f"{self.name} is no longer in the fleet", endpoint=self.name)
            asking.result()

    def _old(self, max_age_s: float) -> bool:
        return self._asked_s is None or self._clock() - self._asked_s >= max_age_s

    def _ask_once(self) -> asyncio.Task[None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask(), name=f"refresh {self.name}")
            self._asking.add(self._refreshing)
            self._refreshing.add_done_callback(self._told)
        return self._refreshing

    def _told(self, task: asyncio.Task[None]) -> None:
        """A question may fail unheard, where nobody waits for it (any more): the endpoint's status keeps the reason."""
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()

    async def _ask(self) -> None:
        self._asked_s = None
        began_s = self._clock()
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
        self._take_loaded(loaded, began_s)
        self._take_models(models)
        self._listed_s = self._clock()
        self._asked_s = None if outdated else self._clock()

    def _take_models(self, models: tuple[ModelInfo, ...]) -> None:
        self._listed = models
        shown = [info for info in models if self.spec.shows(canonical(info.name))]
        self._models = tuple(
            msgspec.structs.replace(
                info, endpoints=(self.name,), loaded_on=(self.name,) if canonical(info.name) in self._contexts else ()
            )
            for info in shown
        )
        before, self.holds = self.holds, {canonical(info.name): info for info in self._models}
        news = not self.heard or before.keys() != self.holds.keys()
        self.heard = True
        if news:
            self.on_ready()

    def _take_loaded(self, loaded: tuple[LoadedModel, ...], asked_s: float) -> None:
        """What is in memory by its own word, as of `asked_s`; what has answered since then is there too."""
        self._loaded = loaded
        self._contexts = {canonical(item.name): item.context_length for item in loaded}
        self._answered = {key: at_s for key, at_s in self._answered.items() if at_s >= asked_s}
        self.warm = self._contexts.keys() | self._answered.keys()

    def _note(self, error: ArenaError | None) -> None:
        """Keep what is wrong with the endpoint; the log tells of each change once, however often it is asked."""
        before, self.error = self.error, None if error is None else error.message
        if error is None:
            if self.health.good():
                self._is_back()
        else:
            self.health.bad(error)
        if error is not None and error.message != before:
            fields = {"endpoint": self.name, "code": error.code}
            log.warning("an endpoint does not answer: %s", error.message, extra=fields)
        elif error is None and before is not None:
            log.info("an endpoint answers again", extra={"endpoint": self.name})

    def _is_back(self) -> None:
        """It was down and answers: it was restarted, so nothing of what it held against itself counts any more."""
        self.breaker.reset()
        self.rests_until_s = 0.0
        self.resting = {}
        self.takes = {}
        self._listed_s = None
        self.on_ready()

    async def _loaded_now(self) -> tuple[LoadedModel, ...]:
        try:
            return await self._placed(self.client)
        except ArenaError:
            return ()  # very old servers have no /api/ps; not knowing is not an error

    async def _placed(self, client: Client) -> tuple[LoadedModel, ...]:
        return tuple(msgspec.structs.replace(item, endpoint=self.name) for item in await client.ps())

    async def _version_now(self) -> str | None:
        try:
            return (await self.client.version())[:MAX_VERSION]
        except ArenaError:
            return None

    # probing

    def watch(self, idle: Callable[[], bool] = lambda: False) -> None:
        """Begin to probe it at its interval, until `aclose()`; rarely while `idle` says that nobody wants it."""
        self._idle = idle
        if self._prober is None and self.spec.check_interval_s > 0:
            self._prober = Prober(self.name, self.probe, self._delay_s, at_once=not self.heard)

    def hurry(self) -> None:
        """Probe it now, where it is probed at all."""
        if self._prober is not None:
            self._prober.hurry()

    async def probe(self) -> None:
        """Is it up, and what is in its memory? Every LISTED_S, and when it has come back, also which models it has."""
        began_s, since_s = self._clock(), asyncio.get_running_loop().time()
        old = self._listed_s is None or began_s - self._listed_s >= LISTED_S
        silent = False
        try:
            async with asyncio.timeout(self.spec.check_timeout_s):
                if old or not self.health.up or isinstance(self.client, OpenAIClient):
                    await self._refresh(0.0)
                else:
                    await self._look(self.client, began_s)
        except ArenaError as error:  # noted already
            silent = isinstance(error, Unreachable | UpstreamTimeout)
        except TimeoutError:
            silent = True
            text = f"{self.name} did not answer a probe in {self.spec.check_timeout_s:g} s"
            self._note(UpstreamTimeout(text, endpoint=self.name))
        now_s = self._clock()
        self.health.checked(now_s, now_s - began_s, now_s + self._delay_s())
        if silent and not self.health.up:
            await give_up(self, since_s)

    async def _look(self, client: OllamaClient, began_s: float) -> None:
        """What is in memory; where that is not told, its version, so that only silence counts as silence."""
        try:
            try:
                self._take_loaded(await self._placed(client), began_s)
            except (Unreachable, UpstreamTimeout):
                raise
            except ArenaError:
                await client.version()
        except ArenaError as error:
            self._note(error)
            raise
        self._note(None)

    def _delay_s(self) -> float:
        """Seconds until the next probe."""
        interval_s = self.spec.check_interval_s
        if self._idle() and not self.in_flight:
            return max(interval_s, IDLE_CHECK_S)
        return interval_s if self.health.up else min(interval_s, DOWN_CHECK_S)

    async def aclose(self) -> None:
        """End its probes and its connections."""
        if self._prober is not None:
            await self._prober.aclose()
        asking = tuple(self._asking)
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
        if self._own_pool is not None:
            await self._own_pool.aclose()
        await self.client.aclose()
