"""Fan-out, mailbox and fold: order kept, nothing lost, one end each, and everything freed when the reader leaves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.errors import ShuttingDown, UpstreamBroken
from arena.streaming import PRESSURE_BYTES, FanOut, Lane, Mailbox, Outlet, Transcript
from arena.types import Batch, Delta, Failed, Finished, Manifest, Metrics, Started, StreamEvent

pytestmark = pytest.mark.anyio


def says(*texts: str, end: bool = True) -> Lane:
    async def lane(outlet: Outlet) -> None:
        for text in texts:
            outlet.put([Delta(outlet.instance_id, text)], len(text))
        if end:
            outlet.put([Finished(outlet.instance_id, Metrics(tokens=len(texts)))])

    return lane


class Waiting:
    """A lane that says one word, then waits until it is cancelled, and notes that it was."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.freed = False

    async def __call__(self, outlet: Outlet) -> None:
        outlet.put([Delta(outlet.instance_id, "begun")])
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.freed = True


async def all_events(fan: FanOut) -> list[StreamEvent]:
    return [event async for batch in fan.events() for event in batch]


async def test_lanes_keep_their_order_and_end_once() -> None:
    events = await all_events(FanOut({"a": says("1", "2"), "b": says("x")}))
    a = [event for event in events if event.instance_id == "a"]
    assert [getattr(event, "text", None) for event in a] == ["1", "2", None]
    assert sum(isinstance(event, Finished | Failed) for event in events) == 2


async def test_a_failing_lane_does_not_touch_the_others() -> None:
    async def bad(outlet: Outlet) -> None:
        outlet.metrics_so_far = lambda: Metrics(tokens=3)
        raise UpstreamBroken("It broke.", code="upstream_eof", details="why")

    transcript = Transcript(["good", "bad"])
    for event in await all_events(FanOut({"good": says("fine"), "bad": bad})):
        transcript.apply([event])
    assert transcript.replies["good"].text == "fine"
    error = transcript.replies["bad"].error
    assert error == Failed("bad", "upstream_eof", "It broke.", Metrics(tokens=3), "why")


async def test_an_unknown_error_is_logged_and_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def bug(outlet: Outlet) -> None:
        raise ZeroDivisionError("secret")

    (event,) = await all_events(FanOut({"a": bug}))
    assert isinstance(event, Failed)
    assert event.code == "internal"
    assert "secret" not in event.message
    assert "lane failed" in caplog.text


async def test_a_lane_that_ends_silently_is_a_failure() -> None:
    _, end = await all_events(FanOut({"a": says("half", end=False)}))
    assert isinstance(end, Failed)
    assert end.code == "internal"


async def test_nothing_comes_after_a_lanes_end() -> None:
    async def chatty(outlet: Outlet) -> None:
        outlet.put([Finished("a", Metrics())])
        outlet.put([Delta("a", "late")])
        outlet.put([Finished("a", Metrics())])

    assert await all_events(FanOut({"a": chatty})) == [Finished("a", Metrics())]


async def test_stop_ends_one_lane_and_keeps_its_text() -> None:
    waiting = Waiting()
    gate = asyncio.Event()

    async def other(outlet: Outlet) -> None:
        await gate.wait()
        await says("done")(outlet)

    fan = FanOut({"a": waiting, "b": other})
    transcript = Transcript(["a", "b"])
    with anyio.fail_after(5):
        async for batch in fan.events():
            transcript.apply(batch)
            if "a" in fan.running and transcript.replies["a"].text:
                fan.stop("a")
            if transcript.replies["a"].error and not gate.is_set():
                assert fan.running == {"b"}
                gate.set()
    assert waiting.freed
    assert transcript.replies["a"].text == "begun"
    assert transcript.replies["a"].error is not None
    assert transcript.replies["a"].error.code == "stopped"
    assert transcript.replies["b"].text == "done"


@pytest.mark.parametrize("started", [True, False])
async def test_stop_before_the_first_step_still_ends_the_stream(started: bool) -> None:
    fan = FanOut({"a": says("never"), "b": says("never")})
    if started:
        fan.start()
    fan.stop(reason=ShuttingDown("Bye."))
    with anyio.fail_after(5):
        events = await all_events(fan)
    assert not any(isinstance(event, Delta) for event in events)
    assert [event.code for event in events if isinstance(event, Failed)] == ["server_shutting_down"] * 2


async def test_stop_of_one_before_the_start_lets_the_others_speak() -> None:
    fan = FanOut({"a": says("never"), "b": says("spoken")})
    fan.stop("a")
    fan.stop("nobody")
    with anyio.fail_after(5):
        events = await all_events(fan)
    assert [(event.instance_id, event.text) for event in events if isinstance(event, Delta)] == [("b", "spoken")]
    assert [(event.instance_id, event.code) for event in events if isinstance(event, Failed)] == [("a", "stopped")]


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_reader_who_leaves_frees_every_lane(how: str) -> None:
    lanes = {"a": Waiting(), "b": Waiting()}
    fan = FanOut(lanes)

    async def read() -> None:
        async with aclosing(fan.events()) as events:
            async for _ in events:
                if how == "close" and all(lane.began.is_set() for lane in lanes.values()):
                    break

    with anyio.fail_after(5):
        task = asyncio.create_task(read())
        for lane in lanes.values():
            await lane.began.wait()
        if how == "cancel":
            task.cancel()
        await asyncio.wait([task])
    assert task.cancelled() == (how == "cancel")
    assert all(lane.freed for lane in lanes.values())
    assert not fan.running


async def test_a_second_cancel_during_clean_up_still_waits_for_the_lanes() -> None:
    release = asyncio.Event()
    freed = asyncio.Event()

    async def slow_to_end(outlet: Outlet) -> None:
        outlet.put([Delta("a", "x")])
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()
            freed.set()

    fan = FanOut({"a": slow_to_end})

    async def read() -> None:
        async for _ in fan.events():
            pass

    task = asyncio.create_task(read())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not task.done()
    release.set()
    with anyio.fail_after(5):
        await asyncio.wait([task])
    assert freed.is_set()


async def test_one_after_another_runs_one_lane_at_a_time() -> None:
    running: list[int] = [0, 0]

    def counted() -> Lane:
        async def lane(outlet: Outlet) -> None:
            running[0] += 1
            running[1] = max(running)
            await anyio.lowlevel.checkpoint()
            await says("x")(outlet)
            running[0] -= 1

        return lane

    await all_events(FanOut({name: counted() for name in "abc"}, at_once=1))
    assert running == [0, 1]


class CountingTap:
    def __init__(self) -> None:
        self.paused = 0
        self.resumed = 0

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.resumed += 1


async def test_a_slow_reader_pauses_the_producers_once_and_resumes_them() -> None:
    mailbox = Mailbox(1)
    tap = CountingTap()
    outlet = Outlet("a", mailbox)
    outlet.tap = tap
    outlet.put([Delta("a", "x")], PRESSURE_BYTES)
    assert tap.paused == 0
    outlet.put([Delta("a", "y")], 1)
    outlet.put([Delta("a", "z")], 1)
    assert (tap.paused, tap.resumed) == (1, 0)
    assert await mailbox.get() == [Delta("a", "x"), Delta("a", "y"), Delta("a", "z")]
    assert (tap.paused, tap.resumed) == (1, 1)


async def test_all_that_is_ready_comes_in_one_batch() -> None:
    mailbox = Mailbox(2)
    Outlet("a", mailbox).put([Delta("a", "1")])
    Outlet("b", mailbox).put([Delta("b", "2")])
    mailbox.producer_done()
    mailbox.producer_done()
    assert await mailbox.get() == [Delta("a", "1"), Delta("b", "2")]
    assert await mailbox.get() is None


def test_transcript_ignores_what_follows_an_end_and_keeps_times() -> None:
    transcript = Transcript()
    manifest = Manifest(model="m", endpoint="e")
    batch: Batch = [Started("a", manifest), Delta("a", "", thinking="hm"), Delta("a", "yes")]
    assert transcript.apply(batch, now_s=1.5) == {"a"}
    transcript.apply([Finished("a", Metrics(tokens=2)), Delta("a", "late")], now_s=2.0)
    reply = transcript.replies["a"]
    assert (reply.text, reply.thinking, reply.manifest) == ("yes", "hm", manifest)
    assert (reply.started_s, reply.first_s, reply.ended_s) == (1.5, 1.5, 2.0)
    assert reply.ended
    assert not Transcript(["b"]).replies["b"].ended


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text(max_size=5), max_size=8), min_size=1, max_size=5), st.data())
def test_fan_out_loses_nothing_and_keeps_each_lanes_order(texts: list[list[str]], data: st.DataObject) -> None:
    """However the lanes' puts are interleaved, folding gives each lane exactly its own text."""
    mailbox = Mailbox(len(texts))
    outlets = [Outlet(str(i), mailbox) for i in range(len(texts))]
    queue = [(i, text) for i, lane in enumerate(texts) for text in lane]
    order = data.draw(st.permutations(range(len(queue)))) if queue else []
    position = [0] * len(texts)
    for index in order:
        lane = queue[index][0]
        outlets[lane].put([Delta(str(lane), texts[lane][position[lane]])])
        position[lane] += 1
    for outlet in outlets:
        outlet.put([Finished(outlet.instance_id, Metrics())])
        mailbox.producer_done()
    transcript = Transcript()

    async def drain() -> None:
        while (batch := await mailbox.get()) is not None:
            transcript.apply(batch)

    asyncio.run(drain())
    assert {name: reply.text for name, reply in transcript.replies.items()} == {
        str(i): "".join(lane) for i, lane in enumerate(texts)
    }


def test_what_waits_for_the_client_is_in_no_repr() -> None:
    """The loop logs the repr of a callback that fails."""
    mailbox = Mailbox(1)
    outlet = Outlet("a", mailbox)
    outlet.put([Delta("a", "a secret")])
    assert "secret" not in f"{mailbox!r} {outlet!r} {outlet.put!r}"
