"""One prompt to several model instances: each with its own history, its own pace, its own end."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakSet

import msgspec

from arena import __version__
from arena.errors import ArenaError, BadRequest, ShuttingDown
from arena.fleet import Endpoint, Fleet, Lease, Usage, Wanted
from arena.log import warn_failed
from arena.names import canonical
from arena.streaming import FanOut, Lane, Outlet, Transcript
from arena.types import ChatMessage, ChatRequest, Manifest, ModelInfo, Options, Order, Started
from arena.upstream import StreamedAnswer

log = logging.getLogger(__name__)


class Run(FanOut):
    """One send: all its answers. Whoever opens `events()`, or pushes, closes it, which frees every endpoint at once."""

    def __init__(self, requests: Sequence[ChatRequest], lanes: dict[str, Lane], at_once: int | None) -> None:
        super().__init__(lanes, at_once=at_once)
        self.requests = tuple(requests)

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The ids of the instances, in the order of the request."""
        return tuple(request.instance.id for request in self.requests)

    async def transcript(self) -> Transcript:
        """Wait for all answers and fold them. Cancelling this stops them."""
        transcript = Transcript(self.instance_ids)
        async with aclosing(self.events()) as events:
            async for batch in events:
                transcript.apply(batch)
        return transcript


class _Asking(NamedTuple):
    """A request that was sent under a lease, or why it could not be."""

    request: ChatRequest
    lease: Lease
    answer: StreamedAnswer | ArenaError


class Compare:
    """Starts runs and knows which are under way."""

    def __init__(self, fleet: Fleet, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._fleet = fleet
        self._now = now
        self._runs: WeakSet[Run] = WeakSet()  # one that nobody ever reads must not stay for ever
        self._draining = False

    @property
    def running(self) -> int:
        """Answers under way."""
        return sum(len(run.running) for run in self._runs)

    def start(
        self, requests: Sequence[ChatRequest], *, order: Order = "together", caller: str | bytes = "", key: str = ""
    ) -> Run:
        """Ask every instance; `one_after_another` runs one at a time, so that their figures do not disturb each other.

        The queue of a busy endpoint is fair between `caller`s; tokens are counted to the named `key`.
        Raises BadRequest for no instance, a repeated id or an empty history, and ShuttingDown while the server stops.
        Nothing runs before the first read of the run's events, or its `push()`.
        """
        if self._draining:
            raise ShuttingDown("The server is shutting down.")
        if not requests:
            raise BadRequest("No models selected")
        lanes: dict[str, Lane] = {}
        for request in requests:
            if request.instance.id in lanes:
                raise BadRequest(f"Duplicate model instance detected: {request.instance.id}")
            if not request.messages:
                raise BadRequest("No messages provided")
            instance = request.instance
            wanted = Wanted(instance.model, instance.endpoint, caller, key=key, route="compare")
            lanes[instance.id] = partial(self._answer, request, wanted)
        run = Run(requests, lanes, 1 if order == "one_after_another" else None)
        self._runs.add(run)
        return run

    def drain(self) -> None:
        """Refuse new runs and end those under way with `server_shutting_down`, their text kept."""
        self._draining = True
        for run in tuple(self._runs):
            run.stop(reason=ShuttingDown("The server is shutting down."))

    def _answer(self, request: ChatRequest, wanted: Wanted, outlet: Outlet) -> Coroutine[Any, Any, None]:
        """The lane of one instance. Where the endpoint is known the request goes out at once, before the first wait."""
        asking: _Asking | ArenaError | None = None
        try:
            if lease := self._fleet.try_lease(wanted):
                asking = _ask(request, lease, outlet, self.manifest)
        except ArenaError as error:
            asking = error
        return self._noted_answer(request, wanted, asking, outlet)

    async def _noted_answer(
        self, request: ChatRequest, wanted: Wanted, asking: _Asking | ArenaError | None, outlet: Outlet
    ) -> None:
        """Answer; a failure is told in one line of the log, and to the one who asked."""
        began_s, tried = time.monotonic(), frozenset[str]()
        while True:
            try:
                if isinstance(asking, ArenaError):
                    raise asking
                if asking is None:
                    asking = _ask(request, await self._fleet.lease(wanted, tried), outlet, self.manifest)
                await self._end_of(asking, outlet)
                return
            except ArenaError as error:
                lease = asking.lease if isinstance(asking, _Asking) else None
                where = {} if lease is None else {"endpoint": lease.endpoint.name}
                warn_failed(log, "an answer", error, began_s, model=request.instance.model, **where)
                following = None if lease is None else self._elsewhere(wanted, lease, error, tried, outlet)
                if following is None or lease is None:
                    raise
                tried |= {lease.endpoint.name}
                outlet.free()
                asking = _ask(request, following, outlet, self.manifest)

    async def _end_of(self, asking: _Asking, outlet: Outlet) -> None:
        """Wait for the end of an answer and tell its lease about it."""
        _, lease, answer = asking
        endpoint = lease.endpoint
        if isinstance(answer, ArenaError):
            raise answer
        outlet.open()
        if answer.call is not None:
            answer.call.elsewhere = partial(self._fleet.elsewhere, lease)
        endpoint.freshen()
        try:
            await answer.result()
        except ArenaError as error:
            lease.failed(error)
            raise
        lease.succeeded(_usage(lease, outlet, answer.pieces))
        endpoint.freshen()  # the model is in memory now: the next manifest tells with which context

    def _elsewhere(
        self, wanted: Wanted, lease: Lease, error: ArenaError, tried: frozenset[str], outlet: Outlet
    ) -> Lease | None:
        """A lease on another endpoint, where this one has failed before its first token and another can take over."""
        if wanted.endpoint is not None or outlet.metrics_so_far().ttft_s is not None:
            return None
        if not self._fleet.worth_another(error):
            return None
        try:
            return self._fleet.try_lease(wanted, tried | {lease.endpoint.name})
        except ArenaError:
            return None

    def manifest(self, request: ChatRequest, endpoint: Endpoint) -> Manifest:
        """What is known about this run of `request` on `endpoint`, without asking anyone."""
        instance = endpoint.client.told(request.instance)
        sent = instance.options.sent()
        info = endpoint.known(instance.model)
        return Manifest(
            model=instance.model,
            endpoint=endpoint.name,
            endpoint_kind=endpoint.kind,
            endpoint_version=endpoint.version,
            digest=(info.digest or None) if info else None,
            quantization=(info.quantization or None) if info else None,
            parameter_size=(info.parameter_size or None) if info else None,
            family=(info.family or None) if info else None,
            options_sent=sent,
            options_left_default=tuple(name for name in Options.__struct_fields__ if name not in sent),
            think=instance.think,
            seed=instance.options.seed,
            context_length=_context(instance.options.num_ctx, info, endpoint.context_length(instance.model)),
            prompt_sha256=prompt_hash(instance.system, request.messages),
            app_version=__version__,
            started_at=self._now().isoformat(timespec="milliseconds"),
        )


def _ask(
    request: ChatRequest, lease: Lease, outlet: Outlet, manifest: Callable[[ChatRequest, Endpoint], Manifest]
) -> _Asking:
    """Send `request`; whenever the lane ends, the call is cut and the lease is given back."""
    instance = request.instance
    if lease.model != instance.model and (not lease.endpoint.native or lease.key != canonical(instance.model)):
        instance = msgspec.structs.replace(instance, model=lease.model)
        request = msgspec.structs.replace(request, instance=instance)
    outlet.release = lease.close
    # an answer may be there before the lane's first step
    outlet.opening = lambda: Started(request.instance.id, manifest(request, lease.endpoint))
    try:
        answer = lease.endpoint.client.ask(request, outlet, contended=lambda: lease.contended)
    except ArenaError as error:
        outlet.opening = None
        return _Asking(request, lease, error)

    def release() -> None:
        answer.close()
        if lease.usage is None and answer.pieces:  # it was stopped, or broke off: its words were work all the same
            lease.usage = Usage(completion_tokens=answer.pieces, estimated=True)
        lease.close()

    outlet.release = release
    return _Asking(request, lease, answer)


def _usage(lease: Lease, outlet: Outlet, pieces: int) -> Usage | None:
    """What the fleet's books keep of a finished answer; where nobody tells its tokens, they are about its `pieces`."""
    if outlet.end is None:
        return None
    metrics = outlet.end.metrics
    if metrics.ttft_s is not None:
        lease.first_s = lease.began_s + metrics.ttft_s
    tokens, spent_s = pieces if metrics.tokens is None else metrics.tokens, metrics.duration_s
    return Usage(
        prompt_tokens=metrics.prompt_tokens or 0,
        completion_tokens=tokens,
        load_s=metrics.load_s,
        prompt_s=metrics.prompt_s,
        eval_s=spent_s,
        gap_s=spent_s / tokens if spent_s is not None and tokens else None,
        estimated=metrics.tokens is None,
    )


def _context(asked: int | None, info: ModelInfo | None, loaded: int | None) -> int | None:
    """The context an answer runs with: the one asked for, but no server gives more than the model was trained for."""
    if asked is None:
        return loaded
    return min(asked, info.context_length) if info is not None and info.context_length else asked


def prompt_hash(system: str | None, messages: Sequence[ChatMessage]) -> str:
    """SHA-256 (hex) of the system prompt and the messages, so that equal prompts can be told without keeping them."""
    return hashlib.sha256(msgspec.json.encode((system, messages))).hexdigest()
