"""The vote in the compare tab: one button beside each answer, played with the keyboard."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.arena_page import ArenaPage


def test_the_best_answer_is_voted_for_and_the_next_turn_has_its_own_vote(arena: ArenaPage) -> None:
    arena.open("fx-ok:n-5", "fx-ok:n-6")
    best = arena.page.locator("#columns .best")
    expect(best).to_have_count(0)
    arena.send()
    arena.done("a", "b")
    expect(best).to_have_count(2)
    button = arena.page.get_by_role("button", name="Vote: B is the best answer")
    button.focus()
    button.press("Enter")
    expect(best).to_have_count(1)
    expect(arena.page.locator("#status-b .best")).to_have_text("★ your best")
    expect(arena.page.get_by_text("Thanks! B is kept as the best of 2.")).to_be_visible()
    arena.send("And now?")
    arena.done("a", "b")
    expect(arena.page.locator("#columns button.best")).to_have_count(2)
