"""Presets and kept conversations in a browser, played with the keyboard."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.e2e.arena_page import ArenaPage


def test_columns_are_saved_under_a_name_and_set_again(arena: ArenaPage, page: Page) -> None:
    arena.open("fx-ok:n-5", "fx-ok:n-6", query="&temperature_b=0.2&system=Be brief.")
    panel, toggle = page.locator("#presets-panel"), page.locator("#presets-toggle")
    toggle.press("Enter")
    name = panel.get_by_label("Name for these columns")
    expect(name).to_be_focused()
    expect(toggle).to_have_attribute("aria-expanded", "true")
    page.keyboard.type("My two")
    page.keyboard.press("Enter")
    expect(page.locator("#arena-toast")).to_have_text("Saved: My two")
    expect(name).to_have_value("")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(toggle).to_be_focused()
    arena.open("tiny", "mistral:7b", "tiny")
    toggle.click()
    panel.get_by_role("button", name="My two").first.press("Enter")
    expect(panel).to_be_hidden()
    expect(page.locator("#arena-toast")).to_have_text("Columns set: My two")
    expect(page.locator("#col-c")).to_be_hidden()
    expect(arena.picker("b")).to_have_value("fx-ok:n-6")
    expect(page.locator("#facts-b")).to_contain_text("T 0.2")
    expect(page.locator("#system textarea")).to_have_value("Be brief.")
    page.goto(arena.base)
    expect(arena.picker("b")).to_have_value("fx-ok:n-6")
    toggle.click()
    panel.get_by_role("button", name="Delete the preset My two").click()
    expect(panel.get_by_text("Delete My two?")).to_be_visible()
    expect(panel.get_by_role("button", name="Delete", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel.get_by_text("None yet")).to_be_visible()
    page.mouse.click(200, 400)
    expect(panel).to_be_hidden()


def test_a_conversation_is_kept_and_gone_on_with_on_another_day(arena: ArenaPage, page: Page) -> None:
    arena.open("fx-ok:n-5", "fx-ok:n-6")
    panel, toggle = page.locator("#keep-panel"), page.locator("#keep-toggle")
    toggle.click()
    expect(page.locator("#keep-this")).to_be_disabled()
    toggle.click()
    expect(panel).to_be_hidden()
    arena.send("Why is the sky blue?")
    arena.done("a", "b")
    said = arena.log("b").inner_text()
    toggle.click()
    page.locator("#keep-this:enabled").click()
    kept = panel.get_by_role("button", name="Why is the sky blue?").first
    expect(kept).to_be_visible()
    arena.open("tiny", "mistral:7b")
    toggle.click()
    kept.click()
    expect(panel).to_be_hidden()
    expect(arena.log("b")).to_have_text(said, use_inner_text=True)
    expect(arena.picker("a")).to_have_value("fx-ok:n-5")
    arena.in_state("b", "done")
    expect(page.locator("#columns .best")).to_have_count(0)
    arena.send("And at night?")
    arena.done("a", "b")
    expect(arena.log("a")).to_contain_text("Why is the sky blue?")
    expect(arena.log("a")).to_contain_text("And at night?")
