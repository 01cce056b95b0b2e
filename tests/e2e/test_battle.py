"""The battle tab on scripted models: one pace for all sides, ranks by key, failures, reloads, narrow screens."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.arena_page import ArenaPage
from tests.fake_ollama import RunningFake, text_of

GATES = ("fx-gate:id-a_n-6", "fx-gate:id-b_n-6")


@pytest.fixture
def ballot(page: Page) -> Locator:
    """What stands between the answers and the prompt."""
    return page.locator(".ballot")


def enter(arena: ArenaPage, *models: str) -> None:
    """Open the battle tab; of `models` all fight."""
    arena.open(*models)
    arena.tab("Battle")
    if models:
        fight_all(arena.page)


def fight_all(page: Page) -> None:
    """Let the columns of the compare tab fight."""
    page.get_by_role("radio", name="Compare's columns").check()
    expect(page.locator("#battle-hint")).to_contain_text("drawn from the columns")


def ask(page: Page, text: str = "Hello there") -> None:
    """Type a prompt and press Enter."""
    prompt = page.locator("#battle-prompt textarea")
    prompt.fill(text)
    prompt.press("Enter")


def in_phase(ballot: Locator, phase: str) -> None:
    """Wait until the battle is in this phase."""
    expect(ballot).to_have_attribute("data-phase", phase)


def test_both_sides_grow_in_step_and_a_reload_loses_no_vote(
    arena: ArenaPage, page: Page, ballot: Locator, upstream: RunningFake
) -> None:
    enter(arena, *GATES)
    ask(page)
    upstream.arrived(2, path="/api/chat")
    upstream.release("a", 6)
    expect(page.locator("#status-battle-a")).to_contain_text("waiting until both have begun")
    upstream.release("b", 2)
    for side in "ab":
        expect(page.locator(f"#chat-battle-{side} .growing")).to_contain_text(text_of(2).strip())
        expect(page.locator(f"#chat-battle-{side}")).not_to_contain_text(text_of(6).strip())
    upstream.release("b", 4)
    in_phase(ballot, "ready")
    page.reload()
    in_phase(ballot, "ready")
    expect(page.get_by_role("tab", name="Battle")).to_have_attribute("aria-selected", "true")
    for side in "ab":
        expect(page.locator(f"#chat-battle-{side} .bot-row")).to_contain_text(text_of(6).strip())
        expect(page.locator(f"#head-battle-{side}")).to_contain_text("hidden until you vote")
    page.get_by_role("button", name="Tie").click()
    in_phase(ballot, "voted")
    expect(page.locator("#head-battle-a")).to_contain_text("fx-gate")
    fight_all(page)
    ask(page, "Another one")
    upstream.arrived(4, path="/api/chat")
    page.reload()
    upstream.closed(2, within_s=60)
    in_phase(ballot, "failed")
    expect(ballot).to_contain_text("The page was left")


def test_more_sides_are_ranked_by_keys(arena: ArenaPage, page: Page, ballot: Locator) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    enter(arena)
    page.get_by_role("radio", name="3", exact=True).check()
    expect(page.locator("#col-battle-c")).to_be_visible()
    ask(page)
    in_phase(ballot, "ready")
    expect(ballot).to_be_focused()
    page.locator("#head-battle-a").get_by_role("button", name="Show side C").click()
    expect(page.locator("#head-battle-c")).to_be_in_viewport(ratio=1)
    order, vote = ballot.locator(".order"), ballot.get_by_role("button", name="Vote")
    for key in ("3", "2", "Backspace", "=", "2", "3"):
        page.keyboard.press(key)
    expect(order).to_have_text("C = B")
    expect(vote).to_be_disabled()
    page.keyboard.press("1")
    expect(order).to_have_text("C = B > A")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.evaluate("document.documentElement.scrollHeight") == 800
    unnamed = "button => !(button.ariaLabel || button.innerText || button.textContent || '').trim()"
    buttons = page.locator("#battle button:visible")
    assert buttons.evaluate_all(f"all => all.filter({unnamed}).map(b => b.outerHTML)") == []
    page.keyboard.press("Enter")
    in_phase(ballot, "voted")
    expect(ballot).to_contain_text("Your vote: B = C > A.")
    expect(ballot.locator(".standings tbody tr")).to_have_count(3)
    expect(page.locator("#head-battle-b .mark")).to_be_in_viewport(ratio=1)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save without names").click()
    assert "Hello there" in saved.value.path().read_text()
    page.keyboard.press("r")
    in_phase(ballot, "ready")
    expect(page.locator("#chat-battle-c .user-row")).to_have_text("Hello there")


def test_a_side_that_fails_ends_the_battle_without_a_word_about_it(
    arena: ArenaPage, page: Page, ballot: Locator
) -> None:
    enter(arena, "tiny", "fx-nodone:n-3")
    ask(page)
    in_phase(ballot, "failed")
    expect(ballot).to_contain_text("This battle is over without a vote")
    tab = page.locator("#battle")
    expect(tab).not_to_contain_text(re.compile("nodone|tiny"))
    expect(ballot).to_be_focused()
    page.keyboard.press("n")
    in_phase(ballot, "idle")
    expect(page.get_by_role("radio", name="3", exact=True)).to_be_disabled()
    prompt = page.locator("#battle-prompt textarea")
    expect(prompt).to_be_focused()
    prompt.evaluate("prompt => prompt.blur()")  # as when it is drawn anew
    expect(prompt).to_be_focused()
    page.keyboard.press("Escape")
    expect(ballot).to_be_focused()
    page.get_by_role("button", name="Explain simply").locator("visible=true").click()
    expect(prompt).to_have_value(re.compile("sky is blue"))
