"""A changed specification: what stays, what goes when its last answer has ended, and secrets that never show."""

from __future__ import annotations

import asyncio
import base64

import anyio
import msgspec
import pytest

from arena.errors import ModelNotFound, Unreachable
from arena.fleet import Auth, Endpoint, EndpointSpec, Fleet, FleetSpec, Secret, StickySpec, Wanted, connect
from arena.ollama import OllamaClient
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama
from tests.fleet.hosts import BRIEF, M, closing, quiet_fleet, served_by, taken, tell, three

pytestmark = pytest.mark.anyio


def names(fleet: Fleet) -> list[str]:
    return [endpoint.name for endpoint in fleet.endpoints]


def with_endpoints(fleet: Fleet, *endpoints: EndpointSpec) -> FleetSpec:
    return msgspec.structs.replace(fleet.spec, endpoints=endpoints)


async def test_running_answers_go_on_where_their_host_is_taken_away() -> None:
    async with closing(three()) as fleet:
        a, b, c = fleet.endpoints
        running = taken(fleet, endpoint="a")
        fleet.apply(with_endpoints(fleet, b.spec, c.spec))
        assert names(fleet) == ["b", "c"]
        assert fleet.endpoint("b") is b
        assert set(served_by(fleet, 4)) <= {"b", "c"}
        assert not a.pool._closed
        running.succeeded()
        running.close()
        await anyio.wait_all_tasks_blocked()
        assert a.pool._closed
        assert fleet.book.by_endpoint()["a"].successes == 1


async def test_an_idle_host_that_is_taken_away_is_closed_at_once() -> None:
    async with closing(three()) as fleet:
        a, b, _ = fleet.endpoints
        fleet.apply(with_endpoints(fleet, b.spec))
        await anyio.wait_all_tasks_blocked()
        assert a.pool._closed
        assert not b.pool._closed


async def test_a_fleet_that_closes_does_not_forget_hosts_that_still_answer() -> None:
    fleet = three()
    a = fleet.endpoint("a")
    taken(fleet, endpoint="a")
    fleet.apply(FleetSpec())
    await fleet.aclose()
    assert a.pool._closed
    assert names(fleet) == []


async def test_who_is_asking_a_host_that_is_taken_away_is_told_so() -> None:
    async with FakeOllama(models=["x"]) as one, FakeOllama(models=["y"]) as two:
        specs = (EndpointSpec(name="one", url=one.url), EndpointSpec(name="two", url=two.url))
        async with closing(Fleet(spec=FleetSpec(endpoints=specs))) as fleet:
            await fleet.models()
            two.state(delay_ms=60_000)
            missed = asyncio.create_task(fleet.lease(Wanted(model="nowhere")))
            listed = asyncio.create_task(fleet.endpoint("two").models(0.0))
            await anyio.wait_all_tasks_blocked()
            fleet.apply(with_endpoints(fleet, specs[0]))
            await asyncio.wait({missed, listed}, timeout=5)
            assert missed.result().endpoint.name == "one", "the only one left says itself what it has"
            with pytest.raises(Unreachable, match="no longer in the fleet"):
                listed.result()


async def test_what_changes_nothing_about_the_way_changes_no_connection() -> None:
    async with closing(quiet_fleet({"a": (M, "secret:1b")})) as fleet:
        a = fleet.endpoint("a")
        fleet.weight("a", 9)
        fleet.apply(with_endpoints(fleet, msgspec.structs.replace(a.spec, exclude=("secret*",), priority=7)))
        assert fleet.endpoint("a") is a
        assert (a.spec.priority, a.weight, sorted(a.holds)) == (7, 9, [M])
        fleet.apply(with_endpoints(fleet, msgspec.structs.replace(a.spec, exclude=(), weight=2.0, down_after=1)))
        assert (a.weight, sorted(a.holds)) == (2.0, [M, "secret:1b"])
        a.health.bad(Unreachable("no"))
        assert not a.health.up


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://127.0.0.1:8"},
        {"auth": Auth.bearer("new")},
        {"timeouts": Timeouts(connect_s=9)},
        {"headers": (("X-A", "b"),)},
        {"tls_verify": False},
        {"type": "openai"},
    ],
)
async def test_another_way_is_another_host(change: dict[str, object]) -> None:
    async with closing(three()) as fleet:
        a = fleet.endpoint("a")
        fleet.apply(with_endpoints(fleet, msgspec.structs.replace(a.spec, **change)))
        assert fleet.endpoint("a") is not a
        assert not fleet.endpoint("a").heard


async def test_a_wrong_specification_changes_nothing() -> None:
    async with closing(three()) as fleet:
        before, spec = fleet.endpoints, fleet.spec
        with pytest.raises(ValueError, match="http"):
            fleet.apply(FleetSpec(endpoints=(EndpointSpec(name="a", url="ftp://a"),)))
        assert (fleet.endpoints, fleet.spec) == (before, spec)


async def test_the_embedded_engine_stays(fake: FakeOllama) -> None:
    async with closing(three()) as fleet:
        engine = Endpoint("engine", OllamaClient(fake.url, name="engine"), "engine")
        fleet.add(engine)
        assert fleet.default.name == "a"
        fleet.apply(with_endpoints(fleet, fleet.endpoint("b").spec, fleet.endpoint("a").spec))
        assert names(fleet) == ["b", "a", "engine"]
        assert fleet.default.name == "b"  # and never the engine, which was there before
        assert engine.pool.name == "engine"


async def test_new_hosts_are_probed_where_the_others_are(fake: FakeOllama) -> None:
    async with closing(Fleet()) as fleet:
        fleet.start()
        fleet.apply(FleetSpec(endpoints=(EndpointSpec(name="new", url=fake.url),)))
        await fake.arrived(1, path="/api/tags")
        fleet.add(connect(EndpointSpec(name="newer", url=fake.url)))
        await fake.arrived(2, path="/api/tags")


async def test_pins_and_turns_outlive_a_reload_that_does_not_touch_them() -> None:
    async with closing(three()) as fleet:
        home = taken(fleet, conversation="c").endpoint.name
        fleet.apply(msgspec.structs.replace(fleet.spec, aliases={"nick": (M,)}))
        lease = taken(fleet, "nick", conversation="c")
        assert (lease.endpoint.name, lease.sticky) == (home, "hit")
        fleet.apply(msgspec.structs.replace(fleet.spec, strategy="priority", sticky=StickySpec(idle_ttl_s=5)))
        assert taken(fleet, conversation="c").sticky == "miss"
        assert fleet.balancer.strategy == "priority"


async def test_waiting_requests_outlive_a_reload() -> None:
    async with closing(quiet_fleet({"a": (M,)}, each={"max_in_flight": 1})) as fleet:
        running = taken(fleet)
        waiting = asyncio.create_task(fleet.lease(Wanted(model=M)))
        await anyio.wait_all_tasks_blocked()
        spec = msgspec.structs.replace(fleet.endpoint("a").spec, url="http://127.0.0.1:8")
        fleet.apply(with_endpoints(fleet, spec))
        tell(fleet.endpoint("a"), M)
        running.close()
        lease = await waiting
        assert lease.endpoint is fleet.endpoint("a")
        lease.close()


async def test_who_waits_for_a_model_that_is_gone_after_a_reload_is_told_so() -> None:
    fleet = quiet_fleet({"a": (M, "other"), "b": ("other",)}, each={"max_in_flight": 1})
    async with closing(fleet):
        running = taken(fleet)
        waiting = asyncio.create_task(fleet.lease(Wanted(model=M)))
        await anyio.wait_all_tasks_blocked()
        a, b = (endpoint.spec for endpoint in fleet.endpoints)
        fleet.apply(with_endpoints(fleet, msgspec.structs.replace(a, exclude=(M,)), b))
        with pytest.raises(ModelNotFound, match=M):
            await waiting
        assert fleet.queue.waiting == 0
        running.close()


async def test_who_waits_for_a_host_that_is_new_is_served_when_it_has_spoken() -> None:
    async with closing(quiet_fleet({"a": (M,), "b": ("other",)}, each={"max_in_flight": 1})) as fleet:
        running = taken(fleet)
        waiting = [asyncio.create_task(fleet.lease(Wanted(model=M))) for _ in range(2)]
        await anyio.wait_all_tasks_blocked()
        a, b = (endpoint.spec for endpoint in fleet.endpoints)
        fleet.apply(with_endpoints(fleet, msgspec.structs.replace(a, url="http://127.0.0.1:8"), b))
        assert fleet.queue.waiting == 2  # nobody knows yet what it has
        tell(fleet.endpoint("a"), M)
        lease = await waiting[0]
        tell(fleet.endpoint("a"), "other")
        with pytest.raises(ModelNotFound):
            await waiting[1]
        lease.close()
        running.close()


def test_globs_hide_models() -> None:
    spec = EndpointSpec(name="a", url="http://a", include=("Llama*", "*:7b"), exclude=("*-uncensored*", "llama2"))
    models = ("llama3:8b", "mistral:7b", "qwen:3b", "llama2:latest", "llama2-uncensored:7b")
    assert [name for name in models if spec.shows(name)] == ["llama3:8b", "mistral:7b"]
    assert EndpointSpec(name="a", url="http://a").shows("anything")


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        (Auth.bearer("s3cret"), ("authorization", "Bearer s3cret")),
        (Auth.basic("me", "s3cret"), ("authorization", "Basic " + base64.b64encode(b"me:s3cret").decode())),
        (Auth.api_key("s3cret", "X-Key"), ("x-key", "s3cret")),
    ],
)
async def test_credentials_are_sent_and_never_shown(fake: FakeOllama, auth: Auth, header: tuple[str, str]) -> None:
    spec = EndpointSpec(name="a", url=fake.url, auth=auth, headers=(("X-More", "1"),), timeouts=BRIEF)
    host = connect(spec)
    await host.models()
    sent = {name.lower(): value for name, value in dict(fake.log[0].headers).items()}
    assert sent[header[0]] == header[1]
    assert sent["x-more"] == "1"
    await host.aclose()
    assert "s3cret" not in f"{spec} {spec!r} {host.url} {FleetSpec(endpoints=(spec,))}"
    with pytest.raises(TypeError):
        msgspec.json.encode(spec)


def test_secrets_compare_by_what_they_hold() -> None:
    assert Auth.bearer("a") == Auth.bearer("a")
    assert Auth.bearer("a") != Auth.bearer("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
