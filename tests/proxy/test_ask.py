"""What hosts say, remembered: how long, for whom, and who asks again."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from arena.errors import ArenaError, NoEndpoint
from arena.exchange import Headers, Inbound
from arena.fleet import FRESH_S, EndpointSpec, Fleet, FleetSpec
from arena.proxy.ask import UNAVAILABLE, Remembered
from arena.proxy.reply import Reply, Surroundings
from arena.settings import load
from tests.proxy.ground import Ground

pytestmark = pytest.mark.anyio

DEADLINE_S = 10.0
T = TypeVar("T")


class Hosts:
    """Two hosts that nobody reaches, what is asked of them, and a clock that the test moves."""

    def __init__(self, fleet: Fleet) -> None:
        self.ground = Ground(fleet, load(engine="off"), {})
        self.now_s = 100.0
        self.asked = 0
        self.gate: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.headers: Headers = []
        self.error: ArenaError | None = None
        self.remembered = Remembered(self._ask, lambda: self.now_s)

    async def _ask(self, proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        self.asked += 1
        number, error = self.asked, self.error
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        if error is not None:
            raise error
        return Reply(200, self.headers, b"%d" % number)

    def known(self, query: str = "", headers: list[tuple[str, str]] | None = None) -> bytes | None:
        """What is told without asking."""
        reply = self.remembered.known(self.ground, self.ground.inbound("GET", "/api/version", query, headers or []))
        return None if reply is None else bytes_of(reply)

    async def ask(self, query: str = "") -> bytes:
        """What is told after asking, if that is needed."""
        return bytes_of(await self.remembered.asked(self.ground, self.ground.inbound("GET", "/", query), b""))

    async def asking(self, count: int) -> list[asyncio.Task[bytes]]:
        """So many requests of which one has asked, and waits for the gate."""
        self.gate = asyncio.Event()
        self.arrived.clear()
        tasks = [asyncio.create_task(self.ask()) for _ in range(count)]
        await soon(self.arrived.wait())
        return tasks

    def let_go(self) -> None:
        """The hosts answer."""
        assert self.gate is not None
        self.gate.set()


def bytes_of(reply: Reply) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


async def soon(wanted: Awaitable[T]) -> T:
    async with asyncio.timeout(DEADLINE_S):
        return await wanted


@asynccontextmanager
async def two_hosts() -> AsyncGenerator[Hosts, None]:
    endpoints = tuple(EndpointSpec(name=name, url=f"http://{name}.invalid") for name in "ab")
    fleet = Fleet(spec=FleetSpec(endpoints=endpoints))
    try:
        yield Hosts(fleet)
    finally:
        await fleet.aclose()


async def test_it_is_remembered_as_long_as_models_are() -> None:
    async with two_hosts() as hosts:
        assert hosts.known() is None
        assert await hosts.ask() == b"1"
        hosts.now_s += FRESH_S - 0.001
        assert (hosts.known(), await hosts.ask(), hosts.asked) == (b"1", b"1", 1)
        hosts.now_s += 0.001
        assert hosts.known() is None
        assert (await hosts.ask(), hosts.known()) == (b"2", b"2")


def _falls_silent(fleet: Fleet) -> None:
    fleet.endpoint("a").health.refused()


def _is_updated(fleet: Fleet) -> None:
    fleet.endpoint("b").version = "0.31.0"


def _goes(fleet: Fleet) -> None:
    fleet._endpoints = fleet.endpoints[:1]


@pytest.mark.parametrize("change", [_falls_silent, _is_updated, _goes])
async def test_a_host_that_has_changed_is_asked(change: Callable[[Fleet], None]) -> None:
    async with two_hosts() as hosts:
        await hosts.ask()
        change(hosts.ground.fleet)
        assert hosts.known() is None
        assert (await hosts.ask(), hosts.known()) == (b"2", b"2")


async def test_a_change_while_hosts_are_asked_has_them_asked_again() -> None:
    async with two_hosts() as hosts:
        (asking,) = await hosts.asking(1)
        _falls_silent(hosts.ground.fleet)
        hosts.let_go()
        assert await soon(asking) == b"1"
        assert hosts.known() is None


async def test_an_answer_without_a_host_is_not_remembered() -> None:
    async with two_hosts() as hosts:
        hosts.headers = [(UNAVAILABLE, b"a")]
        assert await hosts.ask() == b"1"
        assert hosts.known() is None


async def test_who_names_hosts_is_answered_by_them() -> None:
    async with two_hosts() as hosts:
        await hosts.ask()
        assert hosts.known("endpoint=a") is None
        assert hosts.known(headers=[("X-Olla-Endpoint", "a")]) is None
        assert (await hosts.ask("endpoint=a"), hosts.known()) == (b"2", b"1")


async def test_all_who_want_to_know_at_a_moment_ask_once() -> None:
    async with two_hosts() as hosts:
        asking = await hosts.asking(5)
        hosts.let_go()
        assert [await soon(task) for task in asking] == [b"1"] * 5
        assert (hosts.asked, hosts.known()) == (1, b"1")


async def test_an_error_is_told_to_all_who_waited_and_to_nobody_later() -> None:
    async with two_hosts() as hosts:
        hosts.error = NoEndpoint("No host answers")
        asking = await hosts.asking(3)
        hosts.error = None
        hosts.let_go()
        for task in asking:
            with pytest.raises(NoEndpoint):
                await soon(task)
        assert (hosts.asked, await hosts.ask()) == (1, b"2")


async def test_an_error_that_nobody_waited_for_is_not_complained_of() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with two_hosts() as hosts:
        hosts.error = NoEndpoint("No host answers")
        with pytest.raises(NoEndpoint):
            await hosts.ask()
        hosts.error = None
    gc.collect()
    assert not complaints


async def test_when_the_one_who_asked_leaves_the_next_one_asks() -> None:
    async with two_hosts() as hosts:
        first, *others = await hosts.asking(3)
        hosts.arrived.clear()
        first.cancel()
        await soon(hosts.arrived.wait())
        hosts.let_go()
        assert [await soon(task) for task in others] == [b"2"] * 2
        assert first.cancelled()
        assert hosts.asked == 2


async def test_who_waits_may_leave() -> None:
    async with two_hosts() as hosts:
        first, second = await hosts.asking(2)
        await asyncio.sleep(0)
        second.cancel()
        await soon(asyncio.wait([second]))
        hosts.let_go()
        assert await soon(first) == b"1"
