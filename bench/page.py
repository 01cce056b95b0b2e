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
def opened(url: str) -> Iterator[Page]:
    """A fresh browser showing `url`."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(url)
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
    """Characters of each column's log."""
    return {letter: len(page.locator(f"#chat-{letter} [role=log]").inner_text()) for letter in COLUMNS}


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
    before = shown(page)
    ask(page, f"bench-d{1_000_000 // RATE}-n{RATE * (WATCHED_S + 10)}-p1")
    await_growth(page, before, 2 * len(PROMPT), 20)
    assert target.server is not None
    begun, browser, server = time.monotonic(), browser_cpu(), target.server.cpu_s()
    page.wait_for_timeout(WATCHED_S * 1000)
    took, browser_after, server_after = time.monotonic() - begun, browser_cpu(), target.server.cpu_s()
    after = shown(page)
    # a plain token has 5.3 characters on average; below half of that the columns did not keep up
    expected = RATE * WATCHED_S * 5.3 / 2
    stuck = [letter for letter in COLUMNS if after[letter] - before[letter] < expected]
    return {
        "load": load,
        "void": f"columns {', '.join(stuck)} did not keep up" if stuck else None,
        "renderer_percent": 100 * (browser_after["renderer"] - browser["renderer"]) / took,
        "browser_percent": 100 * (browser_after["rest"] - browser["rest"]) / took,
        "server_percent": 100 * (server_after - server) / took,
        "characters": sum(after.values()),
    }


def run(target: Target) -> Iterator[Row]:
    """Fresh columns, and columns that already hold 4,000 tokens each."""
    models = ",".join(f"bench-m{i}:1b" for i in range(len(COLUMNS)))
    from playwright.sync_api import Error

    try:
        with opened(f"http://127.0.0.1:{target.port}/?models={models}") as page:
            page.locator(f"#chat-{COLUMNS[-1]} [role=log]").wait_for(timeout=30000)
            yield watch(target, page, "fresh")
        with opened(f"http://127.0.0.1:{target.port}/?models={models}") as page:
            page.locator(f"#chat-{COLUMNS[-1]} [role=log]").wait_for(timeout=30000)
            before = shown(page)
            ask(page, "bench-n4000-b64-p1")
            await_growth(page, before, 15000, 60)
            page.wait_for_timeout(2000)
            yield watch(target, page, "with 4k tokens")
    except Error as error:
        raise Unavailable(error.message.splitlines()[0]) from error
