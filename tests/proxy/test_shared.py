"""What many ask hosts at once: who shares an answer, who may leave, and what is remembered for how long."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import pytest

from arena.errors import ArenaError, NoEndpoint
from arena.exchange import Headers, Inbound
from arena.fleet import FRESH_S, EndpointSpec, Fleet, FleetSpec
from arena.proxy import shared
from arena.proxy.ask import UNAVAILABLE
from arena.proxy.reply import Reply, Surroundings
from arena.proxy.shared import Remembered, Together
from arena.settings import load
from tests.proxy.front import front
from tests.proxy.ground import Ground

pytestmark = pytest.mark.anyio

DEADLINE_S = 30.0
Asking: TypeAlias = list[asyncio.Task[bytes]]
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
        self.ended = 0
        self.over = asyncio.Event()
        self.remembered = Remembered(self._ask, lambda: self.now_s)
        self.together = Together(self._ask)

    async def _ask(self, proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        self.asked += 1
        number, error = self.asked, self.error
        self.arrived.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.ended += 1
            self.over.set()
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

    async def ask_anew(self, path: str = "/api/tags", query: str = "", *, sees: tuple[str, ...] | None = None) -> bytes:
        """What is told of what nobody remembers, to somebody who `sees` these models."""
        self.ground.models = sees
        return bytes_of(await self.together.asked(self.ground, self.ground.inbound("GET", path, query), b""))

    async def asking(self, count: int, ask: Callable[[], Coroutine[Any, Any, bytes]] | None = None) -> Asking:
        """So many requests of which one has asked, and waits for the gate."""
        self.gate = asyncio.Event()
        self.arrived.clear()
        tasks = [asyncio.create_task((ask or self.ask)()) for _ in range(count)]
        await soon(self.arrived.wait())
        return tasks

    async def question(self) -> None:
        """Wait for the next time that hosts are asked."""
        self.arrived.clear()
        await soon(self.arrived.wait())

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


async def turns() -> None:
    """A few turns of the loop, in which all that can happen happens."""
    for _ in range(5):
        await asyncio.sleep(0)


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


async def test_whoever_leaves_the_others_wait_no_longer() -> None:
    async with two_hosts() as hosts:
        first, second, *others = await hosts.asking(4)
        for leaving in (first, second):
            leaving.cancel()
            await soon(asyncio.wait([leaving]))
            assert leaving.cancelled()
        assert (hosts.asked, hosts.ended) == (1, 0)
        hosts.let_go()
        assert [await soon(task) for task in others] == [b"1"] * 2
        assert (hosts.asked, hosts.known()) == (1, b"1")


@pytest.mark.parametrize("remembers", [True, False])
async def test_when_all_have_left_nobody_is_asked_any_more(remembers: bool) -> None:
    async with two_hosts() as hosts:
        ask = hosts.ask if remembers else hosts.ask_anew
        asking = await hosts.asking(2, ask)
        for task in asking:
            task.cancel()
        await soon(asyncio.wait(asking))
        assert (hosts.asked, hosts.ended, hosts.known()) == (1, 1, None)
        hosts.let_go()
        assert await soon(ask()) == b"2"


async def test_who_comes_while_the_last_one_leaves_has_hosts_asked() -> None:
    async with two_hosts() as hosts:
        (leaving,) = await hosts.asking(1)
        leaving.cancel()
        coming = asyncio.create_task(hosts.ask())  # its turn is right after the one in which the other hears of it
        await hosts.question()
        hosts.let_go()
        assert (await soon(coming), hosts.asked, hosts.ended) == (b"2", 2, 2)


async def test_who_waits_for_an_error_and_leaves_with_it_is_not_complained_of() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with two_hosts() as hosts:
        hosts.error = NoEndpoint("No host answers")
        (asking,) = await hosts.asking(1)
        hosts.let_go()
        await soon(hosts.over.wait())
        asking.cancel()
        await soon(asyncio.wait([asking]))
    del asking, hosts
    gc.collect()
    assert not complaints


# what is asked anew each time


async def test_who_comes_before_hosts_are_asked_shares_the_answer() -> None:
    async with two_hosts() as hosts:
        asking = await hosts.asking(5, hosts.ask_anew)
        hosts.let_go()
        assert [await soon(task) for task in asking] == [b"1"] * 5
        assert await hosts.ask_anew() == b"2"


@pytest.fixture
def long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question waits for the one before it, however long that takes."""
    monkeypatch.setattr(shared, "TURN_S", 3600.0)


@pytest.mark.usefixtures("long_turns")
async def test_nobody_is_told_what_was_asked_before_they_came() -> None:
    async with two_hosts() as hosts:
        (first,) = await hosts.asking(1, hosts.ask_anew)
        later = [asyncio.create_task(hosts.ask_anew()) for _ in range(3)]
        await turns()
        assert hosts.asked == 1
        hosts.let_go()
        assert await soon(first) == b"1"
        assert [await soon(task) for task in later] == [b"2"] * 3
        assert hosts.asked == 2


async def test_a_slow_answer_holds_nobody_else_up() -> None:
    async with two_hosts() as hosts:
        (first,) = await hosts.asking(1, hosts.ask_anew)
        later = [asyncio.create_task(hosts.ask_anew()) for _ in range(3)]
        await hosts.question()  # though the first has no answer yet
        assert (hosts.asked, hosts.ended) == (2, 0)
        hosts.let_go()
        assert [await soon(task) for task in (first, *later)] == [b"1", b"2", b"2", b"2"]


@pytest.mark.usefixtures("long_turns")
async def test_who_leaves_while_a_question_waits_for_its_turn_leaves_it_to_the_others() -> None:
    async with two_hosts() as hosts:
        (first,) = await hosts.asking(1, hosts.ask_anew)
        leaving, staying = (asyncio.create_task(hosts.ask_anew()) for _ in range(2))
        await turns()
        leaving.cancel()
        await soon(asyncio.wait([leaving]))
        coming = asyncio.create_task(hosts.ask_anew())
        await turns()
        hosts.let_go()
        assert [await soon(task) for task in (first, staying, coming)] == [b"1", b"2", b"2"]


@pytest.mark.usefixtures("long_turns")
async def test_who_comes_while_the_last_one_who_waits_for_a_turn_leaves_has_hosts_asked() -> None:
    async with two_hosts() as hosts:
        (first,) = await hosts.asking(1, hosts.ask_anew)
        leaving = asyncio.create_task(hosts.ask_anew())
        await turns()
        leaving.cancel()
        coming = asyncio.create_task(hosts.ask_anew())
        await soon(asyncio.wait([leaving]))
        hosts.let_go()
        assert [await soon(task) for task in (first, coming)] == [b"1", b"2"]


async def test_what_makes_a_difference_is_asked_apart() -> None:
    async with two_hosts() as hosts:
        asking = [
            asyncio.create_task(ask)
            for ask in (
                hosts.ask_anew(),
                hosts.ask_anew(sees=("tiny",)),
                hosts.ask_anew(sees=("tiny",)),
                hosts.ask_anew("/api/ps"),
                hosts.ask_anew(query="endpoint=a"),
            )
        ]
        told = [await soon(task) for task in asking]
        assert told[1] == told[2]
        assert sorted(set(told)) == [b"1", b"2", b"3", b"4"]


async def test_nothing_is_kept_of_what_was_asked() -> None:
    async with two_hosts() as hosts:
        asking = await hosts.asking(2, hosts.ask_anew)
        asking[0].cancel()
        hosts.let_go()
        await soon(asyncio.wait(asking))
        leaving = await hosts.asking(1, lambda: hosts.ask_anew("/v1/models/some"))
        leaving[0].cancel()
        await soon(asyncio.wait(leaving))
        assert not hosts.together._latest


async def test_a_list_has_what_was_changed_while_an_older_one_is_on_its_way() -> None:
    async with front("a") as proxied:
        proxied["a"].state(routes={"/api/tags": "fx-hang"})
        older = proxied.begin("GET", "/olla/ollama/api/tags")
        await proxied["a"].arrived(1, path="/api/tags")
        proxied["a"].state(routes={})
        proxied["a"].add_model("newest:1b")
        listed = (await proxied.ask("GET", "/olla/ollama/api/tags")).json["models"]
        assert [entry["name"] for entry in listed] == ["newest:1b", "tiny:latest"]
        assert older.session is not None
        older.session.left()
        await proxied["a"].closed(1, within_s=10)


LISTS = ("/olla/ollama/api/tags", "/olla/proxy/api/ps", "/olla/openai/v1/models", "/olla/anthropic/v1/models")


@pytest.mark.parametrize("path", [*LISTS, "/olla/ollama/v1/models/tiny", "/olla/ollama/api/version"])
async def test_many_who_ask_at_once_cost_each_host_one_question(path: str) -> None:
    async with front("a", "b") as proxied:
        answers = [proxied.begin("GET", path) for _ in range(8)]
        for taken in answers:
            await soon(taken.over.wait())
        assert [taken.status for taken in answers] == [200] * 8
        assert len({taken.body for taken in answers}) == 1
        assert [len(proxied[name].log) for name in "ab"] == [1, 1]
