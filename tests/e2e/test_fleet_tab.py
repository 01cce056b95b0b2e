"""The fleet tab in a browser: live while it is looked at, silent otherwise, and all of it by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, Page, Request, Response, expect

from tests.e2e.arena_page import ArenaPage
from tests.e2e.conftest import served
from tests.fake_ollama import RunningFake, running_fake

EVIL = "<img src=x onerror='window.__xss=1'>"
QUIET_BYTES = 1000
"""An answer that changes nothing is smaller than this."""
POLL = "/gradio_api/run/predict"


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[RunningFake, RunningFake]]:
    """Two model servers."""
    with running_fake(("tiny", "fx-gate:id-f_n-4")) as one, running_fake(("tiny", EVIL)) as two:
        two.state(version=EVIL)
        yield one, two


@pytest.fixture(scope="module")
def url(hosts: tuple[RunningFake, RunningFake], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An arena in front of both."""
    data = tmp_path_factory.mktemp("fleet")
    one, two = hosts
    (data / "fleet.yaml").write_text(
        f"endpoints:\n  - {{url: {one.url}, name: gpu1, max_in_flight: 4}}\n  - {{url: {two.url}, name: gpu2}}\n",
        "utf-8",
    )
    with served(data=data) as url:
        yield url


@pytest.fixture
def tab(browser: Browser, url: str) -> Iterator[Page]:
    """The open tab; time goes on as usual and can be hurried. Afterwards no script has failed."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.clock.install()
    arena = ArenaPage(page, url).open("tiny")
    arena.tab("Fleet")
    expect(page.get_by_role("article", name="gpu1")).to_contain_text("healthy")
    yield page
    assert page.evaluate("window.__xss") is None
    page.close()
    assert broken == []


def test_a_host_is_drained_weighed_and_followed_by_keyboard(tab: Page, hosts: tuple[RunningFake, RunningFake]) -> None:
    gpu1, gpu2 = (tab.get_by_role("article", name=name) for name in ("gpu1", "gpu2"))
    expect(tab.get_by_role("status").filter(has_text="hosts take work")).to_have_text("All 2 hosts take work.")
    expect(gpu2).to_contain_text(EVIL)
    lever = tab.get_by_role("button", name="Drain: gpu1")
    lever.focus()
    tab.keyboard.press("Enter")
    again = tab.get_by_role("button", name="Serve again: gpu1")
    expect(again).to_be_focused()
    expect(gpu1).to_contain_text("drained")
    tab.keyboard.press("Enter")
    expect(gpu1).to_contain_text("healthy")
    weight = tab.get_by_role("spinbutton", name="Weight of gpu2")
    weight.fill("3")
    weight.press("Enter")
    expect(weight).to_have_attribute("value", "3")
    hosts[1].state(accept="refuse")
    expect(gpu2).to_contain_text(re.compile(r"down for \d+ s"))
    expect(gpu2).to_contain_text("connection refused")
    hosts[1].state(accept="normal")
    expect(gpu2).to_contain_text("healthy")


def test_requests_and_downloads_appear_by_themselves(
    tab: Page, url: str, hosts: tuple[RunningFake, RunningFake]
) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    requests.post(f"{url}/olla/ollama/api/chat", json=asked, timeout=60).raise_for_status()
    first = tab.get_by_role("table", name="Recent requests").locator("tbody tr").first
    expect(first).to_contain_text("tiny:latest")
    expect(first).to_contain_text("answered")
    expect(first).to_contain_text(re.compile(r"just now|\d+ s ago"))
    nobodys = {**asked, "model": "registry.example/somebody/a-model-with-a-long-name:q4_k_m"}
    assert requests.post(f"{url}/olla/ollama/v1/chat/completions", json=nobodys, timeout=60).status_code == 404
    expect(first).to_contain_text("refused 404")
    table = tab.locator("#fleet-requests .scroll")
    assert table.evaluate("it => it.scrollWidth - it.clientWidth") == 0, "the last column is not cut"
    for model in ("fx-gate:id-f", "onerror"):  # both hosts have told their models: the form stays as it is
        expect(tab.locator(f"#fleet-models option[value*='{model}']")).to_have_count(1)
    tab.get_by_role("textbox", name="Name of a model to pull").or_(
        tab.get_by_role("combobox", name="Name of a model to pull")
    ).fill("fx-gate:id-p_n-4")
    tab.get_by_role("button", name="Pull", exact=True).click()
    for host in hosts:
        host.arrived(1, within_s=60, path="/api/pull")
        host.release("p", 2)
    bars, cancelled = tab.locator("#fleet-jobs progress"), tab.locator("#fleet-jobs .cancelled")
    expect(bars).to_have_count(2)
    for bar in (bars.first, bars.last):
        expect(bar).to_have_attribute("value", "0.5000")
    for already in range(len(hosts)):
        expect(cancelled).to_have_count(already)  # the first button is another one only then
        tab.get_by_role("button", name="Cancel the download").first.click()
    expect(cancelled).to_have_count(len(hosts))


def polled(answer: Response) -> bool:
    return POLL in answer.url


def test_it_polls_while_it_is_looked_at_and_is_told_nothing_twice(
    tab: Page, hosts: tuple[RunningFake, RunningFake]
) -> None:
    for host in hosts:
        host.reset()  # a model in the fake's memory would stay five minutes from each look at it
    expect(tab.locator("#fleet .held b")).to_have_count(0)
    with tab.expect_response(polled) as first:  # brings what is new
        tab.clock.run_for(2500)
    assert first.value.ok
    with tab.expect_response(polled) as second:
        tab.clock.run_for(2500)
    assert len(second.value.body()) < QUIET_BYTES
    polls: list[Request] = []
    tab.evaluate("Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true })")
    tab.on("request", lambda request: polls.append(request) if POLL in request.url else None)
    tab.clock.run_for(20_000)
    assert polls == []
    tab.evaluate("delete document.visibilityState")
    ArenaPage(tab, "").tab("About")
    expect(tab.locator("#about")).to_contain_text("About this arena")
    tab.clock.run_for(20_000)
    assert len(polls) <= 1, "the about tab asks once for what it shows"
    polls.clear()
    ArenaPage(tab, "").tab("Fleet")
    with tab.expect_response(polled):
        tab.clock.run_for(4000)


def test_a_narrow_screen_has_everything_and_no_overflow(tab: Page) -> None:
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    expect(tab.get_by_role("button", name="Drain: gpu2")).to_be_visible()
    unnamed = "element => !(element.ariaLabel || element.innerText || element.labels?.length)"
    controls = tab.locator("#fleet").locator("button, input, select")
    assert controls.evaluate_all(f"all => all.filter({unnamed}).map(one => one.outerHTML)") == []
