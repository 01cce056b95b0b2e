"""The fleet tab: what it says of hosts and requests, what its levers do, and its silence while nothing changes."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from arena.arena import Arena
from arena.errors import BadRequest, Busy, ModelNotFound, Unreachable, UpstreamBroken
from arena.fleet import Fleet, Lease, Usage
from arena.fleet.breaker import FAILURES
from arena.fleet.lease import Wanted
from arena.settings import load
from arena.types import LoadedModel, ModelInfo
from arena.ui.fleet import FleetEvents, FleetPanel, FleetView, pull_form, suggestions, weight_of
from arena.ui.hosts import Moment, count, host_cards, span, standing
from arena.ui.page import Page
from arena.ui.parts import DASH
from arena.ui.recent import SHOWN, recent_table, why
from tests.fake_ollama import FakeOllama
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import M, change, quiet_fleet, taken, tell, three
from tests.ui.pieces import EVIL

EPOCH_S = 1_000_000.0


def now(clock: Clock) -> Moment:
    return Moment(clock(), EPOCH_S)


def cards(fleet: Fleet, clock: Clock | None = None, *, may_manage: bool = True, **more: Any) -> str:
    more = {"can_reload": True} | more
    return host_cards(fleet, fleet.book.by_endpoint(), now(clock or Clock()), may_manage=may_manage, **more)


def text(html: str) -> str:
    """What one reads, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def view_of(fleet: Fleet, clock: Clock | None = None, **settings: Any) -> FleetView:
    arena = SimpleNamespace(fleet=fleet, settings=load(**settings), catalog=SimpleNamespace(jobs=lambda: ()))
    return FleetView(cast(Any, arena), clock or Clock(), lambda: EPOCH_S)


# ---- how a host stands


def test_every_state_is_told_with_its_reason() -> None:
    clock = Clock()
    (host,) = quiet_fleet({"a": (M,)}, clock).endpoints
    assert standing(host, now(clock)).state == "checking"
    host.health.alive()
    assert standing(host, now(clock)) == standing(host, now(clock))
    assert standing(host, now(clock)).state == "healthy"
    host.error = "a is slow today"
    assert "a is slow today" in standing(host, now(clock)).why
    host.resting = {"cloud:1b": clock() + 7, "past:1b": clock()}
    told = standing(host, now(clock))
    assert told.state == "healthy"
    assert "asks to be left alone with cloud:1b <time" in told.why
    assert "past" not in told.why
    host.rests_until_s = clock() + 12
    told = standing(host, now(clock))
    assert told.state == "resting"
    assert f'data-for="{round(EPOCH_S + clock()) + 12}"' in told.why
    clock.advance(12)
    host.health.refused()
    host.error = None
    told = standing(host, now(clock))
    assert (told.state, told.why) == ("down", "a takes no connections")
    assert "data-since" in told.since


def test_a_full_host_and_one_that_is_emptied() -> None:
    fleet = quiet_fleet({"a": (M,)}, each={"max_in_flight": 1})
    (host,) = fleet.endpoints
    host.health.alive()
    with taken(fleet):
        assert standing(host, now(Clock())).state == "full"
        fleet.drain("a", on=True)
        assert "1 still under way" in standing(host, now(Clock())).why
        assert "draining" in text(cards(fleet)).split("Under way", 2)[1]
    assert "drained" in text(cards(fleet))
    assert 'data-action="serve"' in cards(fleet)
    fleet.drain("a", on=False)
    assert 'data-action="drain"' in cards(fleet)


def test_a_breaker_is_open_and_then_on_trial() -> None:
    clock = Clock()
    fleet = quiet_fleet({"a": (M,)}, clock)
    (host,) = fleet.endpoints
    host.health.alive()
    for _ in range(FAILURES):
        with taken(fleet) as lease:
            lease.failed(UpstreamBroken("early end", code="upstream_eof"))
    told = standing(host, now(clock))
    assert told.state == "open"
    assert f"{FAILURES} failures in a row" in told.why
    assert "data-in" in told.why
    clock.advance(60)
    assert standing(host, now(clock)).state == "trial"


def test_the_head_counts_who_takes_work() -> None:
    fleet = three()
    for host in fleet.endpoints:
        host.health.alive()
    assert "All 3 hosts take work." in cards(fleet)
    fleet.drain("a", on=True)
    fleet.endpoints[1].health.refused()
    assert "1 of 3 hosts take work: 1 draining, 1 down." in cards(fleet)
    alone = quiet_fleet({"a": ()})
    assert "The only host takes no work: not asked yet." in cards(alone)
    alone.endpoints[0].health.alive()
    assert "The only host takes work." in cards(alone)


def test_a_card_tells_figures_memory_and_expiry() -> None:
    clock = Clock()
    fleet = quiet_fleet({"gpu1": (M, "b"), "gpu2": ()}, clock)
    host = fleet.endpoints[0]
    host.version = "0.9.1"
    change(host, max_in_flight=4)
    with taken(fleet, endpoint="gpu1") as lease:
        clock.advance(0.2)
        lease.first_byte()
        lease.succeeded(Usage(12_345, 1_234_567))
    with taken(fleet, endpoint="gpu1") as lease:
        lease.failed(Unreachable("gone"))
    host.health.alive()
    tell(host, M, "b")
    host._loaded = (
        LoadedModel("x", "gpu1", 2_000_000_000, 1_000_000_000, expires_at="1970-01-12T14:00:00.123456789Z"),
        LoadedModel("y", "gpu1", 5_000_000, expires_at="2318-12-31T00:00:00Z"),
        LoadedModel("z", expires_at="0001-01-01T00:00:00Z"),
        LoadedModel("w", expires_at="soon"),
    )
    shown = cards(fleet, clock)
    for says in ("Ollama 0.9.1", "2 models", "0 of 4", "1 failed", "1.2M", "from 12.3k", "2.0 GB · 50% on GPU"):
        assert says in text(shown), says
    assert 'data-for="1000800"' in shown
    assert "5 MB · on CPU · until unloaded" in text(shown)
    assert shown.count("<time") == 1, "no host says how long the others stay"
    assert 'data-action="unload" data-model="x" data-endpoint="gpu1"' in shown
    assert 'aria-label="Weight of gpu1"' in shown


def test_who_may_not_manage_sees_no_lever() -> None:
    fleet = three()
    tell(fleet.endpoints[0], M, loaded=(M,))
    shown = cards(fleet, may_manage=False)
    assert "data-action" not in shown
    assert "<form" not in shown
    assert "Reload" not in cards(fleet, can_reload=False)
    assert view_of(fleet, host="0.0.0.0", allow_open=True, management=False).pieces()[1] == ""


def test_what_is_typed_stays_when_a_host_has_other_models() -> None:
    fleet = three()
    view = view_of(fleet)
    before = view.pieces()
    tell(fleet.endpoints[0], M, "fresh")
    after = view.pieces()
    assert after[1] == before[1], "the form is another"
    assert '<option value="fresh">' in after[4]
    assert after[4] != before[4]


def test_all_hosts_are_those_whose_models_have_the_same_names() -> None:
    fleet = quiet_fleet({"a": (M,), "b": (M,), "own": ()})
    fleet.endpoint("own").kind = "engine"
    form = pull_form(fleet.endpoints)
    assert ("all 2 hosts" in form, ">own</option>" in form) == (True, True)
    assert "all 1" not in pull_form(fleet.endpoints[1:])


def test_a_host_of_another_kind_can_only_be_drained() -> None:
    fleet = quiet_fleet({"vllm": (M,)}, each={"type": "openai"})
    fleet.endpoints[0]._loaded = (LoadedModel(M),)
    shown = cards(fleet)
    assert "OpenAI-compatible" in shown
    assert 'data-action="drain"' in shown
    assert 'data-action="unload"' not in shown
    fleet.endpoints[0]._loaded = ()
    assert "in memory" not in cards(fleet)
    assert pull_form(fleet.endpoints) == ""


def test_what_a_host_that_is_down_holds_is_not_known() -> None:
    (host,) = (fleet := quiet_fleet({"a": (M,)})).endpoints
    tell(host, M, loaded=(M,))
    host.health.refused()
    assert "not known" in cards(fleet)
    assert "Unload" not in cards(fleet)


def test_without_hosts_the_tab_says_what_to_do() -> None:
    nobody = cards(Fleet())
    for says in ("No host yet", "ollama serve", "ARENA_ENDPOINTS=", "fleet.yaml", "docs/fleet.md"):
        assert says in nobody
    engine = cards(quiet_fleet({"engine": ()}, each={"type": "engine"}))
    assert "Only the embedded engine serves" in engine
    assert "href" not in nobody + engine
    assert "ARENA_ENDPOINTS" not in cards(three())
    assert "None yet" in recent_table(())


def test_requests_that_wait_are_counted() -> None:
    fleet = three()
    fleet.queue.waiting = 3
    assert "3 of 512 places" in text(cards(fleet))


def test_counts_and_spans_are_for_people() -> None:
    assert [count(value) for value in (0, 9_999, 12_345, 250_000, 1_234_567, 123_456_789)] == [
        "0", "9,999", "12.3k", "250k", "1.2M", "123M",
    ]  # fmt: skip
    assert [span(value) for value in (None, 0.004, 2.5)] == [DASH, "4 ms", "2.50 s"]


# ---- the last requests


def ended(fleet: Fleet, how: Any, tried: frozenset[str] = frozenset(), **wanted: Any) -> None:
    lease = fleet.try_lease(Wanted(model=M, **wanted), tried)
    assert isinstance(lease, Lease)
    how(lease)
    lease.close()


def test_every_end_of_a_request_has_its_words() -> None:
    fleet = three()
    ended(fleet, lambda lease: lease.succeeded(Usage(9, 120)), key="alice", route="/olla/ollama/api/chat")
    ended(fleet, lambda lease: None)
    ended(fleet, lambda lease: lease.failed(status=500))
    ended(fleet, lambda lease: lease.failed())
    ended(fleet, lambda lease: lease.failed(UpstreamBroken("x", code="odd_thing")))
    ended(fleet, lambda lease: lease.failed(Busy("x", code="queue_full")), frozenset("ab"))
    fleet.book.refuse(Wanted(model="nobody"), ModelNotFound("x"), 1.5)
    assert [why(entry) for entry in reversed(fleet.book.recent)] == [
        "", "the client hung up", "the host answered with an error", "without a reason", "odd thing",
        "the queue is full", "no such model",
    ]  # fmt: skip
    shown = recent_table(fleet.book.recent)
    for says in ("alice", "9 → 120", "failed 500", "refused 404", "a, b → c", "/olla/ollama/api/chat", "1.50 s in"):
        assert says in text(shown), says
    assert text(shown).index("refused 404") < text(shown).index("alice"), "newest first"


def test_no_more_than_fifty_are_listed_and_keys_only_where_there_are_any() -> None:
    fleet = three()
    for _ in range(60):
        ended(fleet, lambda lease: lease.succeeded())
    shown = recent_table(fleet.book.recent)
    assert shown.count("<tr>") == 1 + SHOWN
    assert "Key" not in shown


def test_nothing_from_outside_is_html() -> None:
    clock = Clock()
    fleet = quiet_fleet({EVIL: (EVIL,), "b": (M,)}, clock)
    host = fleet.endpoints[0]
    host.version = host.error = EVIL
    host._models = host._listed = (ModelInfo(EVIL),)
    host.health.alive()
    host._loaded = (LoadedModel(EVIL, EVIL, 5, expires_at=EVIL),)
    ended(fleet, lambda lease: lease.failed(UpstreamBroken(EVIL, code=EVIL)), endpoint=EVIL, key=EVIL, route=EVIL)
    ended(fleet, lambda lease: None, frozenset({EVIL}), endpoint="b")
    pieces = [cards(fleet, clock, complaint=EVIL), pull_form(fleet.endpoints), recent_table(fleet.book.recent)]
    pieces.append(suggestions(fleet.endpoints))
    host.health.refused()
    pieces.append(cards(fleet, clock))
    assert not [piece for piece in pieces if "<img" in piece or "x\"'" in piece]


# ---- silence


def test_nothing_is_sent_when_only_time_has_passed() -> None:
    clock = Clock()
    fleet = three(clock)
    view = view_of(fleet, clock)
    for host in fleet.endpoints:
        host.health.alive()
    ended(fleet, lambda lease: lease.succeeded())
    fresh, marks = view.changes("")
    assert None not in fresh
    clock.advance(500)
    assert view.changes(marks) == ([None] * 5, marks)
    fleet.drain("a", on=True)
    fresh, later = view.changes(marks)
    assert [piece is not None for piece in fresh] == [True, False, False, False, False]
    ended(fleet, lambda lease: lease.succeeded())
    assert [piece is not None for piece in view.changes(later)[0]] == [True, False, False, True, False]


def test_a_word_that_the_browser_made_up_brings_everything() -> None:
    fresh, marks = view_of(three()).changes("who knows")
    assert None not in fresh
    assert len(marks.split()) == 5


# ---- levers


@pytest.fixture
async def events(arena: Arena) -> FleetEvents:
    """The tab on a started arena."""
    with gr.Blocks(analytics_enabled=False):
        return FleetPanel(arena).render()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages to the user."""
    messages: list[str] = []
    monkeypatch.setattr(gr, "Warning", messages.append)
    monkeypatch.setattr(gr, "Info", messages.append)
    return messages


async def click(events: FleetEvents, **data: str) -> str:
    """Act as a button with these data does; what the hosts look like then."""
    updates = await events.act("", gr.EventData(None, data))
    return text(updates[events.drawn.hosts])


@pytest.mark.anyio
async def test_a_host_rests_serves_again_and_gets_another_weight(
    arena: Arena, events: FleetEvents, said: list[str]
) -> None:
    (host,) = arena.fleet.endpoints
    assert "drained" in await click(events, action="drain", endpoint="fake")
    assert host.draining
    assert "drained" not in await click(events, action="serve", endpoint="fake")
    await click(events, action="weight", endpoint="fake", value="2.5")
    assert host.weight == 2.5
    await click(events, action="weight", endpoint="fake", value="nan")
    await click(events, action="drain", endpoint="<b>gone")
    assert host.weight == 2.5
    assert said == [
        "A weight is a number above 0, at most 1000.",
        "No endpoint is called &#x27;&lt;b&gt;gone&#x27;; there are fake",
    ]


@pytest.mark.parametrize("typed", ["", "x", "0", "-1", "inf", "1001", "nan"])
def test_a_weight_is_a_number_in_its_bounds(typed: str) -> None:
    with pytest.raises(BadRequest, match="above 0"):
        weight_of(typed)
    assert weight_of(" 1000 ") == 1000


@pytest.mark.anyio
async def test_a_model_leaves_the_memory_of_its_host(arena: Arena, events: FleetEvents, said: list[str]) -> None:
    await arena.catalog.load("tiny")
    await arena.fleet.loaded(0.0)
    assert "tiny:latest" in text(events.view.pieces()[0])
    shown = await click(events, action="unload", endpoint="fake", model="tiny:latest")
    assert "Nothing in memory" in shown
    assert said == []


@pytest.mark.anyio
async def test_an_unload_whose_host_has_just_gone_is_no_failure(
    arena: Arena, events: FleetEvents, fake: FakeOllama, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unload(model: str, endpoint: str) -> None:
        fake.state(accept="refuse")
        arena.fleet.endpoint(endpoint).forget()

    monkeypatch.setattr(arena.catalog, "unload", unload)
    await click(events, action="unload", endpoint="fake", model="tiny:latest")
    assert said == []


@pytest.mark.anyio
async def test_a_model_is_pulled_to_one_host_or_to_all(fake: FakeOllama, said: list[str]) -> None:
    async with FakeOllama() as other:
        arena = Arena(load(endpoints=(f"one={fake.url}", f"two={other.url}"), engine="off"))
        async with arena.running():
            await arena.started()
            with gr.Blocks(analytics_enabled=False):
                events = FleetPanel(arena).render()
            assert "all 2 hosts" in text(events.view.pieces()[1])
            await click(events, action="pull", model=" fx-gate:id-p ", endpoint="all")
            assert {job.endpoint for job in arena.catalog.jobs()} == {"one", "two"}
            assert "on two" in text(events.view.pieces()[2])
            for job in arena.catalog.jobs():
                await click(events, action="cancel", job=job.id)
            assert {job.state for job in arena.catalog.jobs()} == {"cancelled"}
            await click(events, action="pull", model="fx-gate:id-q", endpoint="two")
            assert arena.catalog.jobs()[0].endpoint == "two"
            await click(events, action="pull", model="not a name", endpoint="all")
            assert len(said) == 1
            assert "model" in said[0]


@pytest.mark.anyio
async def test_the_fleet_file_is_read_again_and_a_mistake_is_told_until_it_is_gone(
    fake: FakeOllama, tmp_path: Path, said: list[str]
) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(f"endpoints: [{{url: {fake.url}, name: a}}]", "utf-8")
    arena = Arena(load(data=tmp_path, engine="off"))
    async with arena.running():
        await arena.started()
        with gr.Blocks(analytics_enabled=False):
            events = FleetPanel(arena).render()
        assert "Reload the fleet file" in events.view.pieces()[0]
        file.write_text(f"endpoints: [{{url: {fake.url}, name: a, weihgt: 2}}]", "utf-8")
        assert "did you mean weight?" in await click(events, action="reload")
        assert "did you mean weight?" in await click(events, action="drain", endpoint="a")
        file.write_text(f"endpoints: [{{url: {fake.url}, name: a, weight: 7}}]", "utf-8")
        assert "did you mean" not in await click(events, action="reload")
        assert arena.fleet.endpoint("a").weight == 7
        assert said == ["The fleet file was read again."]


@pytest.mark.anyio
async def test_where_managing_is_off_no_lever_works(fake: FakeOllama, said: list[str]) -> None:
    arena = Arena(load(endpoints=(f"fake={fake.url}",), engine="off", management=False))
    async with arena.running():
        await arena.started()
        with gr.Blocks(analytics_enabled=False):
            events = FleetPanel(arena).render()
        for action in ("drain", "weight", "pull", "cancel", "unload", "reload"):
            await click(events, action=action, endpoint="fake", model="tiny", value="2")
        (host,) = arena.fleet.endpoints
        assert (host.draining, host.weight, arena.catalog.jobs()) == (False, 1, ())
        assert len(said) == 6


@pytest.mark.anyio
async def test_a_look_keeps_the_hosts_awake_and_says_nothing_twice(arena: Arena, events: FleetEvents) -> None:
    woken: list[str] = []
    arena.fleet.wake = lambda: woken.append("")  # type: ignore[method-assign]
    first = events.refresh(None)
    assert set(first) == set(events.outputs)
    second = events.refresh(first[events.drawn.shown])
    assert second == {events.drawn.shown: gr.skip()}
    assert len(woken) == 2


@pytest.mark.anyio
async def test_hosts_that_nobody_probes_are_asked_by_whoever_looks(fake: FakeOllama, tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(f"endpoints: [{{url: {fake.url}, name: a, check_interval: 0}}]", "utf-8")
    arena = Arena(load(data=tmp_path, engine="off"))
    with gr.Blocks(analytics_enabled=False):
        events = FleetPanel(arena).render()
    events.refresh("")
    await fake.arrived(1, path="/api/tags")
    await arena.fleet.aclose()


def test_the_browser_itself_switches_the_polling() -> None:
    async def building() -> gr.Blocks:
        return Page(Arena(load(engine="off"))).build()

    page = asyncio.run(building())
    timers = {block._id for block in page.blocks.values() if isinstance(block, gr.Timer)}
    switches = [
        function
        for function in page.fns.values()
        if function.fn is None and {output._id for output in function.outputs} <= timers and function.outputs
    ]
    tabs = sum(isinstance(block, gr.Tab) for block in page.blocks.values())
    switched = Counter(function.outputs[0]._id for function in switches)
    assert switched
    assert set(switched.values()) == {tabs}, "one for each tab"
    assert all(function.js and not function.queue for function in switches)
