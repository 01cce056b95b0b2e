"""The page as Gradio sees it, and the behaviour of Gradio that the page leans on."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from unittest import mock

import gradio as gr
import pytest
from gradio.queueing import Queue
from gradio.state_holder import SessionState

from arena.arena import Arena
from arena.settings import load
from arena.types import ModelInfo
from arena.ui import GRADIO_ENVIRONMENT, pace
from arena.ui.column_events import ColumnEvents
from arena.ui.compare import CompareParts, Updates, draw_compare
from arena.ui.conversation import Conversations
from arena.ui.drawer_events import DrawerEvents
from arena.ui.lineup import ColumnChoice, kept_lineup, kept_presets
from arena.ui.memory import Memory, model_choices
from arena.ui.page import MAX_EVENTS, Page
from arena.ui.sending import Sending
from arena.ui.sessions import Session, Sessions
from tests.ui.pieces import FULL, turn

T = TypeVar("T")
REQUEST = cast(gr.Request, SimpleNamespace(session_hash="s", query_params={}))


def event(**data: str) -> gr.EventData:
    """A click on something with these data."""
    return gr.EventData(None, data)


def in_a_loop(build: Callable[[], T]) -> T:
    """Build inside an event loop, as Gradio would otherwise open one of its own and leave it open."""

    async def building() -> T:
        return build()

    return asyncio.run(building())


@pytest.fixture(scope="module")
def built() -> gr.Blocks:
    """The whole page."""
    return in_a_loop(Page(Arena(load(engine="off"))).build)


@pytest.mark.parametrize("where", ["board-body", "models", "about"])
def test_what_takes_time_to_fill_says_so(built: gr.Blocks, where: str) -> None:
    piece: Any
    (piece,) = [block for block in built.blocks.values() if getattr(block, "elem_id", None) == where]
    assert "…</p>" in piece.value
    assert 'role="status"' in piece.value


class Desk:
    """The compare tab drawn without a server, with all its handlers."""

    def __init__(self) -> None:
        arena = Arena(load(engine="off"))
        self.conversations, self.sessions = Conversations(arena), Sessions("ABCDEF")
        with gr.Blocks(analytics_enabled=False):
            self.drawn: CompareParts = draw_compare(6)
        everything = (self.drawn, self.conversations, self.sessions)
        self.sending, self.memory, self.drawer = Sending(*everything), Memory(*everything), DrawerEvents(*everything)
        self.columns = {
            letter: ColumnEvents(self.drawn, column, self.conversations, self.sessions)
            for letter, column in self.drawn.columns.items()
        }
        self.session: Session = self.sessions.of("s")
        self.session.set_columns([ColumnChoice("a"), ColumnChoice("b")])

    def values(self, **changes: Any) -> dict[Any, Any]:
        drawn = self.drawn
        values = {"prompt": {"text": "", "files": []}, "system": "", "order": "together", "saved": None} | changes
        return {getattr(drawn, name): value for name, value in values.items()}


@pytest.fixture(scope="module")
def drawn_once() -> Desk:
    return in_a_loop(Desk)


@pytest.fixture
def desk(drawn_once: Desk) -> Desk:
    """Fresh sessions on components that are drawn once."""
    drawn_once.sessions.__init__("ABCDEF")  # type: ignore[misc]
    drawn_once.session = drawn_once.sessions.of("s")
    drawn_once.session.set_columns([ColumnChoice("a"), ColumnChoice("b")])
    return drawn_once


# ---- the page


def test_every_listener_is_private_and_limits_nobody(built: gr.Blocks) -> None:
    assert len(built.fns) > 50
    for function in built.fns.values():
        if function.targets[0][1] == "unload":
            continue  # the server calls it by itself; it is no listener that anyone could reach
        assert function.concurrency_limit is None, function.name
        assert function.api_visibility == "private", function.name


def test_the_queue_is_wide_and_calm(built: gr.Blocks) -> None:
    assert built.max_threads == built._queue.max_size == MAX_EVENTS
    assert built._queue.progress_update_sleep_when_free == pace.PROGRESS_POLL_S


def test_the_queue_looks_often_after_an_event_and_seldom_after_a_pause(built: gr.Blocks) -> None:
    queue, now_s = built._queue, time.time()
    with mock.patch.dict(queue.event_analytics, clear=True):
        assert queue.sleep_when_free == pace.IDLE_POLL_S
        queue.event_analytics["long ago"] = {"time": now_s - pace.LINGER_S - 1}
        assert queue.sleep_when_free == pace.IDLE_POLL_S
        queue.event_analytics["just now"] = {"time": now_s}
        assert queue.sleep_when_free == pace.BUSY_POLL_S


def test_a_new_event_is_told_to_the_queue_as_it_reads_it() -> None:
    assert '"time": time.time()' in inspect.getsource(Queue.push)


def test_components_are_few_enough_to_be_quick(built: gr.Blocks) -> None:
    assert len(built.blocks) < 260, "every component costs the browser time at every update"


def test_the_pool_has_as_many_columns_as_the_settings_say() -> None:
    built = in_a_loop(Page(Arena(load(engine="off", max_columns=3))).build)
    ids = {getattr(block, "elem_id", None) for block in built.blocks.values()}
    assert {"col-a", "col-b", "col-c"} <= ids
    assert "col-d" not in ids


# ---- what the page leans on


def test_the_queue_still_reads_the_two_numbers_that_calm_it() -> None:
    assert "self.sleep_when_free" in inspect.getsource(Queue.start_processing)
    assert "self.progress_update_sleep_when_free" in inspect.getsource(Queue.start_progress_updates)


def test_gradio_still_takes_its_environment() -> None:
    assert GRADIO_ENVIRONMENT["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert gr.__version__.startswith("6.")


def test_missing_keys_of_a_dictionary_leave_components_alone() -> None:
    async def run() -> None:
        with gr.Blocks(analytics_enabled=False) as demo:
            first, second = gr.Textbox(), gr.Textbox()
            gr.Button().click(lambda: {first: "x"}, None, [first, second])
        (function,) = demo.fns.values()
        output = await demo.process_api(function, [], state=SessionState(demo))
        assert output["data"] == ["x", {"__type__": "update"}]

    asyncio.run(run())


def test_an_events_data_are_its_attributes() -> None:
    assert event(action="pull").action == "pull"


# ---- handlers: sending


@pytest.mark.anyio
async def test_an_empty_prompt_changes_nothing(desk: Desk) -> None:
    updates = await desk.sending.take(desk.values(), REQUEST)
    assert updates[desk.drawn.prompt] == gr.skip()
    assert desk.session.opened is None


@pytest.mark.anyio
async def test_a_prompt_is_taken_with_the_settings_of_the_session(desk: Desk) -> None:
    values = desk.values(prompt={"text": "Why?", "files": []}, system="S")
    updates = await desk.sending.take(values, REQUEST)
    assert updates[desk.drawn.prompt] == {"text": "", "files": []}
    assert updates[desk.drawn.columns["A"].chat] == [{"role": "user", "content": "Why?"}]
    assert desk.session.opened is not None
    first, second = desk.session.opened.requests
    assert (first.instance.system, second.instance.model) == ("S", "b")


@pytest.mark.anyio
async def test_a_prompt_for_a_busy_column_stays_in_the_box(desk: Desk) -> None:
    desk.session.columns["A"].turns.append(turn())
    updates = await desk.sending.take(desk.values(prompt={"text": "And?", "files": []}), REQUEST)
    assert updates[desk.drawn.prompt] == gr.skip()


def test_a_stream_changes_one_component_only(built: gr.Blocks) -> None:
    streams = [function for function in built.fns.values() if function.name == "answer"]
    assert {len(function.outputs) for function in streams} == {1}, "every output costs time at every frame"
    assert {tuple(function.show_progress_on or ()) for function in built.fns.values()} == {()}


@pytest.mark.anyio
async def test_a_forgotten_session_gets_its_columns_back_from_the_browser(desk: Desk) -> None:
    desk.sessions.leave("s")
    other = cast(gr.Request, SimpleNamespace(session_hash="after a restart", query_params={}))
    saved = {"columns": [{"model": "x", "options": {"temperature": 0.3}}]}
    await desk.sending.take(desk.values(prompt={"text": "Why?", "files": []}, saved=saved), other)
    session = desk.sessions.of("after a restart")
    assert session.visible == ["A"]
    assert session.choices["A"].options.temperature == 0.3


def test_edit_brings_the_last_prompt_back_and_can_be_given_up(desk: Desk) -> None:
    prompt, mode = desk.drawn.prompt, desk.drawn.mode
    assert desk.sending.edit(REQUEST)[prompt] == gr.skip()
    desk.session.columns["A"].turns.append(turn(metrics=FULL))
    updates = desk.sending.edit(REQUEST)
    assert updates[prompt]["text"] == "Why?"
    assert "Editing" in updates[mode]
    given_up = desk.sending.leave_mode(event(action="keep"), REQUEST)
    assert not desk.session.editing
    assert given_up[prompt]["text"] == ""


def test_solo_is_said_and_left_again(desk: Desk) -> None:
    updates = desk.columns["B"].solo(REQUEST)
    assert 'data-only="b"' in updates[desk.drawn.mode]
    assert desk.columns["B"].solo(REQUEST)[desk.drawn.mode] == '<div class="mode"></div>'
    desk.columns["B"].solo(REQUEST)
    assert "data-only" not in desk.sending.leave_mode(event(action="all"), REQUEST)[desk.drawn.mode]


def test_examples_fill_the_box_and_a_new_chat_empties_the_columns(desk: Desk) -> None:
    assert desk.sending.example(event(prompt="Hi"))[desk.drawn.prompt]["text"] == "Hi"
    desk.session.columns["A"].turns.append(turn(metrics=FULL))
    updates = desk.sending.clear(REQUEST)
    assert updates[desk.drawn.columns["A"].chat] == []
    desk.sending.stop_all(REQUEST)


# ---- handlers: columns and settings


def test_columns_are_added_up_to_the_last_and_closed(desk: Desk) -> None:
    updates = desk.memory.add(desk.values(), REQUEST)
    assert updates[desk.drawn.columns["C"].model] == "b"
    for _ in "DEF":
        desk.memory.add(desk.values(), REQUEST)
    assert desk.memory.add(desk.values(), REQUEST) == {desk.drawn.mode: gr.skip()}
    desk.columns["A"].close(REQUEST)
    updates = desk.memory.add(desk.values(), REQUEST)
    assert desk.drawn.columns["A"].model not in updates, "it still has its own"
    desk.columns["A"].stop(REQUEST)


def test_a_model_is_chosen_and_the_settings_stay(desk: Desk) -> None:
    column = desk.columns["A"]
    desk.session.choices["A"] = ColumnChoice("a", think=True)
    column.choose(desk.values() | {column.column.model: "z  ·  1 GB"}, REQUEST)
    assert desk.session.choices["A"] == ColumnChoice("z", think=True)


def widget_values_of(desk: Desk, updates: Updates) -> dict[Any, Any]:
    return {widget: updates[widget] for widget in desk.drawn.drawer.widgets.values()}


def test_the_drawer_shows_a_column_and_sets_it(desk: Desk) -> None:
    desk.session.choices["B"] = ColumnChoice("b", system="S")
    updates = asyncio.run(desk.columns["B"].open_settings(REQUEST))
    assert "Settings of B" in updates[desk.drawn.drawer.title]
    values = widget_values_of(desk, updates)
    values |= {desk.drawn.drawer.widgets["seed_on"]: True, desk.drawn.drawer.widgets["seed"]: 9}
    changed = desk.drawer.change(values, REQUEST)
    assert "seed 9" in changed[desk.drawn.columns["B"].facts]
    assert desk.session.choices["B"].model == "b"
    assert desk.session.choices["B"].system == "S"
    assert desk.session.choices["A"].options.seed is None


def test_presets_are_saved_applied_and_dropped(desk: Desk) -> None:
    drawer, presets = desk.drawn.drawer, desk.drawn.presets
    desk.session.choices["A"] = ColumnChoice("a", think=True)
    asyncio.run(desk.columns["A"].open_settings(REQUEST))
    assert desk.drawer.save_preset({drawer.preset: "Precise", presets: None}, REQUEST)[presets] == gr.skip()
    kept = desk.drawer.save_preset({drawer.preset: " mine ", presets: None}, REQUEST)[presets]
    assert kept_presets(kept) == {"mine": ColumnChoice(think=True)}
    asyncio.run(desk.columns["B"].open_settings(REQUEST))
    applied = desk.drawer.apply_preset({drawer.preset: "mine", presets: kept}, REQUEST)
    assert applied[drawer.widgets["think"]] == "on"
    assert desk.session.choices["B"] == ColumnChoice("b", think=True)
    desk.drawer.apply_preset({drawer.preset: "unheard of", presets: kept}, REQUEST)
    assert desk.session.choices["B"] == ColumnChoice("b", think=True)
    dropped = desk.drawer.drop_preset({drawer.preset: "mine", presets: kept})[presets]
    assert kept_presets(dropped) == {}


# ---- handlers: memory


@pytest.mark.anyio
async def test_a_page_is_restored_and_looked_after(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[ModelInfo] = []

    async def listed() -> tuple[ModelInfo, ...]:
        return tuple(models)

    monkeypatch.setattr(desk.conversations, "models", listed)
    fresh = desk.sessions.of("fresh")
    assert await desk.memory.refresh(fresh) == {desk.drawn.mode: gr.skip()}, "it has not been opened yet"
    await desk.memory.restore(None, None, {}, fresh)
    assert fresh.visible == ["A", "B"]
    models[:] = [ModelInfo("one", size_bytes=1), ModelInfo("two", size_bytes=2)]
    updates = await desk.memory.refresh(fresh)
    assert fresh.choices["A"].model == "one"
    assert updates[desk.drawn.columns["B"].model].value == "two"
    asked = {"models": "x,one", "prompt": "Why?", "seed_b": "3"}
    updates = await desk.memory.restore(None, None, asked, fresh)
    assert updates[desk.drawn.prompt]["text"] == "Why?"
    assert fresh.choices["B"].options.seed == 3
    assert ("x", "x") in updates[desk.drawn.columns["A"].model].choices


def test_a_model_on_several_endpoints_is_offered_on_each() -> None:
    models = (ModelInfo("a", ("x", "y"), loaded_on=("y",)), ModelInfo("b", ("x",)))
    assert model_choices(models, [ColumnChoice("a", endpoint="x"), ColumnChoice("a", endpoint="gone")]) == [
        ("a · loaded", "a"),
        ("a on x", "a on x"),
        ("a on y · loaded", "a on y"),
        ("b", "b"),
        ("a on gone", "a on gone"),
    ]


def test_a_column_takes_the_endpoint_that_was_picked(desk: Desk) -> None:
    column = desk.columns["A"]
    column.choose(desk.values() | {column.column.model: "a on gpu1"}, REQUEST)
    assert desk.session.choices["A"] == ColumnChoice("a", endpoint="gpu1")
    applied = desk.drawer.apply_preset({desk.drawn.drawer.preset: "Precise", desk.drawn.presets: None}, REQUEST)
    assert "on gpu1" in applied[column.column.facts]
    column.choose(desk.values() | {column.column.model: "a"}, REQUEST)
    assert desk.session.choices["A"].endpoint == ""


def test_what_the_browser_keeps_and_what_a_link_says(desk: Desk) -> None:
    kept = desk.memory.remember(desk.values(system="S"), REQUEST)
    assert [choice.model for choice in kept_lineup(kept).columns] == ["a", "b"]
    assert desk.memory.link(desk.values(prompt={"text": "Why?"}), REQUEST) == "?models=a,b&prompt=Why%3F"


def test_uploaded_files_do_not_pile_up(built: gr.Blocks) -> None:
    assert built.delete_cache == (3600, 86400)
