"""Who is in memory and who waits: Ollama's scheduling, with loads that end when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arena.engine.config import Config
from arena.engine.durations import FOREVER_S
from arena.engine.models import LocalModel
from arena.engine.options import Loading
from arena.engine.places import Found
from arena.engine.runners import QUEUE_FULL, Loaded, Needs, Runners
from arena.errors import ArenaError, Busy
from arena.wire import Pool

pytestmark = pytest.mark.anyio

SMALL, LARGE = Loading(context=512), Loading(context=1024)


class FakeChild:
    """A runner process that lives until it is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.context = 512
        self.pool = Pool("http://127.0.0.1:1")
        self.dead = asyncio.Event()
        self.gone = self.killed = False

    async def ended(self) -> None:
        await self.dead.wait()

    async def kill(self) -> None:
        self.killed = True
        self.dead.set()

    def cause(self) -> str:
        return "unexpected EOF"

    def memory_bytes(self) -> int | None:
        return None


class Launches:
    """Loads that are held back until `let` opens their gate; by default all are open."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.children: dict[str, FakeChild] = {}
        self.abandoned: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, ArenaError] = {}

    async def __call__(self, model: LocalModel, loading: Loading) -> FakeChild:
        self.started.append(model.name)
        try:
            if (gate := self.gates.get(model.name)) is not None:
                await gate.wait()
        except asyncio.CancelledError:
            self.abandoned.append(model.name)
            raise
        if (error := self.errors.get(model.name)) is not None:
            raise error
        child = self.children[model.name] = FakeChild(model.name)
        return child


class Timers:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None], Any]] = []

    def __call__(self, delay: float, call: Callable[[], None]) -> Any:
        class Handle:
            cancelled = False

            def cancel(self) -> None:
                self.cancelled = True

        handle = Handle()
        self.waiting.append((delay, call, handle))
        return handle

    def pass_by(self, seconds: float) -> None:
        due = [entry for entry in self.waiting if entry[0] <= seconds and not entry[2].cancelled]
        self.waiting = [entry for entry in self.waiting if entry not in due]
        for _, call, _ in due:
            call()


def model(name: str) -> LocalModel:
    return LocalModel(Found(name, Path(f"/models/{name}")), 1, 1, None)


def needs(name: str, loading: Loading = SMALL, keep_alive_s: float | None = None) -> Needs:
    return Needs(model(name), loading, keep_alive_s)


class House:
    """Runners with their loads and clock, and leases that are held until they are let go."""

    def __init__(self, **settings: Any) -> None:
        self.launches, self.timers = Launches(), Timers()
        self.runners = Runners(Config(data=Path("/none"), **settings), self.launches, self.timers)

    def names(self) -> set[str]:
        return {item.model.name for item in self.runners.in_memory}

    async def use(self, wanted: Needs) -> None:
        async with self.runners.lease(wanted):
            pass

    def hold(self, wanted: Needs) -> Held:
        return Held(self.runners, wanted)


class Held:
    """A lease in a task of its own."""

    def __init__(self, runners: Runners, wanted: Needs) -> None:
        self.got: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._free = asyncio.Event()
        self.task = asyncio.create_task(self._run(runners, wanted))

    async def _run(self, runners: Runners, wanted: Needs) -> None:
        async with runners.lease(wanted) as item:
            self.got.set_result(item)
            await self._free.wait()

    async def let_go(self) -> None:
        self._free.set()
        await self.task

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_second_request_shares_the_first_ones_load() -> None:
    house = House()
    house.launches.gates["a:1"] = asyncio.Event()
    first, second = house.hold(needs("a:1")), house.hold(needs("a:1"))
    await settle()
    assert house.names() == set()  # still loading: not in ps
    house.launches.gates["a:1"].set()
    assert await first.got is await second.got
    assert house.launches.started == ["a:1"]
    await first.let_go()
    await second.let_go()


async def test_load_ends_with_its_last_waiter_only() -> None:
    house = House()
    house.launches.gates["a:1"] = asyncio.Event()
    first, second = house.hold(needs("a:1")), house.hold(needs("a:1"))
    await settle()
    await first.leave()
    await settle()
    assert house.launches.abandoned == []
    await second.leave()
    await settle()
    assert house.launches.abandoned == ["a:1"]
    house.launches.gates["a:1"].set()
    await house.use(needs("a:1"))
    assert house.launches.started == ["a:1", "a:1"]


async def test_failed_load_is_everyones_error_and_forgotten() -> None:
    house = House()
    house.launches.errors["a:1"] = ArenaError("broken file")
    for _ in range(2):
        with pytest.raises(ArenaError, match="broken file"):
            await house.use(needs("a:1"))
    assert house.launches.started == ["a:1", "a:1"]
    assert house.names() == set()


async def test_other_options_wait_for_the_holder_and_load_again() -> None:
    house = House()
    holder = house.hold(needs("a:1"))
    await holder.got
    other = house.hold(needs("a:1", LARGE))
    newcomer = house.hold(needs("a:1"))  # would fit, but must not keep the other waiting for ever
    await settle()
    assert not other.got.done()
    assert not newcomer.got.done()
    await holder.let_go()
    assert (await other.got).loading == LARGE
    await settle()
    assert not newcomer.got.done()
    await other.let_go()
    await newcomer.got
    await newcomer.let_go()
    assert house.launches.started == ["a:1"] * 3


async def test_reload_that_is_given_up_leaves_the_model_as_it_was() -> None:
    house = House()
    holder = house.hold(needs("a:1"))
    await holder.got
    other = house.hold(needs("a:1", LARGE))
    await settle()
    await other.leave()
    await house.use(needs("a:1"))
    await holder.let_go()
    assert house.launches.started == ["a:1"]


async def test_oldest_idle_model_makes_room() -> None:
    house = House(max_loaded=2)
    for name in ("a:1", "b:1", "a:1", "c:1"):
        await house.use(needs(name))
    assert house.names() == {"a:1", "c:1"}
    assert house.launches.children["b:1"].dead.is_set()


async def test_shortest_keep_alive_goes_first() -> None:
    house = House(max_loaded=2)
    await house.use(needs("a:1", keep_alive_s=FOREVER_S))
    await house.use(needs("b:1", keep_alive_s=60))
    await house.use(needs("c:1"))
    assert house.names() == {"a:1", "c:1"}


async def test_waits_while_all_are_busy() -> None:
    house = House(max_loaded=1)
    holder = house.hold(needs("a:1"))
    await holder.got
    other = house.hold(needs("b:1"))
    await settle()
    assert not other.got.done()
    await holder.let_go()
    await other.got
    assert house.names() == {"b:1"}
    await other.let_go()


async def test_waiting_ends_when_the_busy_one_crashes() -> None:
    house = House(max_loaded=1)
    holder = house.hold(needs("a:1"))
    await holder.got
    other = house.hold(needs("b:1"))
    await settle()
    house.launches.children["a:1"].dead.set()
    await other.got
    await other.let_go()
    await holder.let_go()
    assert house.names() == {"b:1"}


async def test_full_queue_is_503_in_ollamas_words() -> None:
    house = House(max_queue=1)
    house.launches.gates["a:1"] = asyncio.Event()
    loading = house.hold(needs("a:1"))
    await settle()
    with pytest.raises(Busy, match=QUEUE_FULL):
        await house.use(needs("b:1"))
    house.launches.gates["a:1"].set()
    await loading.let_go()
    await house.use(needs("b:1"))


async def test_loaded_model_never_meets_the_full_queue() -> None:
    house = House(max_queue=1)
    await house.use(needs("a:1"))
    house.launches.gates["b:1"] = asyncio.Event()
    loading = house.hold(needs("b:1"))
    await settle()
    await house.use(needs("a:1"))
    await loading.leave()


async def test_keep_alive_counts_from_the_end_of_the_last_request() -> None:
    house = House(keep_alive_s=300)
    await house.use(needs("a:1"))
    holder = house.hold(needs("a:1"))
    await holder.got
    house.timers.pass_by(300)
    await settle()
    assert house.names() == {"a:1"}
    await holder.let_go()
    house.timers.pass_by(299)
    await settle()
    assert house.names() == {"a:1"}
    house.timers.pass_by(300)
    await settle()
    assert house.names() == set()


async def test_keep_alive_sticks_and_forever_has_no_timer() -> None:
    house = House(keep_alive_s=300)
    await house.use(needs("a:1", keep_alive_s=FOREVER_S))
    await house.use(needs("a:1"))
    house.timers.pass_by(10**9)
    await settle()
    assert house.names() == {"a:1"}
    assert house.runners.in_memory[0].expires_at.startswith("2318")


async def test_expiry_that_comes_while_it_is_held_does_nothing() -> None:
    house = House()
    await house.use(needs("a:1"))
    (_, expire, _) = house.timers.waiting[0]
    holder = house.hold(needs("a:1"))
    await holder.got
    expire()
    assert house.names() == {"a:1"}
    await holder.let_go()


async def test_keep_alive_zero_unloads_at_once() -> None:
    house = House()
    await house.use(needs("a:1", keep_alive_s=0))
    assert house.names() == set()
    await settle()
    assert house.launches.children["a:1"].dead.is_set()


async def test_unload_waits_for_the_holder() -> None:
    house = House()
    holder = house.hold(needs("a:1"))
    await holder.got
    await house.runners.unload(model("a:1"))
    assert house.names() == {"a:1"}
    await holder.let_go()
    assert house.names() == set()
    await house.runners.unload(model("a:1"))  # nothing there: nothing to do


async def test_crash_while_idle_is_forgotten_and_loaded_again() -> None:
    house = House()
    await house.use(needs("a:1"))
    child = house.launches.children["a:1"]
    child.dead.set()
    await settle()
    assert house.names() == set()
    assert child.killed  # its connections go with it
    await house.use(needs("a:1"))
    assert house.launches.started == ["a:1", "a:1"]


async def test_who_comes_between_a_crash_and_the_news_of_it_has_the_model_loaded_again() -> None:
    house = House()
    await house.use(needs("a:1"))
    child = house.launches.children["a:1"]
    child.gone = True
    held = house.hold(needs("a:1"))
    await settle()
    assert not held.got.done(), "a process that has ended answers nobody"
    child.dead.set()
    assert (await held.got).child is house.launches.children["a:1"] is not child
    await held.let_go()
    assert house.launches.started == ["a:1", "a:1"]


async def test_what_a_crash_leaves_is_ended_with_its_last_holder() -> None:
    house = House()
    first, second = house.hold(needs("a:1")), house.hold(needs("a:1"))
    await second.got
    child = house.launches.children["a:1"]
    child.dead.set()
    await settle()
    assert house.names() == set()
    await first.let_go()
    await settle()
    assert not child.killed  # the second may still read what came before the crash
    await second.let_go()
    await settle()
    assert child.killed


async def test_quiet_is_a_time_in_which_nobody_asks() -> None:
    house = House()
    holder = house.hold(needs("a:1", keep_alive_s=FOREVER_S))
    await holder.got
    quiet = asyncio.create_task(house.runners.quiet(10))
    await settle()
    assert house.timers.waiting == []  # it does not even begin to count
    await holder.let_go()
    await settle()
    await house.use(needs("a:1"))
    house.timers.pass_by(10)
    await settle()
    assert not quiet.done()  # somebody asked meanwhile: from the beginning
    house.timers.pass_by(9)
    await settle()
    assert not quiet.done()
    house.timers.pass_by(10)
    await settle()
    assert quiet.done()


async def test_quiet_waits_for_a_load_and_can_be_given_up() -> None:
    house = House()
    house.launches.gates["a:1"] = asyncio.Event()
    loading = house.hold(needs("a:1"))
    await settle()
    quiet = asyncio.create_task(house.runners.quiet(10))
    await settle()
    assert house.timers.waiting == []
    await loading.leave()
    await settle()
    (_, _, timer), *_ = house.timers.waiting
    quiet.cancel()
    await asyncio.wait({quiet})
    assert timer.cancelled


async def test_close_ends_everything_even_a_load() -> None:
    house = House()
    await house.use(needs("a:1"))
    house.launches.gates["b:1"] = asyncio.Event()
    loading = house.hold(needs("b:1"))
    await settle()
    await house.runners.close()
    await asyncio.wait({loading.task})
    assert house.launches.abandoned == ["b:1"]
    assert house.launches.children["a:1"].dead.is_set()
    assert house.names() == set()


async def test_close_goes_on_while_it_is_cancelled() -> None:
    house = House()
    house.launches.gates["a:1"] = asyncio.Event()
    loading = house.hold(needs("a:1"))
    await settle()
    closing = asyncio.create_task(house.runners.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing, loading.task})
    assert house.launches.abandoned == ["a:1"]


async def test_default_timer_is_the_event_loops() -> None:
    launches = Launches()
    runners = Runners(Config(data=Path("/none"), keep_alive_s=0.001), launches)
    async with runners.lease(needs("a:1")):
        pass
    await asyncio.wait_for(launches.children["a:1"].ended(), 30)
