"""One prompt to several model instances: each with its own history, its own pace, its own end."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import ExitStack, aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakSet

import msgspec

from arena import __version__
from arena.errors import ArenaError, BadRequest, ShuttingDown
from arena.fleet import Endpoint, Fleet
from arena.log import warn_failed
from arena.ollama import ChatAnswer
from arena.streaming import FanOut, Lane, Outlet, Transcript
from arena.types import Batch, ChatMessage, ChatRequest, Manifest, ModelInfo, Options, Order, Started

log = logging.getLogger(__name__)


class Run:
    """One send: all its answers. Whoever opens `events()`, or pushes, closes it, which frees every endpoint at once."""

    def __init__(self, requests: Sequence[ChatRequest], fan: FanOut) -> None:
        self.requests = tuple(requests)
        self._fan = fan

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The ids of the instances, in the order of the request."""
        return tuple(request.instance.id for request in self.requests)

    @property
    def running(self) -> frozenset[str]:
        """The instances that still answer."""
        return self._fan.running

    def stop(self, instance_id: str | None = None, reason: ArenaError | None = None) -> None:
        """Stop one answer or all; what was said so far is kept."""
        self._fan.stop(instance_id, reason)

    def events(self) -> AsyncGenerator[Batch, None]:
        """Batches of events until every answer has ended."""
        return self._fan.events()

    def push(self, consumer: Callable[[Batch], None]) -> None:
        """Begin, and hand batches to `consumer` as they are ready, instead of `events()`; `cancel()` frees all."""
        self._fan.push(consumer)

    def pause(self) -> None:
        """Hand over nothing until `resume()`."""
        self._fan.pause()

    def resume(self) -> None:
        """Go on handing over."""
        self._fan.resume()

    def cancel(self) -> None:
        """Drop everything and free every endpoint at once."""
        self._fan.cancel()

    async def transcript(self) -> Transcript:
        """Wait for all answers and fold them. Cancelling this stops them."""
        transcript = Transcript(self.instance_ids)
        async with aclosing(self.events()) as events:
            async for batch in events:
                transcript.apply(batch)
        return transcript


class _Asking(NamedTuple):
    """A request that was sent, or why it could not be."""

    endpoint: Endpoint
    answer: ChatAnswer | ArenaError


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

    def start(self, requests: Sequence[ChatRequest], *, order: Order = "together") -> Run:
        """Ask every instance; `one_after_another` runs one at a time, so that their figures do not disturb each other.

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
            lanes[request.instance.id] = partial(self._answer, request)
        run = Run(requests, FanOut(lanes, at_once=1 if order == "one_after_another" else None))
        self._runs.add(run)
        return run

    def drain(self) -> None:
        """Refuse new runs and end those under way with `server_shutting_down`, their text kept."""
        self._draining = True
        for run in tuple(self._runs):
            run.stop(reason=ShuttingDown("The server is shutting down."))

    def _answer(self, request: ChatRequest, outlet: Outlet) -> Coroutine[Any, Any, None]:
        """The lane of one instance. Where the endpoint is known the request goes out at once, before the first wait."""
        known = self._fleet.endpoints if request.instance.endpoint is None else ()
        asking = self._ask(request, known[0], outlet) if len(known) == 1 else None
        return self._noted_answer(request, asking, outlet)

    def _ask(self, request: ChatRequest, endpoint: Endpoint, outlet: Outlet) -> _Asking:
        stay = ExitStack()
        lease = stay.enter_context(endpoint.lease())
        outlet.release = stay.close
        try:
            answer = endpoint.client.ask(request, outlet, contended=lambda: lease.contended)
        except ArenaError as error:
            return _Asking(endpoint, error)
        stay.callback(answer.close)
        return _Asking(endpoint, answer)

    async def _noted_answer(self, request: ChatRequest, asking: _Asking | None, outlet: Outlet) -> None:
        """Answer; a failure is told in one line of the log, and to the one who asked."""
        instance, began_s = request.instance, time.monotonic()
        try:
            if asking is None:
                asking = self._ask(request, await self._fleet.holder(instance.model, instance.endpoint), outlet)
            if isinstance(asking.answer, ArenaError):
                raise asking.answer
            endpoint = asking.endpoint
            outlet.put([Started(instance.id, self.manifest(request, endpoint))])
            endpoint.freshen()
            await asking.answer.result()
            endpoint.freshen()  # the model is in memory now: the next manifest tells with which context
        except ArenaError as error:
            where = {} if asking is None else {"endpoint": asking.endpoint.name}
            warn_failed(log, "an answer", error, began_s, model=instance.model, **where)
            raise

    def manifest(self, request: ChatRequest, endpoint: Endpoint) -> Manifest:
        """What is known about this run of `request` on `endpoint`, without asking anyone."""
        instance, sent = request.instance, request.instance.options.sent()
        info = endpoint.known(instance.model)
        return Manifest(
            model=instance.model,
            endpoint=endpoint.name,
            endpoint_kind=endpoint.kind,
            endpoint_version=endpoint.version,
            digest=(info.digest or None) if info else None,
            quantization=(info.quantization or None) if info else None,
            parameter_size=(info.parameter_size or None) if info else None,
            options_sent=sent,
            options_left_default=tuple(name for name in Options.__struct_fields__ if name not in sent),
            think=instance.think,
            seed=instance.options.seed,
            context_length=_context(instance.options.num_ctx, info, endpoint.context_length(instance.model)),
            prompt_sha256=prompt_hash(instance.system, request.messages),
            app_version=__version__,
            started_at=self._now().isoformat(timespec="milliseconds"),
        )


def _context(asked: int | None, info: ModelInfo | None, loaded: int | None) -> int | None:
    """The context an answer runs with: the one asked for, but no server gives more than the model was trained for."""
    if asked is None:
        return loaded
    return min(asked, info.context_length) if info is not None and info.context_length else asked


def prompt_hash(system: str | None, messages: Sequence[ChatMessage]) -> str:
    """SHA-256 (hex) of the system prompt and the messages, so that equal prompts can be told without keeping them."""
    return hashlib.sha256(msgspec.json.encode((system, messages))).hexdigest()
