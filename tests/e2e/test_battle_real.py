"""A battle between real models, from the first key to the reveal: played without a mouse, and tapped all the while."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import served
from tests.e2e.wiretap import Wiretap
from tests.engine.files import smollm2

HOST = "hidden-host"
NAMES = ("contestant-one", "contestant-two")
PATIENCE_MS = 240_000
"""Two real models on a machine that has much else to do, in milliseconds."""
END_S = 60


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded engine with two models, SmolLM2 as packaged and a finer one if it is here."""
    coarse = smollm2()
    if coarse is None:
        pytest.skip("SmolLM2 is not here: run `python -m arena.engine setup`")
    data = tmp_path_factory.mktemp("engine")
    fine = coarse.with_name("135m-q8_0.gguf")
    for name, weights in zip(NAMES, (coarse, fine if fine.exists() else coarse), strict=True):
        link = data / "models" / name / "latest.gguf"
        link.parent.mkdir(parents=True)
        link.symlink_to(weights.resolve())
    command = [sys.executable, "-m", "arena.engine", "--port", "0", "--threads", "1", "--no-fetch", "--watch-parent"]
    with subprocess.Popen(
        [*command, "--data", str(data)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()
            process.wait(END_S)


@pytest.fixture
def tapped(engine: str, tmp_path: Path) -> Iterator[Wiretap]:
    """The relay before an arena on that engine."""
    with served(f"{HOST}={engine}", data=tmp_path) as url, Wiretap(urlsplit(url).port or 0) as tap:
        yield tap


def press_until(page: Page, key: str, reached: str) -> None:
    """Press a key until the focus is on what `reached` selects."""
    for _ in range(60):
        if page.evaluate("selector => document.activeElement?.matches(selector)", reached):
            return
        page.keyboard.press(key)
    pytest.fail(f"{key} does not lead to {reached}")


def test_a_battle_by_keys_alone_betrays_nobody_before_the_vote(browser: Browser, tapped: Wiretap) -> None:
    context = browser.new_context(
        viewport={"width": 1280, "height": 860}, extra_http_headers={"Accept-Encoding": "identity"}
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    ballot, prompt = page.locator(".ballot"), page.locator("#battle-prompt textarea")
    try:
        page.goto(f"http://127.0.0.1:{tapped.port}")
        expect(page.locator("#model-b input")).not_to_have_value("", timeout=PATIENCE_MS)
        press_until(page, "Tab", "#battle-button")
        page.keyboard.press("Enter")
        expect(prompt).to_be_visible(timeout=PATIENCE_MS)
        tapped.wait_for_silence(0.7, PATIENCE_MS / 1000)  # what the other tabs are told may name models
        tapped.forget()
        page.keyboard.press("/")
        expect(prompt).to_be_focused()
        for turn, text in enumerate(("Say hello in one short sentence.", "And goodbye."), 1):
            page.keyboard.type(text)
            page.keyboard.press("Enter")
            expect(ballot).to_have_attribute("data-turns", str(turn), timeout=PATIENCE_MS)
            expect(ballot).to_have_attribute("data-phase", "ready", timeout=PATIENCE_MS)
            expect(page.locator("#chat-battle-a .bot-row:not(.growing)")).to_have_count(turn)
            expect(ballot).to_be_focused()
            if turn == 1:
                page.keyboard.press("/")
        expect(page.locator("#battle-live")).to_contain_text("Press 1 if A is better")
        told = tapped.heard.decode("utf-8", "replace")
        seen = page.locator("#battle").evaluate("tab => tab.outerHTML")
        assert "Say hello in one short sentence." in told, "the relay hears what the page is told"
        for word in (*NAMES, HOST, "smollm2:135m", "q4_1", "q8_0", "gguf"):
            assert word not in told.lower()
            assert word not in seen.lower()
        page.keyboard.press("1")
        expect(ballot).to_have_attribute("data-phase", "voted", timeout=PATIENCE_MS)
        expect(ballot).to_contain_text("Your vote: A is better. It is kept")
        expect(ballot).to_be_focused()
        for side in "ab":
            expect(page.locator(f"#head-battle-{side}")).to_contain_text(re.compile("contestant|smollm2"))
            expect(page.locator(f"#status-battle-{side}")).to_contain_text("tokens")
        expect(page.locator("#head-battle-a .mark")).to_have_text("your choice")
        expect(page.locator("#battle-live")).to_contain_text("A was")
        page.keyboard.press("n")
        expect(ballot).to_have_attribute("data-phase", "idle")
        expect(prompt).to_be_focused()
    finally:
        context.close()
