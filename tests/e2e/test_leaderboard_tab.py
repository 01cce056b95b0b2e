"""The leaderboard tab in a browser: narrowed, by keyboard, downloaded through the guard, narrow, silent when idle."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, expect

from arena.store import Store
from arena.store.store import FILE
from arena.types import Configuration, Style, Vote
from tests.e2e.arena_page import ArenaPage
from tests.e2e.conftest import served
from tests.fake_ollama import RunningFake, running_fake

EVIL = "<img src=x onerror='window.__xss=1'>"
LONG = "hf.co/bartowski/Mistral-Small-24B-Instruct-2501-GGUF:Q4_K_M"
MODELS = ("one:1", LONG, EVIL)
TOKEN = "open-sesame-open-sesame"
POLL, POLL_MS = "/gradio_api/run/predict", 5500
QUIET_BYTES = 1000
"""An answer that changes nothing is smaller than this."""


def votes() -> Iterator[Vote]:
    """The first model beats the second, that one a third, mostly; a fourth, which no host has, has met only one."""
    pairs = (("one:1", LONG), (LONG, EVIL), ("one:1", EVIL), ("one:1", "gone:1"))
    for number in range(80):
        a, b = pairs[number % 4]
        yield Vote(
            f"b{number}", f"2026-03-{1 + number // 4:02}T12:00:00.000+00:00", f"{a}-1", f"{b}-1", a, b,
            "b" if number % 9 == 0 else "a", category="coding" if number % 2 else "writing", voter=f"v{number % 5}",
            style_a=Style(90), style_b=Style(40 + number),
        )  # fmt: skip


@pytest.fixture(scope="module")
def host() -> Iterator[RunningFake]:
    with running_fake((*MODELS, "tiny")) as fake:
        yield fake


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the arena's data, with eighty votes."""
    folder = tmp_path_factory.mktemp("board")
    store = Store(f"sqlite:///{folder / FILE}")
    store.add_votes(votes(), [Configuration(f"{model}-1", model, label=model) for model in (*MODELS, "gone:1")])
    store.close()
    return folder


@pytest.fixture(scope="module")
def url(host: RunningFake, data: Path) -> Iterator[str]:
    """A guarded arena with these votes."""
    with served(f"fake={host.url}", data=data, token=TOKEN) as url:
        yield url


@pytest.fixture(scope="module")
def signed_in(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """The browser of somebody who has signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    answer = context.request.post(f"{url}/signin", form={"token": TOKEN}, headers={"Origin": url})
    assert answer.ok
    yield context
    context.close()


@pytest.fixture
def tab(signed_in: BrowserContext, url: str) -> Iterator[Page]:
    """The open tab. Afterwards no script has failed, and none of a model's name has run."""
    page = signed_in.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.clock.install()
    ArenaPage(page, url).open("tiny").tab("Leaderboard")
    expect(rows(page).first).to_be_visible()
    yield page
    assert page.evaluate("window.__xss") is None
    page.close()
    assert broken == []


def rows(page: Page) -> Locator:
    """The rows of the leaderboard."""
    return page.get_by_role("table", name="Leaderboard").locator("tbody tr")


def assert_all_in_sight(page: Page) -> None:
    """However long a name is, nothing of a table is beyond the edge of its box."""
    beyond = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
    assert page.locator("#board .scroll").evaluate_all(beyond) == []


def polled(answer: Response) -> bool:
    return POLL in answer.url


def test_votes_are_narrowed_shown_in_parts_and_taken_home(tab: Page) -> None:
    expect(rows(tab)).to_have_count(3)
    expect(rows(tab).first).to_contain_text("one:1")
    expect(tab.get_by_role("status").filter(has_text="votes by 5 voters on 4 models")).to_be_visible()
    expect(tab.locator("#board-body")).to_contain_text("1 model that no host has is hidden (gone:1)")
    tab.get_by_label("Show not installed").check()
    expect(rows(tab)).to_have_count(4)
    tab.get_by_label("Category").select_option("coding")
    expect(tab.get_by_role("status").filter(has_text=re.compile(r"^40 votes"))).to_be_visible()
    expect(tab.get_by_label("Show not installed")).to_be_checked()
    for part, says in (
        ("Head to head", "pairs are decided"),
        ("Over time", "Each band holds"),
        ("Speed and memory", "No fair run is kept yet"),
        ("Style", "What style buys"),
        ("Method", "What the ratings cannot tell"),
        ("Ranking", "Rank: the places"),
    ):
        button = tab.get_by_role("button", name=part, exact=True)
        button.focus()
        tab.keyboard.press("Enter")
        expect(tab.locator("#board-body")).to_contain_text(says)
        expect(button).to_have_attribute("aria-current", "true")
        assert_all_in_sight(tab)
    tab.get_by_label("From").fill("2027-01-01")
    tab.get_by_role("button", name="Clear the filters").click()
    expect(rows(tab)).to_have_count(4)
    expect(tab.get_by_label("From")).to_have_value("")
    tab.get_by_label("Category").select_option("coding")
    expect(tab.get_by_role("status").filter(has_text=re.compile(r"^40 votes"))).to_be_visible()
    tab.get_by_text("Download", exact=True).click()
    with tab.expect_download() as saved:
        tab.get_by_role("link", name="Table, CSV").click()
    with saved.value.path().open(newline="") as file:
        table = list(csv.DictReader(file))
    assert saved.value.suggested_filename == "leaderboard.csv"
    assert sum(int(row["votes"]) for row in table) == 2 * 40, "the chosen votes, through the guard"


def test_a_new_vote_shows_itself_and_nothing_is_told_twice(tab: Page, data: Path) -> None:
    with tab.expect_response(polled) as idle:
        tab.clock.run_for(POLL_MS)
    assert idle.value.ok
    assert len(idle.value.body()) < QUIET_BYTES
    told = tab.get_by_role("status").filter(has_text="votes by")
    before = int(told.inner_text().split()[0])
    store = Store(f"sqlite:///{data / FILE}")
    store.add_vote(msgspec.structs.replace(next(votes()), battle_id=uuid4().hex))
    store.close()
    with tab.expect_response(polled):
        tab.clock.run_for(POLL_MS)
    expect(told).to_contain_text(f"{before + 1} votes")


def test_a_narrow_screen_has_everything_and_no_overflow(tab: Page) -> None:
    tab.set_viewport_size({"width": 400, "height": 800})
    for part in ("Head to head", "Over time", "Speed and memory", "Style", "Ranking"):
        button = tab.get_by_role("button", name=part, exact=True)
        button.click()
        expect(button).to_have_attribute("aria-current", "true")
        assert tab.evaluate("document.documentElement.scrollWidth") == 400, part
        assert_all_in_sight(tab)
    expect(rows(tab).first.locator(".interval")).to_be_visible()
    expect(tab.get_by_role("table", name="Leaderboard").locator(".axis")).to_be_visible()
    unnamed = "element => !(element.ariaLabel || element.innerText || element.labels?.length)"
    controls = tab.locator("#board").locator("button, input:visible, select")
    assert controls.evaluate_all(f"all => all.filter({unnamed}).map(one => one.outerHTML)") == []
