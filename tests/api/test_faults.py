"""Every way an endpoint can fail, seen through the routes: documented answers, whole columns beside, nothing left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from arena.guard import Guard
from tests.api.asgi import Answer, Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.asking import SHORT as LIMITS
from tests.fake_ollama import FakeOllama, text_of
from tests.fake_ollama.invariants import invariants
from tests.ollama.test_faults import FAULTS

pytestmark = pytest.mark.anyio

SHORT = {
    "connect_timeout_s": LIMITS.connect_s,
    "first_byte_timeout_s": LIMITS.first_byte_s,
    "idle_timeout_s": LIMITS.idle_s,
    "max_answer_tokens": 2000,
}
COLUMNS = 8
SEED_FIGURES = ("tokens", "duration_s", "tokens_per_sec")
LIST_FAULTS = [
    "fx-hang", "fx-eof0", "fx-rst0", "fx-halfhead", "fx-http09", "fx-status:c-500", "fx-status:c-503",
    "fx-status:c-401", "fx-status:c-404", "fx-redirect", "fx-html", "fx-empty200", "fx-bigerr",
]  # fmt: skip


@pytest.fixture
async def api(fake: FakeOllama) -> AsyncIterator[Client]:
    async with started(create_api(settings_for(fake.url, **SHORT))) as client:
        await client.get("/api/models")
        yield client


def comparison(model: str) -> dict[str, Any]:
    """One faulty column beside seven good ones."""
    good = [{"id": f"good {seed}", "model": f"fx-ok:n-40_seed-{seed}"} for seed in range(1, COLUMNS)]
    return {"history": HELLO, "model_instances": [good[0], {"id": "faulty", "model": model}, *good[1:]]}


def columns_of(answer: Answer) -> dict[str, dict[str, Any]]:
    """The text and the last line of each column of a stream; exactly one end each."""
    columns: dict[str, dict[str, Any]] = {}
    for line in answer.lines():
        column = columns.setdefault(line["instance_id"], {"text": "", "last": None})
        assert column["last"] is None, "a line after the end"
        column["text"] += line["token"]
        if line["done"]:
            column["last"] = line
    return columns


@pytest.mark.parametrize("model", FAULTS)
async def test_one_faulty_column_leaves_the_others_whole(api: Client, fake: FakeOllama, model: str) -> None:
    code, words, _ = FAULTS[model]
    async with invariants(fake, within_s=10):
        answer = await api.post("/api/stream_chat", comparison(model))
        columns = columns_of(answer)
    faulty = columns.pop("faulty")["last"]
    assert faulty["error_code"] == code
    assert words.removeprefix("fake ") in faulty["error"]
    assert faulty["token"] == ""
    assert all(isinstance(faulty["metrics"][name], int | float) for name in SEED_FIGURES)
    assert {name: (column["text"], "error" in column["last"]) for name, column in columns.items()} == {
        f"good {seed}": (text_of(40, seed), False) for seed in range(1, COLUMNS)
    }
    assert fake.canary_hits == []


@pytest.mark.parametrize("model", FAULTS)
async def test_a_single_faulty_answer_is_the_documented_500(api: Client, fake: FakeOllama, model: str) -> None:
    async with invariants(fake, within_s=10):
        answer = await api.post("/api/chat", {"history": HELLO, "models": [model]})
        health = await api.get("/api/health")
    body = answer.json()
    assert answer.status == 500
    assert set(body) == {"error", "code", "details"}
    assert body["error"] == "An unexpected error occurred"
    assert body["code"] == FAULTS[model][0]
    assert body["details"]
    assert len(answer.body) <= 1024
    assert b"Traceback" not in answer.body
    assert health.status == 200


@pytest.mark.parametrize("fault", LIST_FAULTS)
async def test_lists_tell_of_a_faulty_endpoint(fake: FakeOllama, fault: str) -> None:
    fake.state(routes={"/api/tags": fault})
    async with invariants(fake, within_s=20), started(create_api(settings_for(fake.url, **SHORT))) as api:
        models, health = await api.get("/api/models"), await api.get("/api/health")
        (status,) = (await api.get("/api/endpoints")).json()["endpoints"]
    assert models.status == 500
    assert models.json()["error"] == "An unexpected error occurred"
    assert models.json()["details"]
    assert (health.status, health.json()["status"]) == (200, "degraded")
    assert status["reachable"] is False
    assert fake.canary_hits == []


@pytest.mark.parametrize("fault", [fault for fault in LIST_FAULTS if fault not in ("fx-html", "fx-empty200")])
async def test_management_tells_of_a_faulty_endpoint(api: Client, fake: FakeOllama, fault: str) -> None:
    fake.state(routes={"/api/delete": fault})
    async with invariants(fake, within_s=10):
        deleted = await api.post("/api/delete_model", {"model": "tiny"})
        loaded = await api.post("/api/load_model", {"model": fault})
        job = (await api.post("/api/pull_model", {"model": fault})).json()["job"]
        await fake.arrived(1, path="/api/pull")
        await fake.idle(3)
    assert deleted.status == 500
    assert deleted.json()["error"] == "Failed to delete model"
    assert deleted.json()["details"]
    assert loaded.status in (404, 500, 503)
    assert len(loaded.body) <= 1024
    assert (await api.get(f"/api/pulls/{job['id']}")).json()["state"] == "failed"
    assert sum(record.path == "/api/pull" for record in fake.log) == 1, "a download is never sent again"
    assert sum(record.path == "/api/delete" for record in fake.log) == 1, "a delete is never sent again"


async def test_stopping_the_server_ends_every_stream_with_a_last_line(fake: FakeOllama) -> None:
    app = create_api(settings_for(fake.url))
    assert isinstance(app, Guard)
    request = {"history": HELLO, "models": ["fx-gate:id-a", "fx-hang"]}
    async with started(app) as api, api.open("/api/stream_chat", request) as exchange:
        fake.release("a", 1)
        await exchange.chunk()
        app.drain()
        columns = columns_of(await exchange.answer())
        assert {column["last"]["error_code"] for column in columns.values()} == {"server_shutting_down"}
        assert columns["fx-gate:id-a"]["text"]
        await fake.closed(2)
        assert (await api.post("/api/chat", request)).status == 503


async def test_stopping_the_server_ends_a_whole_answer_too(fake: FakeOllama) -> None:
    app = create_api(settings_for(fake.url))
    assert isinstance(app, Guard)
    async with started(app) as api, api.open("/api/chat", {"history": HELLO, "models": ["fx-hang"]}) as exchange:
        await fake.arrived(1, path="/api/chat")
        app.drain()
        assert (await exchange.answer()).json()["code"] == "server_shutting_down"


async def test_many_clients_leaving_at_once_leave_nothing_behind(api: Client, fake: FakeOllama) -> None:
    async def leave(number: int) -> None:
        model = ("fx-hang", "fx-stall:at-1", "fx-endless")[number % 3]
        route = ("/api/chat", "/api/stream_chat")[number % 2]
        async with api.open(route, {"history": HELLO, "models": [model, "fx-ok:n-2"]}) as exchange:
            exchange.blocked = asyncio.Event()  # nobody reads
            await fake.arrived(number + 1, path="/api/chat")

    async with invariants(fake, within_s=10):
        tasks = [asyncio.create_task(leave(number)) for number in range(30)]
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        await fake.idle()
