"""The endpoints: union of models, choice of the holder, overlap noticed, silent ones told apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import msgspec
import pytest

from arena.errors import BadRequest, ModelNotFound, NoEndpoint, Unreachable, UpstreamError
from arena.fleet import Endpoint, Fleet, FleetSpec, Wanted
from arena.ollama import OllamaClient
from arena.types import LoadedModel, ModelInfo
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio
NOBODY = "http://127.0.0.1:9"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def endpoint(name: str, url: str, clock: Clock | None = None) -> Endpoint:
    client = OllamaClient(url, name=name, timeouts=Timeouts(connect_s=1, first_byte_s=2, idle_s=2))
    return Endpoint(name, client, clock=clock or Clock())


@asynccontextmanager
async def two_hosts(a: list[str], b: list[str]) -> AsyncGenerator[tuple[Fleet, FakeOllama, FakeOllama], None]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(FakeOllama(models=a))
        two = await stack.enter_async_context(FakeOllama(models=b))
        fleet = Fleet([endpoint("one", one.url), endpoint("two", two.url)])
        stack.push_async_callback(fleet.aclose)
        yield fleet, one, two


def asked(server: FakeOllama, path: str) -> int:
    return sum(record.path == path for record in server.log)


async def test_models_are_the_union_with_their_endpoints() -> None:
    async with two_hosts(["llama3.2:3b", "mistral:7b"], ["Mistral:7b", "qwen2.5:3b"]) as (fleet, _, _two):
        models = {info.name.lower(): info.endpoints for info in await fleet.models()}
    assert models == {"llama3.2:3b": ("one",), "mistral:7b": ("one", "two"), "qwen2.5:3b": ("two",)}


async def test_the_holder_is_found_on_whichever_endpoint_has_the_model() -> None:
    async with two_hosts(["a:latest"], ["b:1b"]) as (fleet, _, _two):
        assert (await fleet.holder("a")).name == "one"
        assert (await fleet.holder("B:1B")).name == "two"
        assert (await fleet.holder("b:1b", endpoint="one")).name == "one"
        with pytest.raises(BadRequest, match="three"):
            await fleet.holder("a", endpoint="three")
        with pytest.raises(ModelNotFound, match="try pulling it first"):
            await fleet.holder("nowhere")


async def test_a_model_that_was_just_pulled_elsewhere_is_found_by_asking_once_more() -> None:
    async with two_hosts(["a:1b"], ["b:1b"]) as (fleet, one, _):
        await fleet.models()
        one.add_model("new:1b")
        assert (await fleet.holder("new:1b")).name == "one"


async def test_a_model_whose_endpoint_went_down_is_not_told_to_be_missing() -> None:
    async with two_hosts(["a:1b"], ["b:1b"]) as (fleet, _, two):
        await fleet.models()
        two.state(accept="refuse")
        await fleet.models(0.0)
        assert (await fleet.holder("b:1b")).name == "two"
        with pytest.raises(ModelNotFound):
            await fleet.holder("c:1b")


async def test_of_two_holders_the_less_busy_one_is_taken() -> None:
    async with two_hosts(["a:1b"], ["a:1b"]) as (fleet, _, _two):
        with await fleet.lease(Wanted(model="a:1b")):
            assert (await fleet.holder("a:1b")).name == "two"
        assert (await fleet.holder("a:1b")).name == "one"


async def test_an_alias_has_a_holder_and_a_description() -> None:
    async with two_hosts(["a:1b"], ["b:1b"]) as (fleet, _, _two):
        fleet.apply(FleetSpec(aliases={"nick": ("gone", "b:1b")}))
        assert (await fleet.holder("Nick")).name == "two"
        assert (await fleet.describe("nick")).name == "b:1b"
        assert (await fleet.describe("a:1b", "one")).endpoints == ("one",)


async def test_one_silent_endpoint_does_not_hide_the_others() -> None:
    async with FakeOllama(models=["a:1b"]) as server:
        fleet = Fleet([endpoint("dead", NOBODY), endpoint("alive", server.url)])
        assert [info.name for info in await fleet.models()] == ["a:1b"]
        assert (await fleet.holder("a:1b")).name == "alive"
        dead, alive = await fleet.statuses()
        assert (dead.reachable, alive.reachable) == (False, True)
        assert dead.error is not None
        assert alive.version is not None
        assert alive.models == 1
        assert await fleet.loaded() == ()
        await fleet.aclose()


async def test_when_no_endpoint_answers_the_reason_is_told() -> None:
    fleet = Fleet([endpoint("dead", NOBODY)])
    with pytest.raises(Unreachable):
        await fleet.models()
    await fleet.aclose()


async def test_a_fleet_without_endpoints_says_so() -> None:
    with pytest.raises(NoEndpoint, match="engine is off"):
        await Fleet().models()
    assert await Fleet().statuses() == ()


async def test_answers_are_remembered_until_they_are_old_or_forgotten(fake: FakeOllama) -> None:
    clock = Clock()
    host = endpoint("a", fake.url, clock)
    await host.models()
    await host.models()
    assert asked(fake, "/api/tags") == 1
    clock.now_s += 6
    await host.models()
    assert asked(fake, "/api/tags") == 2
    host.forget()
    await host.models()
    assert asked(fake, "/api/tags") == 3
    await host.aclose()


async def test_many_who_ask_at_once_cause_one_question_and_one_who_leaves_does_not_cancel_it(fake: FakeOllama) -> None:
    host = endpoint("a", fake.url)
    tasks = [asyncio.create_task(host.models()) for _ in range(10)]
    await asyncio.wait(tasks[:1], timeout=0)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    assert all(task.result() for task in tasks[1:])
    assert asked(fake, "/api/tags") == 1
    await host.aclose()


async def test_what_is_in_memory_is_known_with_its_context(fake: FakeOllama) -> None:
    host = endpoint("a", fake.url)
    await host.client.load("tiny:latest")
    loaded = {item.name: item for item in await host.loaded()}
    assert loaded["tiny:latest"].endpoint == "a"
    info = host.known("TINY")
    assert info is not None
    assert info.loaded_on == ("a",)
    assert host.context_length("tiny") == loaded["tiny:latest"].context_length
    assert host.context_length("mistral:7b") is None
    await host.aclose()


async def test_describe_tells_capabilities_and_asks_older_servers_once(fake: FakeOllama) -> None:
    host = endpoint("a", fake.url)
    first = await host.describe("tiny")
    assert first.capabilities is not None
    shows = asked(fake, "/api/show")
    assert await host.describe("tiny") == first
    assert asked(fake, "/api/show") == shows
    with pytest.raises(ModelNotFound):
        await host.describe("nowhere")
    await host.aclose()


async def test_freshen_asks_in_the_background_and_keeps_a_failure_to_itself(fake: FakeOllama) -> None:
    clock = Clock()
    host, dead = endpoint("a", fake.url, clock), endpoint("dead", NOBODY)
    for each in (host, host, dead):
        each.freshen()
    await fake.arrived(1, path="/api/tags")
    assert await host.models()
    assert asked(fake, "/api/tags") == 1
    assert not (await dead.status()).reachable
    await host.aclose()
    await dead.aclose()


async def test_closing_ends_a_question_under_way(fake: FakeOllama) -> None:
    fake.state(delay_ms=5000)
    host = endpoint("a", fake.url)
    host.freshen()
    await fake.arrived(1, path="/api/tags")
    await host.aclose()
    await fake.idle()


class SlowClient(OllamaClient):
    """A server whose lists come when the test says so, in any order."""

    def __init__(self) -> None:
        super().__init__(NOBODY, name="slow")
        self.asked: list[asyncio.Future[tuple[ModelInfo, ...]]] = []
        self.versions = iter(["1", "2", "3"])

    async def tags(self) -> tuple[ModelInfo, ...]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    async def ps(self) -> tuple[LoadedModel, ...]:
        return ()

    async def version(self) -> str:
        return next(self.versions)


async def test_answers_to_older_questions_never_replace_a_newer_one() -> None:
    client = SlowClient()
    host = Endpoint("slow", client, clock=Clock())
    for _ in range(3):
        host.freshen()
        await anyio.wait_all_tasks_blocked()
        host.forget()
    host.freshen()
    await anyio.wait_all_tasks_blocked()
    names = ("first", "second", "third", "last")
    seen = []
    for number in (0, 3, 1):
        client.asked[number].set_result((ModelInfo(names[number]),))
        await anyio.wait_all_tasks_blocked()
        seen.append([name for name in names if host.known(name)])
    assert seen == [["first"], ["last"], ["last"]]
    assert [info.name for info in await host.models()] == ["last"]
    assert len(client.asked) == 4
    await host.aclose()
    assert client.asked[2].cancelled()


async def test_a_server_that_was_updated_tells_its_new_version() -> None:
    client = SlowClient()
    host = Endpoint("slow", client, clock=Clock())
    versions = []
    for _ in range(2):
        host.forget()
        host.freshen()
        await anyio.wait_all_tasks_blocked()
        client.asked[-1].set_result(())
        await host.models()
        versions.append(host.version)
    assert versions == ["1", "2"]
    await host.aclose()


class OldClient(OllamaClient):
    """A server from before capabilities in the list, and before /api/ps."""

    async def tags(self) -> tuple[ModelInfo, ...]:
        return tuple(msgspec.structs.replace(info, capabilities=None) for info in await super().tags())

    async def ps(self) -> tuple[LoadedModel, ...]:
        raise UpstreamError("404 page not found", upstream_status=404)

    async def version(self) -> str:
        raise UpstreamError("404 page not found", upstream_status=404)


async def test_an_old_server_is_asked_for_each_models_capabilities_once(fake: FakeOllama) -> None:
    host = Endpoint("old", OldClient(fake.url, name="old"), clock=Clock())
    assert await host.loaded() == ()
    assert (await host.status()).version is None
    first = await host.describe("tiny")
    assert first.capabilities
    assert await host.describe("tiny") == first
    assert asked(fake, "/api/show") == 1
    await host.aclose()


async def test_a_bug_in_one_question_is_not_mistaken_for_a_silent_endpoint(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = endpoint("a", fake.url)

    async def bug() -> tuple[ModelInfo, ...]:
        raise ZeroDivisionError

    monkeypatch.setattr(host.client, "tags", bug)
    with pytest.raises(ZeroDivisionError):
        await Fleet([host]).models()
    await host.aclose()
