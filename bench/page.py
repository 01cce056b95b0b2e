"""The page in a real Chromium: what six columns at 50 tokens/s cost the renderer and the server.

Needs playwright (the Python package) and a Chromium; ARENA_BENCH_CHROMIUM names one that is not at /usr/bin/chromium.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lab
import psutil
from candidates import PROMPT, Target

if TYPE_CHECKING:
    from playwright.sync_api import Page

COLUMNS = "abcdef"
RATE = 50
WATCHED_S = 10
SETTLE_S = 3
CHARACTERS = 70 / 16
"""Length of a plain token, on average."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Row = dict[str, Any]


class Unavailable(Exception):
    """There is no browser, or the page did not do what it must."""


def chromium() -> Path:
    """The browser's program. Raises Unavailable."""
    path = Path(os.environ.get("ARENA_BENCH_CHROMIUM", "/usr/bin/chromium"))
    if not path.exists() or importlib.util.find_spec("playwright") is None:
        raise Unavailable(f"playwright or {path} is missing")
    return path


@contextmanager
def opened(port: int) -> Iterator[Page]:
    """A fresh browser showing six columns with a model each."""
    models = ",".join(f"bench-m{i}:1b" for i in range(len(COLUMNS)))
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"http://127.0.0.1:{port}/?models={models}")
            for i, letter in enumerate(COLUMNS):
                page.wait_for_function(
                    "([id, name]) => document.querySelector(`#model-${id} input`)?.value.startsWith(name)",
                    arg=[letter, f"bench-m{i}:1b"],
                    timeout=30000,
                )
            yield page
        finally:
            browser.close()


def browser_cpu() -> dict[str, float]:
    """CPU seconds so far of the browser's processes below this one: its renderers, and all others."""
    spent = {"renderer": 0.0, "rest": 0.0}
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(word.startswith("--type=") or "chrom" in word for word in words[:2]):
            spent["renderer" if "--type=renderer" in words else "rest"] += lab.cpu_seconds(process.pid)
    return spent


def ask(page: Page, word: str) -> None:
    """Send one prompt to all columns."""
    box = page.locator("#prompt textarea")
    box.fill(f"{PROMPT} {word}")
    box.press("Enter")


def shown(page: Page) -> dict[str, int]:
    """Characters of each column's log; asked in one go and without a layout, so that looking costs little."""
    script = "letters => letters.map(each => document.querySelector(`#chat-${each}`)?.textContent.length ?? 0)"
    return dict(zip(COLUMNS, page.evaluate(script, list(COLUMNS)), strict=True))


def await_growth(page: Page, before: Mapping[str, int], characters: int, seconds: float) -> None:
    """Wait until every column has grown by so many characters. Raises Unavailable."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = shown(page)
        if all(now[letter] - before[letter] >= characters for letter in COLUMNS):
            return
        page.wait_for_timeout(100)
    raise Unavailable(f"the columns did not grow by {characters} characters in {seconds:g} s: {shown(page)}")


def watch(target: Target, page: Page, load: str) -> Row:
    """Let the columns stream for WATCHED_S seconds and see what it costs."""
    page.wait_for_timeout(SETTLE_S * 1000)
    ask(page, f"bench-d{1_000_000 // RATE}-n100000-p1")
    await_growth(page, shown(page), 100, 20)
    assert target.server is not None
    before = shown(page)
    begun, browser, server = time.monotonic(), browser_cpu(), target.server.cpu_s()
    page.wait_for_timeout(WATCHED_S * 1000)
    took, browser_after, server_after = time.monotonic() - begun, browser_cpu(), target.server.cpu_s()
    after = shown(page)
    pace = min(after[letter] - before[letter] for letter in COLUMNS) / (time.monotonic() - begun) / CHARACTERS
    streaming = lab.call(target.up_port, "/_stats")["active"]
    return {
        "load": load,
        "void": None if streaming == len(COLUMNS) else f"only {streaming} columns were streaming",
        "tokens_per_s": pace,
        "renderer_percent": 100 * (browser_after["renderer"] - browser["renderer"]) / took,
        "browser_percent": 100 * (browser_after["rest"] - browser["rest"]) / took,
        "server_percent": 100 * (server_after - server) / took,
        "characters": sum(after.values()),
    }


def run(target: Target) -> Iterator[Row]:
    """Fresh columns, and columns that already hold 4,000 tokens each."""
    chromium()
    from playwright.sync_api import Error

    try:
        with opened(target.port) as page:
            yield watch(target, page, "fresh")
        with opened(target.port) as page:
            before = shown(page)
            ask(page, "bench-n4000-b64-p1")
            await_growth(page, before, 15000, 60)
            page.wait_for_timeout(2000)
            yield watch(target, page, "with 4k tokens")
    except Error as error:
        raise Unavailable(error.message.splitlines()[0]) from error
