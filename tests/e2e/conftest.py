"""A real arena on a fake Ollama, and a real Chromium that looks at it and at nothing else."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from arena.app import create_app
from arena.guard import Guard
from arena.server import Server, bind
from arena.settings import Settings, load
from tests.e2e.arena_page import ArenaPage
from tests.fake_ollama import DEFAULT_MODELS, RunningFake, running_fake
from tests.threads import end

PATIENCE_S = 60.0
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-smooth-scrolling",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives a browser."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


def chromium() -> str | None:
    """The system's Chromium, rather the one without a window's frame; ARENA_TEST_CHROMIUM names another."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("ARENA_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


async def _app(settings: Settings) -> Guard:
    """The application, built inside an event loop: Gradio would otherwise open one of its own and leave it open."""
    return create_app(settings)


@contextmanager
def served(*endpoints: str, **changes: Any) -> Iterator[str]:
    """Run the whole application in a thread for the length of the block; gives its address."""
    settings = load(port=0, endpoints=endpoints, engine="off", drain_s=0.2, **changes)
    sockets, ready = bind(settings), Future[Server]()

    def serve() -> None:
        server = Server(asyncio.run(_app(settings)), settings, sockets, on_ready=lambda url: ready.set_result(server))
        server.run()

    thread = threading.Thread(target=serve, name="arena", daemon=True)
    thread.start()
    server = ready.result(PATIENCE_S)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        end(server, thread)


@pytest.fixture(scope="package")
def upstream() -> Iterator[RunningFake]:
    """The fake Ollama behind the arena."""
    with running_fake((*DEFAULT_MODELS, "fx-vision:latest")) as fake:
        yield fake


@pytest.fixture(scope="package")
def base(upstream: RunningFake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The arena's address."""
    with served(f"fake={upstream.url}", data=tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole folder; it ends with the folder, because its event loop bars all others."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine; ARENA_TEST_CHROMIUM may name one")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def context(browser: Browser, base: str) -> Iterator[BrowserContext]:
    """One profile, so that the page's own files are fetched once."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=base)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, base: str, upstream: RunningFake) -> Iterator[Page]:
    """A fresh page that remembers nothing. Afterwards: nothing was asked of anyone else, and no script has failed."""
    upstream.reset()
    elsewhere: list[str] = []
    broken: list[str] = []

    def asked(request: Request) -> None:
        if request.url.startswith(("http", "ws")) and not request.url.startswith(base):
            elsewhere.append(request.url)

    context.on("request", asked)
    page = context.new_page()
    page.on("pageerror", lambda error: broken.append(str(error)))
    yield page
    if not page.is_closed():
        page.goto(f"{base}/api/health")  # the arena's page might still write what it remembers
        page.evaluate("localStorage.clear()")
        page.close()
    context.remove_listener("request", asked)
    upstream.idle(within_s=PATIENCE_S)
    assert elsewhere == []
    assert broken == []
    assert upstream.canary_hits == []


@pytest.fixture
def arena(page: Page, base: str) -> ArenaPage:
    """The page's hands and eyes; nothing is open yet."""
    return ArenaPage(page, base)
