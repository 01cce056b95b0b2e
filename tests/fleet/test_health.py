"""Is it up: rows of probes, marks from traffic, the prober's pace, and hosts that really go down and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from arena.errors import ArenaError, Unreachable, UpstreamError, UpstreamTimeout
from arena.fleet import Endpoint, EndpointSpec, Fleet, FleetSpec, Wanted, connect
from arena.fleet.endpoint import LISTED_S
from arena.fleet.health import DOWN_CHECK_S, IDLE_CHECK_S, IDLE_S, Health, Prober
from arena.wire import Call
from tests.fake_ollama import FakeOllama
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import BRIEF, M, closing, taken, three

pytestmark = pytest.mark.anyio
SILENT = Unreachable("not reachable")
SLOW = UpstreamTimeout("too slow")
WRONG = UpstreamError("status 500")


def test_rows_of_probes_bring_it_down_and_up() -> None:
    health = Health(Clock(), up_after=2, down_after=3)
    assert (health.state, health.up) == ("unknown", True)
    assert not health.good()
    assert health.state == "healthy"
    for state in ("healthy", "healthy", "unhealthy"):
        health.bad(WRONG)
        assert health.state == state
    assert not health.good()
    assert (health.state, health.up) == ("unhealthy", False)
    assert health.good()
    assert health.up


def test_one_good_probe_between_makes_the_row_begin_anew() -> None:
    health = Health(Clock(), down_after=2)
    health.good()
    for _ in range(5):
        health.bad(WRONG)
        health.good()
    assert health.up


def test_one_probe_without_a_connection_brings_it_down() -> None:
    health = Health(Clock(), down_after=5)
    health.good()
    health.bad(SILENT)
    assert (health.state, health.up) == ("offline", False)
    health.bad(WRONG)
    assert (health.state, health.up) == ("unhealthy", False)
    assert health.good()


def test_the_first_probe_of_all_decides_alone() -> None:
    health = Health(Clock(), down_after=5)
    health.bad(WRONG)
    assert (health.state, health.up) == ("unhealthy", False)


def test_traffic_counts_at_once() -> None:
    clock = Clock()
    health = Health(clock, up_after=9, down_after=9)
    health.refused()
    assert health.state == "offline"
    clock.advance(4)
    health.alive()
    assert (health.state, health.up, health.since_s) == ("healthy", True, clock())
    health.alive()


@pytest.fixture
async def host(fake: FakeOllama, clock: Clock) -> Endpoint:
    return connect(EndpointSpec(name="a", url=fake.url, timeouts=BRIEF), clock=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def asked(fake: FakeOllama, path: str) -> int:
    return sum(record.path == path for record in fake.log)


async def test_a_probe_costs_one_question_and_the_models_are_asked_for_now_and_then(
    fake: FakeOllama, host: Endpoint, clock: Clock
) -> None:
    await host.probe()
    assert (asked(fake, "/api/tags"), asked(fake, "/api/ps"), host.state) == (1, 1, "healthy")
    for _ in range(5):
        clock.advance(2)
        await host.probe()
    assert (asked(fake, "/api/tags"), asked(fake, "/api/ps"), len(fake.log)) == (1, 6, 8)
    clock.advance(LISTED_S)
    await host.probe()
    assert asked(fake, "/api/tags") == 2
    assert host.health.checked_s == clock()
    assert host.health.next_check_s == clock() + 2.0
    await host.aclose()


async def test_a_probe_sees_what_is_in_memory(fake: FakeOllama, host: Endpoint, clock: Clock) -> None:
    await host.probe()
    assert not host.resident("tiny:latest")
    await host.client.load("tiny")
    clock.advance(2)
    await host.probe()
    assert host.resident("tiny:latest")
    assert [item.name for item in host.in_memory] == ["tiny:latest"]
    await host.aclose()


async def test_a_server_without_ps_is_asked_for_its_version_instead(
    fake: FakeOllama, host: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown() -> tuple[()]:
        raise UpstreamError("404 page not found", upstream_status=404)

    await host.probe()
    monkeypatch.setattr(host.client, "ps", unknown)
    versions = asked(fake, "/api/version")
    await host.probe()
    assert host.health.up
    assert asked(fake, "/api/version") == versions + 1
    fake.state(health="fail")
    await host.probe()
    await host.probe()
    assert host.state == "unhealthy"
    await host.aclose()


async def test_a_host_that_goes_down_and_comes_back(fake: FakeOllama, host: Endpoint, clock: Clock) -> None:
    await host.probe()
    fake.state(accept="refuse")
    await host.probe()
    assert host.state == "offline", "a system that refuses connections has nobody who listens"
    assert host.health.next_check_s == clock() + DOWN_CHECK_S
    for _ in range(5):
        host.breaker.bad(host.breaker.enter(clock()))
    host.rests_until_s = clock() + 100
    offers: list[str] = []
    host.on_ready = lambda: offers.append("ready")
    fake.state(accept="normal")
    fake.add_model("new:1b")
    await host.probe()
    assert (host.state, host.breaker.state, host.ready(clock()), bool(offers)) == ("healthy", "closed", True, True)
    assert host.known("new:1b"), "it may hold other models than before"
    await host.aclose()


async def test_a_silent_host_is_noticed_by_the_probes_own_limit(fake: FakeOllama, clock: Clock) -> None:
    spec = EndpointSpec(name="a", url=fake.url, timeouts=BRIEF, check_timeout_s=0.01)
    host = connect(spec, clock=clock)
    fake.state(delay_ms=60_000)
    for _ in range(2):
        await host.probe()
    assert host.state == "unhealthy"
    assert host.error is not None
    assert "0.01 s" in host.error
    await host.aclose()


async def test_an_openai_server_is_probed_by_its_list(fake: FakeOllama, clock: Clock) -> None:
    host = connect(EndpointSpec(name="a", url=f"{fake.url}/v1", type="openai", timeouts=BRIEF), clock=clock)
    for _ in range(2):
        await host.probe()
    assert host.state == "healthy"
    assert host.known("tiny")
    assert {record.path for record in fake.log} == {"/v1/models"}
    assert asked(fake, "/v1/models") == 2
    await host.aclose()


async def test_silence_of_a_server_that_may_do_one_thing_at_a_time_ends_no_request(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    spec = EndpointSpec(name="a", url=fake.url, type="openai", timeouts=BRIEF, check_timeout_s=0.01, down_after=1)
    host = connect(spec)
    monkeypatch.setattr(host.client, "version", never)
    fake.state(routes={"/v1/chat/completions": "fx-hang"})
    call = movable(host, "/v1/chat/completions")
    await fake.arrived(1)
    fake.state(delay_ms=60_000)
    await host.probe()
    await anyio.wait_all_tasks_blocked()
    assert (host.state, call.done.done()) == ("unhealthy", False)
    call.cancel()
    await host.aclose()


async def test_one_check_in_vain_ends_no_request_and_as_many_as_take_a_host_down_do(fake: FakeOllama) -> None:
    host = connect(EndpointSpec(name="a", url=fake.url, timeouts=BRIEF, check_timeout_s=0.05, down_after=2))
    host.health.good()
    fake.state(routes={"/api/chat": "fx-hang"})
    call = movable(host, "/api/chat")
    await fake.arrived(1)
    fake.state(delay_ms=60_000)
    await host.probe()
    await anyio.wait_all_tasks_blocked()
    assert (host.health.up, call.done.done()) == (True, False)
    await host.probe()
    with pytest.raises(UpstreamTimeout, match="answers no checks either"):
        await call.done
    await host.aclose()


@pytest.mark.parametrize(
    ("probe", "version", "ended"),
    [
        (SLOW, SLOW, True),
        (SILENT, SILENT, True),
        (WRONG, SILENT, False),
        (SILENT, WRONG, False),
    ],
    ids=["too slow", "no connection", "the probe was answered", "the version was answered"],
)
async def test_only_silence_ends_what_waits(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch, probe: ArenaError, version: ArenaError, ended: bool
) -> None:
    host = connect(EndpointSpec(name="a", url=fake.url, timeouts=BRIEF, down_after=1))
    monkeypatch.setattr(host.client, "tags", failing(probe))
    monkeypatch.setattr(host.client, "version", failing(version))
    fake.state(routes={"/api/chat": "fx-hang"})
    call = movable(host, "/api/chat")
    await fake.arrived(1)
    await host.probe()
    await anyio.wait_all_tasks_blocked()
    assert (host.health.up, call.done.done()) == (False, ended)
    if ended:
        assert isinstance(call.done.exception(), UpstreamTimeout)
    call.cancel()
    await host.aclose()


def failing(error: ArenaError) -> Callable[[], Awaitable[None]]:
    """A question that ends with `error`."""

    async def ask() -> None:
        raise error

    return ask


def movable(host: Endpoint, path: str) -> Call:
    """A request to the host that another one could take."""
    call = host.pool.call("POST", path, b"{}", on_data=print)
    call.elsewhere = lambda: True
    return call


async def test_a_host_at_work_is_probed_at_its_pace_though_nobody_asks_for_another(fake: FakeOllama) -> None:
    clock = Clock()
    async with watched(fake, clock) as (fleet, host):
        with taken(fleet):
            clock.advance(IDLE_S + 1)
            host.hurry()
            await probed(host)
            assert host.health.next_check_s == clock() + 2.0


async def test_the_prober_keeps_its_pace_and_can_be_hurried() -> None:
    probed = asyncio.Semaphore(0)
    delays: list[float] = []

    async def probe() -> None:
        probed.release()

    def delay_s() -> float:
        delays.append(1)
        return 1000.0 if len(delays) > 3 else 0.0

    prober = Prober("a", probe, delay_s, jitter=lambda: 1.0)
    with anyio.fail_after(5):
        for _ in range(3):
            await probed.acquire()
        await anyio.wait_all_tasks_blocked()
        assert probed.locked()
        prober.hurry()
        await probed.acquire()
    await prober.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "probe a"]


async def test_a_fault_of_ours_in_a_probe_is_not_the_end_of_probing(caplog: pytest.LogCaptureFixture) -> None:
    probed = asyncio.Semaphore(0)

    async def probe() -> None:
        probed.release()
        raise ZeroDivisionError

    prober = Prober("a", probe, lambda: 0.0)
    with anyio.fail_after(10):
        for _ in range(3):
            await probed.acquire()
    await prober.aclose()
    assert {record.getMessage() for record in caplog.records} == {"a fault in a probe"}
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "probe a"]


@pytest.mark.parametrize("luck", [0.0, 1.0])
async def test_jitter_never_makes_an_interval_longer(luck: float, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def watched(delay_s: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        waits.append(delay_s)
        return later(delay_s, callback)

    async def probe() -> None:
        monkeypatch.setattr(loop, "call_later", watched)

    prober = Prober("a", probe, lambda: 500.0, at_once=True, jitter=lambda: luck)
    await anyio.wait_all_tasks_blocked()
    assert [450.0 <= s <= 500.0 for s in waits if s > 100] == [True]
    await prober.aclose()


async def test_a_fleet_notices_a_dead_host_and_takes_it_back_by_itself() -> None:
    async with FakeOllama(models=[M]) as one, FakeOllama(models=[M]) as two:
        specs = tuple(
            EndpointSpec(name=name, url=fake.url, timeouts=BRIEF, check_interval_s=0.01)
            for name, fake in (("one", one), ("two", two))
        )
        async with closing(Fleet(spec=FleetSpec(endpoints=specs))) as fleet:
            fleet.start()
            fleet.start()
            await fleet.models()
            one.state(accept="refuse")
            await until(lambda: fleet.endpoint("one").state == "offline")
            assert {(await fleet.lease(Wanted(model=M))).endpoint.name for _ in range(10)} == {"two"}
            one.state(accept="normal")
            await until(lambda: fleet.endpoint("one").state == "healthy")
            assert taken(fleet).endpoint.name == "one"
        assert not [task for task in asyncio.all_tasks() if "one" in task.get_name() or "two" in task.get_name()]


async def test_a_failed_request_has_the_host_probed_at_once(fake: FakeOllama) -> None:
    spec = EndpointSpec(name="a", url=fake.url, timeouts=BRIEF, check_interval_s=3600)
    async with closing(Fleet(spec=FleetSpec(endpoints=(spec,)))) as fleet:
        fleet.start()
        (host,) = fleet.endpoints
        await probed(host)
        with taken(fleet) as lease:
            lease.failed(Unreachable("connection refused"))
        assert not host.health.up
        await until(lambda: host.health.up)


async def test_a_fleet_that_nobody_uses_is_probed_rarely_and_wakes_with_the_first_request(fake: FakeOllama) -> None:
    clock = Clock()
    async with watched(fake, clock) as (fleet, host):
        assert host.health.next_check_s == clock() + 2.0
        clock.advance(IDLE_S + 1)
        host.hurry()
        await probed(host)
        assert host.health.next_check_s == clock() + IDLE_CHECK_S
        taken(fleet).close()
        await probed(host)
        assert host.health.next_check_s == clock() + 2.0
        clock.advance(IDLE_S + 1)
        await fleet.statuses()
        await probed(host)


async def test_hosts_with_an_interval_of_zero_are_never_probed() -> None:
    async with closing(three(each={"check_interval_s": 0.0})) as fleet:
        fleet.start()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probe")]
        fleet.endpoint("a").hurry()


async def test_a_probe_never_raises(fake: FakeOllama, host: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.state(health="fail")
    await host.probe()
    assert host.state == "unhealthy"

    async def odd() -> tuple[()]:
        raise ArenaError("odd")

    monkeypatch.setattr(host.client, "tags", odd)
    await host.probe()
    assert host.error == "odd"
    await host.aclose()


@asynccontextmanager
async def watched(fake: FakeOllama, clock: Clock) -> AsyncIterator[tuple[Fleet, Endpoint]]:
    """A fleet of one host that has been probed once."""
    specs = (EndpointSpec(name="a", url=fake.url, timeouts=BRIEF),)
    async with closing(
        Fleet(spec=FleetSpec(endpoints=specs), build=lambda spec: connect(spec, clock=clock), clock=clock)
    ) as fleet:
        fleet.start()
        (host,) = fleet.endpoints
        await probed(host)
        yield fleet, host


async def probed(host: Endpoint) -> None:
    """Wait for the end of the next probe."""
    host.health.checked_s = None
    await until(lambda: host.health.checked_s is not None)


async def until(true: Callable[[], bool]) -> None:
    """Wait, a turn of the loop at a time, until the host at the other end of a socket has been heard."""
    with anyio.fail_after(10):
        while not true():
            await anyio.lowlevel.checkpoint()
