"""Builds and owns everything that lives as long as the server: endpoints, compare, catalog, the engine process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from arena.battle import Battles, Standing, drawn, joined, newcomer
from arena.catalog import Catalog
from arena.compare import Compare
from arena.endings import finished
from arena.engine.process import EngineProcess
from arena.errors import ArenaError, SettingsError, StoreUnavailable
from arena.fleet import Endpoint, EndpointSpec, Fleet, connect
from arena.fleet.config import fleet_spec, timeouts_of
from arena.kept import Kept
from arena.keys import FILE as KEYS_FILE
from arena.keys import Keys
from arena.leaderboard import Leaderboard
from arena.names import canonical
from arena.settings import OLLAMA_DEFAULT, Settings
from arena.store import Caps, Store, url_of
from arena.types import EndpointKind, ModelInstance

log = logging.getLogger(__name__)

EngineState = Literal["off", "starting", "running", "failed"]
FIRST_MODEL = "smollm2:135m"
RATERS = 2
"""Threads that fit ratings."""

Asked = ParamSpec("Asked")
Told = TypeVar("Told")


class Arena:
    """The running arena. Build it anywhere; `async with arena.running():` starts and stops it."""

    def __init__(
        self, settings: Settings, *, engine: EngineProcess | None = None, local_ollama: str = OLLAMA_DEFAULT
    ) -> None:
        """`engine` and `local_ollama` (the address tried when the settings name no endpoint) stand in for the usual."""
        self.settings = settings
        self.fleet = Fleet(spec=fleet_spec(settings), build=self._endpoint)
        self.compare = Compare(self.fleet)
        self.catalog = Catalog(self.fleet, settings)
        self.keys = Keys(settings.data / KEYS_FILE)
        self.fleet.book.spent = self.keys.spent
        self.store = Store(url_of(settings), daily=Caps(settings.votes_per_voter, settings.votes_per_address))
        self.kept = Kept(
            self.store,
            shared=settings.shared,
            in_all=settings.kept_in_all,
            per_address=settings.kept_per_address,
            days=settings.kept_days,
        )
        self.leaderboard = Leaderboard(self.store)
        self._raters = ThreadPoolExecutor(RATERS, thread_name_prefix="ratings")
        self._drawers = ThreadPoolExecutor(1, thread_name_prefix="draws")  # no battle waits for somebody's ratings
        # on a server for others nobody may choose, or foresee, the pair whose votes count
        self.battles = Battles(
            self.compare,
            self.fleet,
            self.store,
            choose=None if settings.shared else self._suggested,
            newcomers=self._newcomer,
            in_thread=partial(self._in, self._drawers),
            rate_chosen=not settings.shared,
            answer_tokens=settings.battle_answer_tokens,
        )
        self.engine_error: str | None = None
        self.reloading: asyncio.Task[None] | None = None
        self._engine = engine or EngineProcess(settings, child_environment())
        self._engine_state: EngineState = "off"
        self._local_ollama = local_ollama
        self._starting: asyncio.Task[None] | None = None

    @property
    def engine_state(self) -> EngineState:
        """Where the embedded engine stands; one that crashed is `starting` until it answers again."""
        fallen = self._engine_state == "running" and not self._engine.running
        return "starting" if fallen else self._engine_state

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Arena, None]:
        """Start in the background (the page does not wait for an engine), stop in order."""
        self.fleet.start()
        await asyncio.to_thread(self._check_places)
        self._starting = asyncio.create_task(self._start(), name="arena start")
        try:
            yield self
        finally:
            self.compare.drain()
            await _cancel(self._starting)
            await _cancel(self.reloading)
            await self.catalog.aclose()
            await self.fleet.aclose()
            self.keys.flush()
            for threads in (self._raters, self._drawers):
                await asyncio.to_thread(threads.shutdown, cancel_futures=True)
            await asyncio.to_thread(self.store.close)
            await self._engine.stop()

    async def rated(self, ask: Callable[Asked, Told], *args: Asked.args, **named: Asked.kwargs) -> Told:
        """What `ask` gives, which may fit ratings for seconds: in threads of its own, so that no vote waits for it."""
        return await self._in(self._raters, partial(ask, *args, **named))

    async def _in(self, threads: ThreadPoolExecutor, ask: Callable[[], Told]) -> Told:
        told = partial(copy_context().run, ask)  # a log line keeps its request's id
        return await asyncio.get_running_loop().run_in_executor(threads, told)

    def _suggested(self, contestants: Sequence[ModelInstance], sides: int) -> tuple[int, ...]:
        """The two whose battle teaches most, and others; any while there are no ratings. Blocks; for a thread."""
        models = [contestant.model for contestant in contestants]
        try:
            if self.store.exists and len(set(models)) == len(models):
                return joined(self.leaderboard.next_pair(models), contestants, sides)
        except StoreUnavailable as error:
            log.warning("a pair is drawn without the ratings: %s", error.message)
        return drawn(contestants, sides)

    def _newcomer(self, contestants: Sequence[ModelInstance], sides: int) -> tuple[int, ...]:
        """One with few votes, and rivals from the best; without ratings all are new. Blocks; for a thread."""
        standings: dict[str, Standing] = {}
        try:
            if self.store.exists:
                rows = self.leaderboard.board().rows
                standings = {canonical(row.name): Standing(row.rating, row.weight) for row in rows}
        except StoreUnavailable as error:
            log.warning("a newcomer is drawn without the ratings: %s", error.message)
        return newcomer(contestants, sides, standings)

    def _check_places(self) -> None:
        """What is wrong with models or store is told at once; a store that fails stays as it is, all else goes on."""
        for path in self.settings.engine_models:
            if not os.path.exists(path):
                log.warning("ARENA_MODELS names what is not there: %s", path)
        try:
            self.store.check()
        except StoreUnavailable as error:
            log.error("no votes until this is mended: %s", error.message)

    async def begin_store(self) -> None:
        """Make the store where there is none yet; one that is there and would not open is left for the votes to try."""
        try:
            if not self.store.exists:
                await asyncio.to_thread(self.store.open)
        except StoreUnavailable as error:
            log.warning("no store could be made: %s", error.message)

    async def reload_fleet(self) -> None:
        """Read the fleet file again and go on under it. Raises SettingsError, and then nothing has changed."""
        spec = await asyncio.to_thread(fleet_spec, self.settings)
        try:
            self.fleet.apply(spec)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        log.info("the fleet was read again: %s", ", ".join(each.name for each in self.fleet.endpoints))

    def reload_soon(self) -> None:
        """The same for a caller that cannot wait, one at a time, as `reloading`: what is wrong stands in the log."""
        if self.reloading is None or self.reloading.done():
            self.reloading = asyncio.create_task(self._reload_or_tell(), name="reload")

    async def _reload_or_tell(self) -> None:
        try:
            await self.reload_fleet()
        except SettingsError as error:
            log.error("the fleet stays as it was: %s", error.message)

    async def started(self) -> None:
        """Wait until the endpoints are settled: the local Ollama found, or the engine up (or failed)."""
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def _start(self) -> None:
        """Find the local Ollama; start the engine where the settings and the silence of Ollama ask for it.

        Where nothing answers at all the local Ollama is the endpoint: the page can say so, and it may come up later.
        """
        configured = self.fleet.spec.endpoints
        local = self._endpoint(self._spec("ollama", self._local_ollama))
        try:
            if not configured and await _answers(local):
                self.fleet.add(local)
            instead = self.settings.engine == "auto" and not self.fleet.endpoints
            if instead:
                log.info("no Ollama answers at %s: the embedded engine is started instead", local.url)
            if instead or self.settings.engine == "on":
                await self._start_engine()
            if not self.fleet.endpoints:
                log.warning("no Ollama answers at %s: start it, or name your servers in ARENA_ENDPOINTS", local.url)
                self.fleet.add(local)
        finally:
            if local not in self.fleet.endpoints:
                await local.aclose()
        await self.fleet.statuses()

    async def _start_engine(self) -> None:
        self._engine_state = "starting"
        try:
            endpoint = self._endpoint(self._spec("engine", await self._engine.start(), "engine"))
            self.fleet.add(endpoint)
            self._engine_state = "running"
            log.info("the embedded engine answers at %s", endpoint.url)
            if not await endpoint.models():
                self.catalog.pull(FIRST_MODEL, endpoint.name)
        except ArenaError as error:
            self._engine_state, self.engine_error = "failed", error.message
            log.error("no embedded engine: %s", error.message)

    def _spec(self, name: str, url: str, kind: EndpointKind = "ollama") -> EndpointSpec:
        """An endpoint that the settings do not name."""
        return EndpointSpec(name=name, url=url, type=kind, timeouts=timeouts_of(self.settings))

    def _endpoint(self, spec: EndpointSpec) -> Endpoint:
        settings = self.settings
        return connect(spec, max_deltas=settings.max_answer_tokens, max_bytes=settings.max_answer_bytes)


async def _answers(endpoint: Endpoint) -> bool:
    """Is it there? Its silence is no line in the log: whoever asks has another way."""
    try:
        await endpoint.client.version()
    except ArenaError:
        return False
    return True


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        await finished([task])


def child_environment() -> dict[str, str]:
    """Our environment for a child that runs a module of this package, which it finds from any working folder."""
    home = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}
