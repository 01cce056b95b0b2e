"""The handlers that need a model server: streams, pulls, the page's life; on a fake Ollama, without a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest

from arena.api import include_api
from arena.arena import Arena
from arena.settings import load
from arena.ui import conversation, mount_page
from arena.ui.about import AboutPanel
from arena.ui.catalog import CatalogEvents, CatalogPanel
from arena.ui.column_events import ColumnEvents
from arena.ui.compare import CompareParts, Updates, draw_compare
from arena.ui.conversation import Conversations
from arena.ui.elements import html
from arena.ui.memory import Memory
from arena.ui.page import Life, Page
from arena.ui.sending import Sending
from arena.ui.sessions import Sessions
from arena.ui.uploads import OUTDATED, UNREADABLE
from tests.fake_ollama import FakeOllama

PATIENCE_S = 10.0
REQUEST = cast(gr.Request, SimpleNamespace(request=None, session_hash="s", query_params={"models": "tiny,absent:1b"}))


def event(**data: str) -> gr.EventData:
    return gr.EventData(None, data)


async def last(updates: AsyncGenerator[Updates, None]) -> Updates:
    """Everything that a stream of updates changes, in the end."""
    end: Updates = {}
    async with asyncio.timeout(PATIENCE_S):
        async for update in updates:
            end |= update
    return end


class Desk:
    """The compare tab with the page's life, on a started arena."""

    def __init__(self, arena: Arena) -> None:
        self.page = Page(arena)
        self.sessions, self.conversations = self.page.sessions, self.page.conversations
        with gr.Blocks(analytics_enabled=False):
            self.drawn: CompareParts = draw_compare(6)
            pill = html("", "pill")
        everything = (self.drawn, self.conversations, self.sessions)
        self.sending, self.memory = Sending(*everything), Memory(*everything)
        self.life = Life(self.page, self.drawn, self.memory, pill)
        self.session = self.sessions.of("s")

    def column(self, letter: str) -> ColumnEvents:
        return ColumnEvents(self.drawn, self.drawn.columns[letter], self.conversations, self.sessions)

    def values(self, text: str = "") -> dict[Any, Any]:
        drawn = self.drawn
        prompt = {"text": text, "files": []}
        return {drawn.prompt: prompt, drawn.system: "", drawn.order: "together", drawn.saved: None}


@pytest.fixture
async def desk(arena: Arena) -> Desk:
    return Desk(arena)


@pytest.mark.anyio
async def test_a_page_opens_answers_pulls_and_leaves(
    desk: Desk, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "POLL_S", 0)
    drawn, first, second = desk.drawn, desk.drawn.columns["A"], desk.drawn.columns["B"]
    opened = await desk.life.open(None, None, REQUEST)
    assert opened[drawn.banner] == ""
    assert opened[drawn.timer].active is False
    assert opened[first.model].value == "tiny:latest"
    await desk.sending.take(desk.values("Why?"), REQUEST)
    assert await last(desk.sending.answer(REQUEST)) == {drawn.frames: {}}
    end = desk.sending.settle(REQUEST)
    assert 'data-state="done"' in end[first.status]
    assert "Pull absent:1b" in end[second.notice]
    end = await last(desk.column("B").act(desk.values(), REQUEST, event(action="pull")))
    assert "is installed" in end[second.notice]
    assert (await last(desk.column("B").act(desk.values(), REQUEST, event(action="retry"))))[second.notice] == ""
    assert await last(desk.column("B").answer(REQUEST)) == {second.frames: {}}
    assert 'data-state="done"' in desk.column("B").settle(REQUEST)[second.status]
    assert desk.column("B").settle(REQUEST) == {second.notice: gr.skip()}
    assert await last(desk.column("B").act(desk.values(), REQUEST, event(action="settings"))) == {}
    fake.state(models=["tiny:latest"])
    assert (await desk.life.look_after(REQUEST))[drawn.banner] == ""
    desk.life.leave(REQUEST)
    assert len(desk.sessions) == 0
    assert "answers" in await desk.life.describe(AboutPanel(desk.page.arena))()


@pytest.fixture
async def catalog(arena: Arena) -> CatalogEvents:
    with gr.Blocks(analytics_enabled=False):
        return CatalogPanel(arena, Conversations(arena), Sessions("AB")).render()


@pytest.mark.anyio
async def test_models_are_pulled_loaded_unloaded_and_deleted(catalog: CatalogEvents, fake: FakeOllama) -> None:
    drawn = catalog.drawn
    updates = await catalog.pull("new:1b", REQUEST)
    assert updates[drawn.timer].active is True
    assert updates[drawn.name] is None
    await fake.until(lambda: "new:1b" in fake.models, PATIENCE_S)
    await catalog.act(REQUEST, event(action="load", model="tiny:latest"))
    assert "tiny:latest" in fake.loaded
    await catalog.act(REQUEST, event(action="unload", model="tiny:latest", endpoint="fake"))
    assert "tiny:latest" not in fake.loaded
    asked = await catalog.act(REQUEST, event(action="ask-delete", model="tiny:latest"))
    assert "Delete tiny:latest?" in asked[drawn.table]
    kept = await catalog.act(REQUEST, event(action="keep", model="tiny:latest"))
    assert "Delete tiny:latest?" not in kept[drawn.table]
    await catalog.act(REQUEST, event(action="delete", model="tiny:latest"))
    assert "tiny:latest" not in fake.models


@pytest.mark.anyio
async def test_a_download_is_cancelled_and_tried_again(catalog: CatalogEvents, fake: FakeOllama) -> None:
    await catalog.pull("fx-gate:id-p_n-2", REQUEST)
    (job,) = catalog.arena.catalog.jobs()
    updates = await catalog.act(REQUEST, event(action="cancel", job=job.id))
    assert "cancelled" in updates[catalog.drawn.jobs]
    await catalog.act(REQUEST, event(action="pull", model="fx-gate:id-p_n-2"))
    assert len(catalog.arena.catalog.jobs()) == 2


@pytest.mark.anyio
async def test_a_download_is_tried_again_where_it_was(catalog: CatalogEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[tuple[str, str | None]] = []
    monkeypatch.setattr(catalog.arena.catalog, "pull", lambda *asked: pulled.append(asked))
    await catalog.act(REQUEST, event(action="pull", model="big:70b", endpoint="gpu2"))
    await catalog.pull("new:1b", REQUEST)
    assert pulled == [("big:70b", "gpu2"), ("new:1b", None)]


@pytest.mark.anyio
async def test_what_cannot_be_done_is_said(catalog: CatalogEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    monkeypatch.setattr(gr, "Info", said.append)
    await catalog.pull("  ", REQUEST)
    updates = await catalog.pull("no spaces <b>", REQUEST)
    assert updates[catalog.drawn.name] == gr.skip()
    await catalog.act(REQUEST, event(action="delete", model="gone:1b"))
    assert len(said) == 3
    assert "qwen3" in said[0]
    assert not [text for text in said if "<b>" in text]


@pytest.mark.anyio
async def test_a_page_without_management_manages_nothing(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    arena = Arena(load(endpoints=(fake.url,), engine="off", management=False))
    async with arena.running():
        with gr.Blocks(analytics_enabled=False):
            events = CatalogPanel(arena, Conversations(arena), Sessions("AB")).render()
        await events.pull("tiny", REQUEST)
        await events.act(REQUEST, event(action="delete", model="tiny:latest"))
    assert len(said) == 2
    assert "tiny:latest" in fake.models


@pytest.mark.anyio
async def test_the_page_is_mounted_behind_the_other_routes(arena: Arena) -> None:
    from fastapi import FastAPI
    from starlette.routing import Route
    from starlette.testclient import TestClient

    async def broken(_: object) -> None:
        raise RuntimeError("a bug")

    app = FastAPI(openapi_url=None)
    include_api(app, arena)

    @app.get("/mine")
    def mine() -> dict[str, bool]:
        return {"mine": True}

    mounted = mount_page(app, arena)
    client = TestClient(mounted, raise_server_exceptions=False)
    assert client.get("/mine").json() == {"mine": True}
    for path in ("/api", "/nothing/there", "/gradio_api/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": "Resource not found", "code": "not_found"})
    assert client.delete("/theme.css").json() == {"error": "Method not allowed", "code": "method_not_allowed"}
    for asked in ({"fn_index": 99_999}, {"fn_index": 99_999, "session_hash": "s"}, {"session_hash": "s"}):
        answer = client.post("/gradio_api/run/predict", json={"data": [], **asked})
        assert (answer.status_code, answer.json()) == (404, {"error": OUTDATED, "code": "not_found"})
    answer = client.post("/gradio_api/queue/join", json={"data": [], "fn_index": 99_999, "session_hash": "s"})
    assert (answer.status_code, answer.json()["error"]) == (404, OUTDATED)
    for body in (b"", b"[]", b'{"fn_index":"<secret>"}', b'{"fn_index":1e400}'):
        answer = client.post("/gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()) == (400, {"error": UNREADABLE, "code": "bad_request"})
    page: Any = mounted.routes[-1]
    page.app.router.routes.insert(0, Route("/broken", broken))
    answer = client.get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    text = client.get("/").text
    assert "Ollama Arena" in text
    assert "fonts.googleapis" not in text
