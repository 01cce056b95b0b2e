"""What a lease is given for: names, kinds, endpoints named, rests, and the words that say why."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import anyio
import pytest

from arena.errors import BadRequest, Busy, ModelNotFound, NoEndpoint, Unreachable, UpstreamError
from arena.fleet import EndpointSpec, Fleet, FleetSpec, Usage, Wanted
from arena.fleet.catalogue import MAX_SPELLINGS, Catalogue
from tests.fake_ollama import FakeOllama
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import BRIEF, M, change, closing, quiet_fleet, served_by, taken, tell, three

pytestmark = pytest.mark.anyio


def test_a_model_is_only_ever_served_by_a_host_that_has_it() -> None:
    fleet = quiet_fleet({"a": ("x:1b",), "b": ("y:1b",), "c": ("x:1b", "Y:1B")}, strategy="round-robin")
    assert set(served_by(fleet, 15, model="y:1b")) == {"b", "c"}
    assert set(served_by(fleet, 15, model="x:1b")) == {"a", "c"}


@pytest.mark.parametrize("asked", ["llama3.2", "LLAMA3.2", "llama3.2:latest", "Llama3.2:Latest"])
def test_an_implied_tag_and_any_case_find_the_model_in_its_own_spelling(asked: str) -> None:
    fleet = quiet_fleet({"a": ("Llama3.2:latest",), "b": ("other",)})
    with taken(fleet, asked) as lease:
        assert (lease.endpoint.name, lease.model, lease.key) == ("a", "Llama3.2:latest", "llama3.2:latest")
        assert (lease.strategy, lease.decision, lease.reason) == ("strict", "routed", "model_found")


def test_prefixes_of_registries_belong_to_the_name() -> None:
    fleet = quiet_fleet({"a": ("hf.co/Org/Model:Q4",), "b": ("model:q4",)})
    assert taken(fleet, "HF.co/org/model:q4").endpoint.name == "a"
    assert taken(fleet, "model:Q4").endpoint.name == "b"


def test_an_alias_is_a_chain_and_the_first_that_can_be_served_is_taken() -> None:
    clock = Clock()
    fleet = quiet_fleet({"a": ("big",), "b": ("Small",)}, clock, aliases={"Smart": ("big", "small")})
    with taken(fleet, "smart:latest") as lease:
        assert (lease.endpoint.name, lease.model, lease.strategy) == ("a", "big", "alias")
        lease.failed(status=429, retry_after_s=5)
    with taken(fleet, "SMART") as lease:
        assert (lease.endpoint.name, lease.model, lease.decision) == ("b", "Small", "routed")
    clock.advance(5)
    assert taken(fleet, "smart").model == "big"
    change(fleet.endpoint("a"), max_in_flight=1)
    assert taken(fleet, "smart").model == "Small", "full is as good as away"


def test_after_failing_on_one_host_an_alias_goes_on_with_the_next_model() -> None:
    fleet = quiet_fleet({"a": ("big",), "b": ("small",)}, aliases={"smart": ("big", "small")})
    lease = fleet.try_lease(Wanted(model="smart"), frozenset({"a"}))
    assert lease is not None
    assert lease.model == "small"
    with pytest.raises(NoEndpoint, match="has failed"):
        fleet.try_lease(Wanted(model="smart"), frozenset("ab"))


async def test_aliases_are_listed_where_they_stand_for_something() -> None:
    async with FakeOllama(models=["tiny:1b"]) as one, FakeOllama(models=["Tiny:1b", "big"]) as two:
        spec = FleetSpec(
            endpoints=(EndpointSpec(name="one", url=one.url), EndpointSpec(name="two", url=two.url)),
            aliases={"Fast": ("gone", "tiny:1b"), "nothing": ("gone",)},
        )
        async with closing(Fleet(spec=spec)) as fleet:
            listed = [(info.name, info.endpoints) for info in await fleet.models()]
            assert listed == [
                ("big:latest" if listed[0][0].endswith("latest") else "big", ("two",)),
                ("Fast", ("one", "two")),
                ("tiny:1b", ("one", "two")),
            ]
            assert (await fleet.lease(Wanted(model="fast"))).model.lower() == "tiny:1b"


def test_spellings_are_not_remembered_without_limit() -> None:
    catalogue = Catalogue({})
    for number in range(MAX_SPELLINGS + 5):
        catalogue.chain(f"m{number}")
    assert len(catalogue._spelled) == 5


async def test_a_miss_asks_every_host_once_for_all_who_miss() -> None:
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(FakeOllama(models=[name])) for name in ("x", "y")]
        specs = tuple(EndpointSpec(name=str(i), url=fake.url) for i, fake in enumerate(fakes))
        fleet = await stack.enter_async_context(closing(Fleet(spec=FleetSpec(endpoints=specs))))
        await fleet.models()
        fakes[1].add_model("new")
        fakes[1].state(delay_ms=50)
        assert fleet.try_lease(Wanted(model="new")) is None
        before = [len(fake.log) for fake in fakes]
        tasks = [asyncio.create_task(fleet.lease(Wanted(model="new"))) for _ in range(20)]
        await asyncio.wait(tasks)
        assert {task.result().endpoint.name for task in tasks} == {"1"}
        tags = [sum(r.path == "/api/tags" for r in fake.log[n:]) for fake, n in zip(fakes, before, strict=True)]
        assert tags == [1, 1]
        with pytest.raises(ModelNotFound, match="'nowhere' not found"):
            await fleet.lease(Wanted(model="nowhere"))
        assert fleet.book.totals().refused == 1


async def test_a_silent_host_keeps_a_miss_waiting_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.fleet.catalogue.ASK_S", 0.02)
    async with FakeOllama(models=["x"]) as one, FakeOllama(models=["y"]) as two:
        specs = (EndpointSpec(name="one", url=one.url), EndpointSpec(name="two", url=two.url))
        async with closing(Fleet(spec=FleetSpec(endpoints=specs))) as fleet:
            await fleet.models()
            two.state(delay_ms=60_000)
            with pytest.raises(ModelNotFound):
                await fleet.lease(Wanted(model="nowhere"))


async def test_when_no_host_answers_the_reason_is_told() -> None:
    specs = tuple(EndpointSpec(name=name, url="http://127.0.0.1:9", timeouts=BRIEF) for name in "ab")
    async with closing(Fleet(spec=FleetSpec(endpoints=specs))) as fleet:
        with pytest.raises(NoEndpoint, match="connection refused"):
            await fleet.lease(Wanted(model=M))
        assert fleet.book.totals().refused == 1
        fleet._watching = True
        with pytest.raises(NoEndpoint, match=r"is down$"):
            await fleet.lease(Wanted(model=M))


async def test_a_bug_while_asking_is_not_mistaken_for_a_silent_host(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = three()

    async def bug() -> tuple[()]:
        raise ZeroDivisionError

    monkeypatch.setattr(fleet.endpoint("a").client, "tags", bug)
    with pytest.raises(ZeroDivisionError):
        await fleet.lease(Wanted(model="nowhere"))
    await fleet.aclose()


async def test_a_host_that_is_known_to_be_down_is_not_asked_again(fake: FakeOllama) -> None:
    specs = tuple(EndpointSpec(name=name, url=fake.url, check_interval_s=0) for name in "ab")
    async with closing(Fleet(spec=FleetSpec(endpoints=specs))) as fleet:
        fleet.start()
        fleet.endpoint("a").health.refused()
        with pytest.raises(ModelNotFound):
            await fleet.lease(Wanted(model="nowhere"))
        assert sum(record.path == "/api/tags" for record in fake.log) == 1


def test_the_only_endpoint_says_itself_what_it_has() -> None:
    fleet = quiet_fleet({"a": ("x",)})
    with taken(fleet, "Anything:At-All") as lease:
        assert (lease.model, lease.decision, lease.reason) == (
            "Anything:At-All",
            "fallback",
            "model_not_found_fallback",
        )
    with pytest.raises(NoEndpoint, match="only endpoint"):
        fleet.try_lease(Wanted(model="anything"), frozenset("a"))


def test_without_a_model_anyone_will_do() -> None:
    with taken(three(), None) as lease:
        assert (lease.model, lease.key, lease.reason) == ("", "", "any_endpoint")
    with pytest.raises(NoEndpoint):
        three().try_lease(Wanted(), frozenset("abc"))


def test_a_fleet_of_none_says_so() -> None:
    for wanted in (Wanted(), Wanted(model=M)):
        with pytest.raises(NoEndpoint, match="engine is off"):
            Fleet().try_lease(wanted)
    with pytest.raises(NoEndpoint, match="engine is off"):
        _ = Fleet().default


def test_kinds_are_kept_apart() -> None:
    fleet = quiet_fleet({"a": (M,), "b": (M,)})
    for endpoint, kind in zip(fleet.endpoints, ("ollama", "openai"), strict=True):
        endpoint.kind = kind  # type: ignore[assignment]
    assert set(served_by(fleet, 4, kinds=frozenset({"openai"}))) == {"b"}
    with pytest.raises(NoEndpoint, match="Only an endpoint of type engine can serve this"):
        fleet.try_lease(Wanted(model=M, kinds=frozenset({"engine"})))
    with pytest.raises(NoEndpoint, match="type openai"):
        fleet.try_lease(Wanted(model=M, endpoint="b", kinds=frozenset({"ollama"})))


def test_a_named_host_is_honoured_in_any_state() -> None:
    fleet = three(aliases={"nick": ("other", M)})
    fleet.drain("b", True)
    fleet.endpoint("b").health.refused()
    with taken(fleet, "nick", endpoint="b") as lease:
        assert (lease.endpoint.name, lease.model, lease.reason) == ("b", M, "endpoint_named")
    assert taken(fleet, "unknown", endpoint="b").model == "unknown"
    with pytest.raises(BadRequest, match="'nobody'; there are a, b, c"):
        fleet.try_lease(Wanted(model=M, endpoint="nobody"))
    with pytest.raises(NoEndpoint, match="b has failed"):
        fleet.try_lease(Wanted(model=M, endpoint="b"), frozenset("b"))


def test_a_host_that_asks_for_a_rest_gets_it() -> None:
    clock = Clock()
    fleet = three(clock)
    for status in (429, 503):
        with taken(fleet, endpoint="a") as lease:
            lease.failed(status=status, retry_after_s=10)
        clock.advance(9.9)
        assert "a" not in served_by(fleet, 6)
        clock.advance(0.1)
        assert fleet.endpoint("a").ready(clock())
    assert fleet.endpoint("a").breaker.failures == 1, "429 is no failure, 503 is one"


def test_a_limit_of_one_model_keeps_only_that_model_away() -> None:
    clock = Clock()
    fleet = quiet_fleet({"a": ("cloud:1b", "local:1b")}, clock)
    (a,) = fleet.endpoints
    a.health.alive()
    with taken(fleet, "Cloud:1b") as lease:
        lease.failed(Busy("a limits requests", code="rate_limited", retry_after_s=120))
    assert taken(fleet, "local:1b").model == "local:1b"
    assert (a.state, a.rests) == ("healthy", {"cloud:1b": 120.0})
    with pytest.raises(Busy) as caught:
        fleet.try_lease(Wanted(model="cloud:1b"))
    assert (caught.value.code, caught.value.retry_after_s) == ("resting", 120.0)
    clock.advance(100)
    with taken(fleet, "local:1b") as lease:
        lease.failed(status=429, retry_after_s=30)
    clock.advance(20)
    assert taken(fleet, "cloud:1b").model == "cloud:1b"
    assert a.rests == {"local:1b": 10.0}
    with taken(fleet, "cloud:1b") as lease:
        lease.failed(status=429, retry_after_s=5)
    assert set(a.resting) == {"local:1b", "cloud:1b"}


def test_a_host_that_is_busy_rests_with_all_it_has() -> None:
    clock = Clock()
    fleet = quiet_fleet({"a": ("x:1b", "y:1b")}, clock)
    (a,) = fleet.endpoints
    a.health.alive()
    with taken(fleet, "x:1b") as lease:
        lease.failed(Busy("a: server busy", retry_after_s=7))
    assert (a.state, a.rests) == ("resting", {"": 7.0})
    with pytest.raises(Busy):
        fleet.try_lease(Wanted(model="y:1b"))
    with taken(fleet, None, endpoint="a") as lease:  # of no model at all
        lease.failed(status=429, retry_after_s=9)
    assert a.rests == {"": 9.0}
    clock.advance(9)
    assert a.state == "healthy"


def test_when_all_rest_the_caller_is_told_for_how_long() -> None:
    clock = Clock()
    fleet = three(clock, strategy="round-robin")
    for name, wait_s in (("a", 30.0), ("b", 60.0)):
        with taken(fleet, endpoint=name) as lease:
            lease.failed(status=429, retry_after_s=wait_s)
    with taken(fleet, endpoint="c") as lease:
        lease.failed(Busy("c: server busy", retry_after_s=20))
    with pytest.raises(Busy) as caught:
        fleet.try_lease(Wanted(model=M))
    assert (caught.value.code, caught.value.retry_after_s) == ("resting", 20.0)
    clock.advance(60)
    assert len(set(served_by(fleet, 6))) == 3


def test_a_failed_connection_takes_the_host_out_at_once() -> None:
    fleet = three()
    tell(fleet.endpoint("a"), M, loaded=(M,))
    with taken(fleet, endpoint="a") as lease:
        lease.failed(Unreachable("a is not reachable"))
    a = fleet.endpoint("a")
    assert (a.state, a.health.up, a.warm) == ("offline", False, set())
    assert "a" not in served_by(fleet, 9)
    with taken(fleet, endpoint="a") as lease:
        lease.succeeded()
    assert (a.state, a.health.up) == ("healthy", True), "an answer is proof enough"


@pytest.mark.parametrize("status", [401, 404, 429])
async def test_refusals_never_make_a_host_dead(status: int, fake: FakeOllama) -> None:
    async with closing(three()) as fleet:
        for _ in range(20):
            with taken(fleet, endpoint="a") as lease:
                lease.failed(UpstreamError("refused", upstream_status=status))
        assert fleet.endpoint("a").breaker.state == "closed"
        assert fleet.endpoint("a").health.up
        await anyio.wait_all_tasks_blocked()


async def test_a_model_that_is_gone_makes_the_host_be_asked_again(fake: FakeOllama) -> None:
    async with closing(Fleet(spec=FleetSpec(endpoints=(EndpointSpec(name="a", url=fake.url),)))) as fleet:
        await fleet.models()
        asked = sum(record.path == "/api/tags" for record in fake.log)
        with taken(fleet, "tiny") as lease:
            lease.failed(ModelNotFound("model 'tiny' not found"))
        await fake.arrived(asked + 1, path="/api/tags")


def test_drained_hosts_get_nothing_new() -> None:
    fleet = three()
    running = taken(fleet, endpoint="a")
    for name in "ab":
        fleet.drain(name, True)
    assert set(served_by(fleet, 5)) == {"c"}
    assert fleet.endpoint("a").state == "draining"
    fleet.drain("c", True)
    with pytest.raises(NoEndpoint, match="drained"):
        fleet.try_lease(Wanted(model=M))
    fleet.drain("a", False)
    assert served_by(fleet, 1) == ["a"]
    running.close()


def test_a_lease_is_counted_once_and_its_first_outcome_stands() -> None:
    clock = Clock()
    fleet = three(clock)
    with taken(fleet, endpoint="a", key="bot", route="/api/chat") as lease:
        assert fleet.endpoint("a").in_flight_per_model == {M: 1}
        clock.advance(1)
        lease.first_byte()
        clock.advance(1)
        lease.first_byte()
        lease.succeeded(Usage(prompt_tokens=3, completion_tokens=5))
        lease.failed(status=503)
        lease.close()
    lease.succeeded()
    lease.first_byte()
    assert fleet.endpoint("a").in_flight_per_model == {}
    (entry,) = fleet.book.recent
    assert (entry.outcome, entry.ttft_s, entry.total_s, entry.completion_tokens) == ("succeeded", 1.0, 2.0, 5)
    assert (entry.key, entry.route, entry.model, entry.endpoint) == ("bot", "/api/chat", M, "a")
    assert fleet.book.totals().attempts == 1


def test_overlap_is_noticed_on_both_sides_and_only_there() -> None:
    fleet = quiet_fleet({"a": (M,)})
    with taken(fleet) as alone:
        pass
    with taken(fleet) as first:
        assert not first.contended
        with taken(fleet) as second, taken(fleet) as third:
            assert fleet.endpoint("a").in_flight == 3
        assert first.contended
        assert second.contended
        assert third.contended
    assert not alone.contended


def test_the_default_host_is_the_named_one_or_the_first() -> None:
    assert three().default.name == "a"
    assert three(default_endpoint="b").default.name == "b"


@pytest.mark.parametrize("hosts", [("a",), ("a", "b")])
async def test_a_model_that_a_host_must_not_serve_is_not_asked_of_it_by_name_either(hosts: tuple[str, ...]) -> None:
    fleet = quiet_fleet(dict.fromkeys(hosts, (M, "secret")), each={"exclude": ("secret",), "check_interval_s": 0})
    with pytest.raises(ModelNotFound):
        fleet.try_lease(Wanted(model="secret", endpoint="a"))
    assert fleet.try_lease(Wanted(model="secret")) is None
    with taken(fleet, "unlisted", endpoint="a") as lease:
        assert lease.model == "unlisted"
