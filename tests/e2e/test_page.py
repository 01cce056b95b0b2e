"""The page around the answers: columns, settings, memory, files, keys, and what it does not let through."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.arena_page import ArenaPage
from tests.fake_ollama import RunningFake
from tests.fake_ollama.payloads import EXFIL, XSS

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000"
    "0400018a33d5b50000000049454e44ae426082"
)


def test_a_first_visit_answers_with_one_click_and_one_key(arena: ArenaPage) -> None:
    arena.open()
    smallest = {arena.picker(letter).input_value().split()[0] for letter in "ab"}
    assert len(smallest) == 2
    assert smallest < {"tiny:latest", "fx-ok:latest", "fx-vision:latest"}
    arena.page.get_by_role("button", name="Explain simply").click()
    expect(arena.prompt).to_have_value(re.compile("sky is blue"))
    arena.prompt.press("Enter")
    arena.done("a", "b")
    expect(arena.prompt).to_have_value("")
    expect(arena.page.get_by_role("button", name="Explain simply")).to_be_hidden()
    expect(arena.status("a")).to_contain_text("tokens")


def test_columns_come_and_go_and_keep_their_settings(arena: ArenaPage, upstream: RunningFake) -> None:
    arena.open("tiny", "mistral:7b")
    arena.click("settings-b")
    expect(arena.page.locator("#drawer-title")).to_contain_text("Settings of B")
    arena.page.locator("#temperature-on input").check()
    arena.page.locator("#temperature input[type=number]").fill("1.3")
    arena.page.locator("#temperature input[type=number]").press("Tab")
    expect(arena.page.locator("#facts-b")).to_contain_text("T 1.3")
    arena.page.keyboard.press("Escape")
    expect(arena.page.locator("#drawer")).to_be_hidden()
    arena.click("add")
    expect(arena.picker("c")).to_have_value(re.compile("mistral:7b"))
    arena.click("close-a")
    expect(arena.page.locator("#col-a")).to_be_hidden()
    arena.send()
    arena.done("b", "c")
    options = {record.model: record.body.get("options") for record in upstream.log if record.path == "/api/chat"}
    assert "tiny:latest" not in options
    sent = [record.body.get("options", {}) for record in upstream.log if record.path == "/api/chat"]
    assert {"temperature": 1.3} in sent
    arena.click("add")
    expect(arena.page.locator("#col-a")).to_be_visible()
    expect(arena.status("a")).to_have_attribute("data-state", "empty")


def test_a_link_restores_columns_settings_and_prompt(arena: ArenaPage, page: Page) -> None:
    arena.open(
        "tiny", "mistral:7b", query="&temperature=0.2&seed_b=7&system=Be%20brief.&prompt=Why%3F&order=one_after_another"
    )
    expect(arena.prompt).to_have_value("Why?")
    expect(page.locator("#facts-a")).to_contain_text("T 0.2")
    expect(page.locator("#facts-b")).to_contain_text("T 0.2 · seed 7")
    expect(page.get_by_role("radio", name="One after another")).to_be_checked()
    page.get_by_role("button", name="System prompt", exact=True).click()
    expect(page.locator("#system textarea")).to_have_value("Be brief.")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#arena-toast")).to_have_text("Link copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.endswith(
        "?models=tiny:latest,mistral:7b&seed_b=7&temperature=0.2&system=Be+brief.&order=one_after_another&prompt=Why%3F"
    )


def test_the_browser_remembers_columns_and_presets(arena: ArenaPage, page: Page) -> None:
    arena.open("tiny", "mistral:7b", "llama3.2:3b")
    arena.click("settings-c")
    page.locator("#top_k-on input").check()
    expect(page.locator("#facts-c")).to_contain_text("K 40")
    page.locator("#preset input").fill("mine")
    page.locator("#preset input").press("Enter")
    page.get_by_role("button", name="Save these settings under this name").click()
    expect(page.get_by_text("Preset saved in this browser.")).to_be_visible()
    page.goto(arena.base)
    expect(arena.picker("c")).to_have_value(re.compile("llama3.2:3b"))
    expect(page.locator("#facts-c")).to_contain_text("K 40")
    arena.click("settings-a")
    expect(page.locator("#drawer-title")).to_contain_text("Settings of A")
    page.locator("#preset input").click()
    page.get_by_role("option", name="mine").click()
    expect(page.locator("#facts-a")).to_contain_text("K 40")


def test_the_comparison_is_saved_as_json_markdown_and_html(arena: ArenaPage, page: Page, tmp_path: Path) -> None:
    arena.open("tiny", "mistral:7b")
    arena.send("What now?")
    arena.done("a", "b")
    arena.click("keep-toggle")
    with page.expect_download() as saving:
        arena.click("export-json")
    saving.value.save_as(tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert [column["id"] for column in document["columns"]] == ["A", "B"]
    turn = document["columns"][0]["turns"][0]
    assert turn["prompt"] == "What now?"
    assert turn["manifest"]["model"] == "tiny:latest"
    with page.expect_download() as saving:
        arena.click("export-markdown")
    saving.value.save_as(tmp_path / "c.md")
    assert "### B: mistral:7b" in (tmp_path / "c.md").read_text("utf-8")
    for button, named in (("export-html", True), ("export-masked", False)):
        with page.expect_download() as saving:
            arena.click(button)
        assert saving.value.suggested_filename.endswith(".html")
        saving.value.save_as(tmp_path / "c.html")
        assert ("mistral" in (tmp_path / "c.html").read_text("utf-8")) is named


def test_files_go_with_the_prompt(arena: ArenaPage, page: Page, upstream: RunningFake, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("the river is quiet", "utf-8")
    (tmp_path / "dot.png").write_bytes(PIXEL)
    arena.open("fx-vision", "tiny")
    page.locator("#prompt input[type=file]").set_input_files([tmp_path / "notes.txt", tmp_path / "dot.png"])
    expect(page.locator("#prompt").get_by_role("listitem")).to_have_count(2)
    arena.send("What is this?")
    arena.done("a")
    expect(arena.log("a")).to_contain_text("notes.txt")
    expect(arena.notice("b")).to_contain_text("cannot see pictures")
    asked = [record for record in upstream.log if record.path == "/api/chat"]
    assert [record.model for record in asked] == ["fx-vision:latest"]
    message = asked[0].body["messages"][0]
    assert message["content"].startswith("--- notes.txt ---\nthe river is quiet")
    assert len(message["images"]) == 1


def test_models_are_pulled_cancelled_and_deleted(arena: ArenaPage, page: Page, upstream: RunningFake) -> None:
    arena.open("tiny", "mistral:7b")
    arena.tab("Models")
    expect(page.locator("#models")).to_contain_text("qwen2.5:3b")
    page.locator("#pull-name input").fill("fx-gate:id-p_n-4")
    page.locator("#pull-name input").press("Enter")
    arena.click("pull")
    upstream.arrived(1, path="/api/pull")
    upstream.release("p", 2)
    expect(page.locator("#jobs progress")).to_have_attribute("value", "0.5000")
    page.get_by_role("button", name="Cancel the download of fx-gate:id-p_n-4").click()
    expect(page.locator("#jobs")).to_contain_text("cancelled")
    upstream.closed(1)
    page.get_by_role("button", name="Delete qwen2.5:3b").click()
    expect(page.locator("#models")).to_contain_text("Delete qwen2.5:3b?")
    assert "qwen2.5:3b" in upstream.models
    page.locator("#models").get_by_role("button", name="Delete", exact=True).first.click()
    expect(page.locator("#models")).not_to_contain_text("qwen2.5:3b")
    assert "qwen2.5:3b" not in upstream.models
    page.get_by_role("button", name="Load mistral:7b").click()
    expect(page.locator("#memory")).to_contain_text("mistral:7b")
    page.locator("#memory").get_by_role("button", name="Unload mistral:7b").click()
    expect(page.locator("#memory")).to_contain_text("Nothing.")
    arena.tab("About")
    expect(page.locator("#about")).to_contain_text("answers")
    expect(page.locator("#about")).to_contain_text("No token is set")


def test_the_keyboard_is_enough(arena: ArenaPage, page: Page) -> None:
    arena.open("tiny", "mistral:7b")
    page.locator("h1").click()
    page.keyboard.press("/")
    expect(arena.prompt).to_be_focused()
    arena.prompt.fill("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(arena.prompt).to_have_value("one\ntwo")
    page.keyboard.press("Alt+n")
    expect(page.locator("#col-c")).to_be_visible()
    page.keyboard.press("Alt+2")
    expect(page.locator("#drawer-title")).to_contain_text("Settings of B")
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    expect(page.locator("#settings-b")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    unnamed = "it => !(it.ariaLabel || it.labels?.[0]?.textContent || it.innerText || it.textContent || '').trim()"
    for kind in ("button", "textarea", "input"):
        found = page.locator(f"{kind}:visible").evaluate_all(f"all => all.filter({unnamed}).map(it => it.outerHTML)")
        assert found == [], "what has no name cannot be found by ear"


def test_a_narrow_screen_shows_one_column_and_no_overflow(arena: ArenaPage, page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    arena.open("tiny", "mistral:7b", "llama3.2:3b")
    arena.send()
    arena.done("a", "b", "c")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert page.evaluate("document.documentElement.scrollHeight") == 800
    first, second = (page.locator(f"#col-{letter}").bounding_box() for letter in "ab")
    assert first is not None
    assert second is not None
    assert 340 < first["width"] < 400
    assert first["x"] + first["width"] < second["x"] < 400
    expect(arena.prompt).to_be_in_viewport()
    for name in ("Compare", "Battle", "Leaderboard", "Models", "Fleet", "About"):
        expect(page.get_by_role("tab", name=name)).to_have_count(1)
    page.get_by_role("tab", name="About").focus()
    expect(page.get_by_role("tab", name="About")).to_be_in_viewport(ratio=0.95)
    small = "({width, height}) => width < 24 || height < 24"
    sizes = f"all => all.filter(it => ({small})(it.getBoundingClientRect())).map(it => it.outerHTML)"
    assert page.locator("button:visible").evaluate_all(sizes) == [], "no finger hits what is smaller than 24 pixels"


def test_one_column_is_seen_over_the_whole_width_and_all_again(arena: ArenaPage, page: Page) -> None:
    arena.open("tiny", "mistral:7b")
    button = page.get_by_role("button", name="B over the whole width")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#arena-live")).to_have_text("B over the whole width")
    expect(page.locator("#col-a")).to_be_hidden()
    page.keyboard.press("Alt+w")
    expect(page.locator("#arena-live")).to_have_text("All columns")
    page.keyboard.press("Alt+w")
    expect(page.locator("#col-b")).to_be_hidden()
    arena.send()
    arena.done("a", "b")
    page.keyboard.press("Alt+2")
    expect(page.locator("#drawer")).to_be_in_viewport()
    page.keyboard.press("Escape")
    button.click()
    page.keyboard.press("Alt+n")
    for letter in "abc":
        expect(page.locator(f"#col-{letter}")).to_be_visible()
    arena.click("close-a")
    arena.click("close-c")
    expect(page.locator("#letters button")).to_have_count(0)


def test_a_narrow_screen_goes_from_column_to_column(arena: ArenaPage, page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    arena.open("tiny", "mistral:7b", "llama3.2:3b")
    third = page.get_by_role("button", name="Go to C")
    third.click()
    expect(third).to_have_attribute("aria-current", "true")
    expect(page.locator("#col-c")).to_be_in_viewport(ratio=0.9)
    page.keyboard.press("Alt+w")
    expect(page.get_by_role("button", name="Go to A")).to_have_attribute("aria-current", "true")
    expect(third).not_to_have_attribute("aria-current", "true")


def test_a_low_window_is_scrolled_under_the_tabs(arena: ArenaPage, page: Page) -> None:
    page.set_viewport_size({"width": 640, "height": 380})
    arena.open("tiny", "mistral:7b")
    send, add = page.get_by_role("button", name="Send"), page.locator("#add")
    page.mouse.move(320, 200)
    page.mouse.wheel(0, -2000)
    expect(add).to_be_in_viewport(ratio=1)
    expect(send).not_to_be_in_viewport(ratio=1)
    page.mouse.wheel(0, 2000)
    expect(send).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("tab", name="Battle")).to_be_in_viewport()


def test_light_and_dark_are_chosen_and_remembered(arena: ArenaPage, page: Page) -> None:
    arena.open("tiny")
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.reload()
    expect(page.locator("body")).to_have_class(re.compile("dark"))


def test_half_a_character_is_replaced_before_it_is_sent(arena: ArenaPage, page: Page) -> None:
    arena.open("tiny")
    page.locator("#prompt textarea").evaluate(
        r"(box) => { box.value = 'cut \ud83d off'; box.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    arena.prompt.press("Enter")
    arena.done("a")
    expect(arena.log("a")).to_contain_text("cut \N{REPLACEMENT CHARACTER} off")


def test_what_anyone_writes_runs_nowhere(arena: ArenaPage, page: Page) -> None:
    arena.open("fx-xss:k-0", "fx-xss:k-11", "fx-xss:k-22", "fx-xss:k-33", "fx-xss:k-44", "fx-xss:k-50")
    arena.send("\n\n".join(XSS))
    arena.done(*"abcdef")
    active = "script, iframe, object, embed, form, style, link, svg script, [onerror], [onload], a[href^=javascript]"
    assert page.locator(".abot .message").locator(active).count() == 0
    for link in page.locator("#chat-a .message a").all():
        assert not (link.get_attribute("href") or "").lower().startswith(("javascript", "data", "vbscript"))
    assert page.evaluate("window.__xss") is None
    expect(arena.log("a")).to_contain_text("onerror=")


def test_what_a_model_writes_fetches_nothing_and_covers_nothing(arena: ArenaPage, page: Page) -> None:
    arena.open(*(f"fx-exfil:k-{k}" for k in range(min(6, len(EXFIL)))))
    arena.send('<div style="position:fixed;inset:0;z-index:99999">over everything</div>')
    arena.done("a", "b", "c")
    for letter in "abc":
        assert arena.log(letter).evaluate("log => log.querySelectorAll('.message img[src^=http]').length") == 0
    contain = arena.log("a").locator(".message").first.evaluate("element => getComputedStyle(element).contain")
    assert contain == "layout paint"
    expect(arena.log("a")).to_contain_text("over everything")
    arena.page.get_by_role("button", name="Show the keys").click()
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
