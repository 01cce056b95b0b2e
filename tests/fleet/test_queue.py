"""Places: caps per host, one fair bounded queue, positions, deadlines."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from arena.errors import Busy, NoEndpoint
from arena.fleet import Fleet, FleetSpec, Lease, QueueSpec, Wanted
from arena.fleet.queue import MAX_RETRY_S
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import M, closing, quiet_fleet, taken, three

pytestmark = pytest.mark.anyio


def capped(clock: Clock | None = None, hosts: str = "a", cap: int = 1, **queue: float) -> Fleet:
    limits = QueueSpec(**queue)  # type: ignore[arg-type]
    return quiet_fleet(dict.fromkeys(hosts, (M,)), clock, each={"max_in_flight": cap}, queue=limits)


class Line:
    """Requests that wait; `order` tells who was served, as they were."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.order: list[str] = []
        self.leases: list[Lease] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def join(self, name: str, caller: str, model: str = M) -> None:
        self.tasks.append(asyncio.create_task(self._wait(name, Wanted(model=model, caller=caller))))
        await anyio.wait_all_tasks_blocked()

    async def _wait(self, name: str, wanted: Wanted) -> None:
        lease = await self.fleet.lease(wanted)
        self.order.append(name)
        self.leases.append(lease)

    async def serve(self, first: Lease) -> None:
        """One after another until nobody waits."""
        first.close()
        await anyio.wait_all_tasks_blocked()
        while self.leases:
            self.leases.pop(0).close()
            await anyio.wait_all_tasks_blocked()


async def test_a_host_at_its_limit_gets_no_more_and_the_peer_takes_over() -> None:
    fleet = capped(hosts="ab", cap=2)
    leases = [taken(fleet) for _ in range(4)]
    assert sorted(lease.endpoint.name for lease in leases) == ["a", "a", "b", "b"]
    assert fleet.try_lease(Wanted(model=M)) is None
    leases[0].close()
    assert taken(fleet).endpoint.name == leases[0].endpoint.name


async def test_the_queue_is_fair_between_callers() -> None:
    fleet = capped()
    line, running = Line(fleet), taken(fleet)
    for number in range(4):
        await line.join(f"greedy {number}", "greedy")
    await line.join("modest", "modest")
    await line.join("third", "third")
    assert [waiter.position for waiter in fleet.queue] == [1, 2, 3, 4, 2, 3]
    assert fleet.queue.waiting == 6
    await line.serve(running)
    assert line.order == ["greedy 0", "modest", "third", "greedy 1", "greedy 2", "greedy 3"]
    assert fleet.queue.waiting == 0


async def test_a_later_place_in_ones_own_line_counts_the_rounds_of_the_others() -> None:
    fleet = capped()
    line, running = Line(fleet), taken(fleet)
    for name, caller in (("x1", "x"), ("x2", "x"), ("x3", "x"), ("y1", "y"), ("y2", "y"), ("x4", "x")):
        await line.join(name, caller)
    positions = {id(waiter): waiter.position for waiter in fleet.queue}
    assert sorted(positions.values()) == [1, 2, 2, 3, 4, 6]
    await line.serve(running)
    assert line.order == ["x1", "y1", "x2", "y2", "x3", "x4"]


async def test_the_lease_tells_position_and_waiting() -> None:
    clock = Clock()
    fleet = capped(clock)
    line, running = Line(fleet), taken(fleet)
    assert (running.position, running.queued_s) == (0, 0.0)
    await line.join("first", "x")
    clock.advance(3)
    running.close()
    await anyio.wait_all_tasks_blocked()
    (lease,) = line.leases
    assert (lease.position, lease.queued_s) == (1, 3.0)
    lease.close()
    assert fleet.book.totals().queue.total == 3.0


async def test_who_waits_for_a_busy_host_does_not_hold_up_who_waits_for_another() -> None:
    fleet = quiet_fleet({"a": ("x",), "b": ("y",)}, each={"max_in_flight": 1})
    on_a, on_b = taken(fleet, "x"), taken(fleet, "y")
    line = Line(fleet)
    await line.join("for a", "me", "x")
    await line.join("for a too", "me", "x")
    await line.join("for b", "me", "y")
    on_b.close()
    await anyio.wait_all_tasks_blocked()
    assert line.order == ["for b"]
    await line.serve(on_a)
    assert line.order == ["for b", "for a", "for a too"]


async def test_nobody_overtakes_those_who_wait() -> None:
    fleet = capped()
    line, running = Line(fleet), taken(fleet)
    await line.join("patient", "x")
    running.close()
    assert fleet.try_lease(Wanted(model=M, caller="quick")) is None, "the place is given away already"
    await line.serve(running)


async def test_when_too_many_wait_the_next_is_told_when_to_come_back() -> None:
    clock = Clock()
    fleet = capped(clock, max_waiting=1)
    for _ in range(100):
        with taken(fleet) as lease:
            clock.advance(7)
            lease.succeeded()
    line, running = Line(fleet), taken(fleet)
    await line.join("waits", "x")
    with pytest.raises(Busy, match="waiting") as caught:
        await fleet.lease(Wanted(model=M))
    assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == ("queue_full", 503, 7.0)
    assert fleet.book.totals().refused == 1
    assert fleet.book.recent[0].error == "queue_full"
    fleet.queue.served(1e6)
    assert fleet.queue.retry_after_s() == MAX_RETRY_S
    await line.serve(running)


async def test_whoever_fills_the_queue_gives_way_to_those_who_wait_for_less() -> None:
    fleet = capped(max_waiting=3)
    line, running = Line(fleet), taken(fleet)
    for number in range(3):
        await line.join(f"greedy {number}", "greedy")
    await line.join("modest", "modest")
    assert [waiter.wanted.caller for waiter in fleet.queue] == ["greedy", "greedy", "modest"]
    with pytest.raises(Busy) as caught:
        await line.tasks[2]
    assert caught.value.code == "queue_full"
    for caller in ("modest", "greedy", "greedy"):
        with pytest.raises(Busy, match="waiting"):
            await fleet.lease(Wanted(model=M, caller=caller))
    await line.join("third", "third")
    assert fleet.queue.waiting == 3
    await line.serve(running)
    assert line.order == ["greedy 0", "modest", "third"]
    assert fleet.queue.waiting == 0


async def test_one_who_is_just_leaving_a_full_queue_gives_way_at_once() -> None:
    fleet = capped(max_waiting=2)
    line, running = Line(fleet), taken(fleet)
    for number in range(2):
        await line.join(f"greedy {number}", "greedy")
    line.tasks[1].cancel()
    await line.join("modest", "modest")
    assert line.tasks[1].cancelled()
    await line.serve(running)
    assert line.order == ["greedy 0", "modest"]


async def test_nobody_waits_longer_than_the_limit() -> None:
    fleet = capped(max_wait_s=0.01)
    with taken(fleet), pytest.raises(Busy, match=r"0\.01 s") as caught:
        await fleet.lease(Wanted(model=M))
    assert caught.value.code == "queue_timeout"
    assert fleet.queue.waiting == 0


async def test_who_leaves_the_queue_leaves_nothing_behind() -> None:
    fleet = capped()
    line, running = Line(fleet), taken(fleet)
    for name in ("leaves", "stays"):
        await line.join(name, name)
    line.tasks[0].cancel()
    await anyio.wait_all_tasks_blocked()
    await line.serve(running)
    assert line.order == ["stays"]
    assert fleet.endpoint("a").in_flight == 0


async def test_who_leaves_in_the_moment_of_being_served_gives_the_place_on() -> None:
    fleet = capped()
    line, running = Line(fleet), taken(fleet)
    for name in ("leaves", "next"):
        await line.join(name, name)
    running.close()
    line.tasks[0].cancel()
    await anyio.wait_all_tasks_blocked()
    assert line.order == ["next"]
    await line.serve(line.leases.pop())
    assert fleet.endpoint("a").in_flight == 0


async def test_who_leaves_in_the_moment_of_being_refused_raises_nothing_else() -> None:
    async with closing(capped()) as fleet:
        line, running = Line(fleet), taken(fleet)
        await line.join("waits", "x")
        fleet.apply(FleetSpec())
        line.tasks[0].cancel()
        await asyncio.wait(line.tasks)
        assert line.tasks[0].cancelled()
        running.close()


async def test_who_waits_is_told_when_the_last_endpoint_is_taken_away() -> None:
    async with closing(capped()) as fleet:
        line, running = Line(fleet), taken(fleet)
        await line.join("waits", "x")
        fleet.drain("a", True)
        await asyncio.wait(line.tasks)
        assert isinstance(line.tasks[0].exception(), NoEndpoint)
        running.close()


async def test_a_raised_limit_lets_the_waiting_in() -> None:
    async with closing(capped()) as fleet:
        line, running = Line(fleet), taken(fleet)
        await line.join("waits", "x")
        (item,) = (endpoint.spec for endpoint in fleet.endpoints)
        fleet.apply(FleetSpec(endpoints=(type(item)(name="a", url=item.url, max_in_flight=2),)))
        await anyio.wait_all_tasks_blocked()
        assert line.order == ["waits"]
        line.leases[0].close()
        running.close()


async def test_a_host_in_trouble_is_not_preferred_to_waiting_for_a_good_one() -> None:
    fleet = capped(hosts="ab")
    fleet.endpoint("b").health.refused()
    running = taken(fleet)
    assert running.endpoint.name == "a"
    assert fleet.try_lease(Wanted(model=M)) is None


async def test_in_panic_limits_hold_too() -> None:
    fleet = capped()
    fleet.endpoint("a").health.refused()
    running = taken(fleet)
    line = Line(fleet)
    await line.join("waits", "x")
    await line.serve(running)
    assert line.order == ["waits"]


async def test_a_named_host_has_limits_too() -> None:
    fleet = capped(hosts="ab")
    line, running = Line(fleet), taken(fleet, endpoint="a")
    task = asyncio.create_task(fleet.lease(Wanted(model=M, endpoint="a")))
    await anyio.wait_all_tasks_blocked()
    assert fleet.queue.waiting == 1
    await line.serve(running)
    assert task.done()
    task.result().close()


async def test_unlimited_hosts_never_queue() -> None:
    fleet = three()
    assert len({taken(fleet) for _ in range(300)}) == 300
