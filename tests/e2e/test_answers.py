"""Answers on the page: side by side, each at its own pace, each stopped, repeated and continued by itself."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.e2e.arena_page import ArenaPage
from tests.e2e.conftest import PATIENCE_S
from tests.fake_ollama import RunningFake, text_of
from tests.fake_ollama.stopwatch import Stopwatch, family

FREED_S = 0.5
"""A stopped column and a page that leaves must free their models within this time."""


def parted_at(upstream: RunningFake, count: int) -> float:
    """When the last of the `count` requests that were cut had parted."""
    moments = [record.parted_at for record in upstream.log if record.cut and record.parted_at is not None]
    assert len(moments) == count
    return max(moments)


def test_two_columns_stream_each_at_its_own_pace(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-gate:id-a_n-4", "fx-gate:id-b_n-4")
    arena.send()
    upstream.arrived(2, path="/api/chat")
    upstream.release("a", 2)
    expect(arena.log("a")).to_contain_text(text_of(2).strip())
    arena.in_state("a", "writing")
    arena.in_state("b", "reading")
    expect(arena.growing("a")).to_be_visible()
    upstream.release("a", 2)
    arena.done("a")
    expect(arena.page.locator("#arena-live")).to_have_text("A: done")
    expect(arena.growing("a")).to_have_count(0)
    arena.in_state("b", "reading")
    upstream.release("b", 4)
    arena.done("b")
    expect(arena.page.locator("#arena-live")).to_have_text("B: done")
    expect(arena.log("b")).to_contain_text(text_of(4).strip())


def test_stopping_one_column_lets_the_other_go_on(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-gate:id-a_n-3", "fx-gate:id-b_n-3")
    arena.send()
    upstream.arrived(2, path="/api/chat")
    upstream.release("a")
    upstream.release("b")
    arena.in_state("a", "writing")
    watch = Stopwatch(*family())
    arena.click("stop-a")
    upstream.closed(1, within_s=PATIENCE_S)
    assert watch.own_s(parted_at(upstream, 1)) < FREED_S
    arena.in_state("a", "stopped")
    upstream.release("b", 2)
    arena.done("b")
    expect(arena.log("a")).to_contain_text(text_of(1).strip())


def test_escape_stops_all(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-hang", "fx-stall:n-2")
    arena.send()
    arena.in_state("b", "writing")
    upstream.arrived(2, path="/api/chat")
    arena.page.keyboard.press("Escape")
    arena.in_state("a", "stopped")
    arena.in_state("b", "stopped")
    upstream.closed(2)


def test_one_button_stops_all_on_any_screen(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-hang", "fx-stall:n-2")
    stop, edit = arena.page.get_by_role("button", name="Stop all"), arena.page.locator("#edit")
    expect(arena.picker("b")).to_have_attribute("title", re.compile("^fx-stall:n-2"))
    expect(stop).to_be_hidden()
    expect(edit).to_be_hidden()  # nothing has been asked that could be edited
    arena.send()
    arena.in_state("b", "writing")
    expect(stop).to_be_visible()
    arena.page.set_viewport_size({"width": 400, "height": 800})
    expect(edit).to_be_hidden()
    stop.click()
    arena.in_state("a", "stopped")
    arena.in_state("b", "stopped")
    upstream.closed(2)
    expect(stop).to_be_hidden()
    expect(edit).to_be_visible()


def test_leaving_frees_the_models_also_when_they_are_silent(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-stall:n-3", "fx-hang", "fx-slow:n-900_ms-20")
    arena.send()
    arena.in_state("a", "writing")
    arena.in_state("c", "writing")
    upstream.arrived(3, path="/api/chat")
    watch = Stopwatch(*family())
    arena.page.close()
    upstream.closed(3, within_s=PATIENCE_S)
    assert watch.own_s(parted_at(upstream, 3)) < FREED_S


def test_reloading_frees_the_models_too(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-stall:n-3")
    arena.send()
    arena.in_state("a", "writing")
    arena.page.reload()
    upstream.closed(1, within_s=PATIENCE_S)


def test_a_hidden_tab_misses_nothing_of_a_growing_answer(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-gate:id-a_n-9", "fx-gate:id-b_n-9")
    arena.send()
    upstream.release("a", 2)
    expect(arena.log("a")).to_contain_text(text_of(2).strip())
    arena.tab("Models")
    upstream.release("a", 4)
    arena.tab("Compare")
    upstream.release("a")
    expect(arena.log("a")).to_contain_text(text_of(7).strip())
    arena.in_state("a", "writing")
    arena.click("stop-a")
    arena.in_state("a", "stopped")
    expect(arena.log("a")).to_contain_text(text_of(7).strip())
    arena.page.keyboard.press("Escape")


def test_an_error_stays_in_its_own_column(arena: ArenaPage) -> None:
    arena.open("tiny", "absent:1b", "fx-status:c-500", "fx-nodone:n-3")
    arena.send()
    arena.done("a")
    expect(arena.notice("b")).to_contain_text("Model not installed")
    expect(arena.notice("b")).to_contain_text("model_not_found")
    expect(arena.notice("c")).to_contain_text("Try again")
    expect(arena.log("d")).to_contain_text(text_of(3).strip())
    expect(arena.notice("d")).to_contain_text("The answer broke off")
    expect(arena.notice("a")).to_have_count(0)


def test_a_missing_model_is_pulled_from_its_column_and_then_asked(arena: ArenaPage) -> None:
    arena.open("absent:1b", "tiny")
    arena.send()
    arena.notice("a").get_by_role("button", name="Pull absent:1b").click()
    arena.notice("a").get_by_role("button", name="Ask it now").click()
    arena.done("a")
    expect(arena.notice("a")).to_have_count(0)


def test_asking_one_column_again_leaves_the_others(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-gate:id-a_n-1", "fx-gate:id-b_n-9")
    arena.send()
    upstream.release("a")
    upstream.release("b")
    arena.done("a")
    arena.in_state("b", "writing")
    arena.click("retry-a")
    upstream.arrived(3, path="/api/chat")
    arena.in_state("b", "writing")
    upstream.release("a")
    arena.done("a")
    arena.click("stop-b")
    arena.in_state("b", "stopped")
    assert arena.log("a").locator(".user-row").count() == 1


def test_the_last_prompt_is_edited_in_place(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("tiny", "mistral:7b")
    arena.send("What is it?")
    arena.done("a", "b")
    arena.prompt.press("ArrowUp")
    expect(arena.prompt).to_have_value("What is it?")
    expect(arena.page.locator("#mode")).to_contain_text("Editing your last prompt")
    arena.send("What was it?")
    expect(arena.log("a")).to_contain_text("What was it?")
    arena.done("a", "b")
    expect(arena.log("a")).not_to_contain_text("What is it?")
    asked = [record for record in upstream.log if record.path == "/api/chat"]
    assert asked[-1].body["messages"] == [{"role": "user", "content": "What was it?"}]


def test_one_column_continues_alone_and_the_others_come_back(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("tiny", "mistral:7b")
    arena.send("One")
    arena.done("a", "b")
    arena.click("solo-b")
    expect(arena.page.locator("#mode")).to_contain_text("Only B gets your next prompt")
    expect(arena.prompt).to_have_attribute("placeholder", "Ask B only\u2026")
    arena.send("Two")
    expect(arena.log("b")).to_contain_text("Two")
    arena.done("b")
    expect(arena.log("a")).not_to_contain_text("Two")
    arena.page.locator("#mode").get_by_role("button", name="Send to all again").click()
    expect(arena.page.locator("#mode p")).to_have_count(0)
    expect(arena.prompt).to_have_attribute("placeholder", "Ask all columns\u2026")
    arena.send("Three")
    expect(arena.log("a")).to_contain_text("Three")
    arena.done("a", "b")
    asked = {record.model: len(record.body["messages"]) for record in upstream.log if record.path == "/api/chat"}
    assert asked == {"tiny:latest": 3, "mistral:7b": 5}


def test_one_after_another_says_who_waits(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-gate:id-a_n-1", "fx-gate:id-b_n-1", query="&order=one_after_another")
    expect(arena.page.get_by_text("each alone on the machine")).to_be_visible()
    arena.send()
    expect(arena.status("b")).to_contain_text("queued, after A")
    upstream.release("a")
    arena.done("a")
    upstream.release("b")
    arena.done("b")
    expect(arena.status("b")).not_to_contain_text("shared")


def test_thinking_is_folded_apart_and_counted_apart(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("fx-gate:id-a_n-3_think-4")
    arena.send()
    upstream.release("a", 2)
    fold, answer = arena.growing("a").locator("details"), arena.growing("a").locator(".prose")
    thought = fold.locator("p")
    expect(fold).to_have_attribute("open", "")
    expect(fold.locator("summary")).to_have_text("Thinking\u2026")
    expect(thought).to_be_visible()
    expect(thought).to_have_text(thoughts_of(2).strip())
    expect(answer).to_have_text("")
    upstream.release("a", 2)
    expect(thought).to_have_text(thoughts_of(4).strip())
    upstream.release("a", 2)
    expect(answer).to_have_text(text_of(2).strip())
    expect(fold).not_to_have_attribute("open", "")
    expect(fold.locator("summary")).to_have_text("Thought")
    expect(thought).to_be_hidden()
    expect(thought).to_have_text(thoughts_of(4).strip())
    grown = answer.bounding_box()
    upstream.release("a")
    arena.done("a")
    expect(arena.log("a").locator(".thought-group")).to_contain_text("Thought")
    whole = arena.log("a").locator(".bot-row .prose").last.bounding_box()
    assert grown is not None
    assert whole is not None
    assert abs(whole["y"] - grown["y"]) <= 2, "what is being read stays where it is"
    expect(arena.log("a")).to_contain_text(text_of(3).strip())
    expect(arena.status("a")).to_contain_text("first word")
    expect(arena.page.locator("#status-a .bar")).to_be_visible()


def thoughts_of(n: int) -> str:
    """The first `n` thoughts of the fake's models."""
    return text_of(n, 1001)


def test_a_reader_who_scrolls_up_is_left_in_peace(page: Page, arena: ArenaPage) -> None:
    arena.open("fx-slow:n-3000_ms-20_size-160", "fx-slow:n-3000_ms-20_size-160")
    arena.send()
    tall = "element => element.scrollHeight > element.clientHeight + 900"
    for letter in "ab":
        page.wait_for_function(f"({tall})(document.querySelector('#chat-{letter} [role=log]'))")
    arena.log("a").evaluate(
        "element => { let last = element.scrollTop; element.addEventListener('scroll', () => {"
        " window.wentUp ||= element.scrollTop < last - 100; last = element.scrollTop; }); }"
    )
    arena.log("a").hover()
    page.mouse.wheel(0, -400)
    page.wait_for_function("window.wentUp")  # far from the end it may also be because text comes fast
    where = arena.log("a").evaluate("element => element.scrollTop")
    height = arena.log("a").evaluate("element => element.scrollHeight")
    page.wait_for_function(f"document.querySelector('#chat-a [role=log]').scrollHeight > {height} + 300")
    assert abs(arena.log("a").evaluate("element => element.scrollTop") - where) < 2
    page.wait_for_function(
        "(() => { const e = document.querySelector('#chat-b [role=log]');"
        " return e.scrollHeight - e.scrollTop - e.clientHeight < 60; })()"
    )
    page.keyboard.press("Escape")
    arena.in_state("a", "stopped")
