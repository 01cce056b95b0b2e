"""The model and system routes: health, lists, pull, delete, load and unload."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from arena.arena import Arena
from tests.api.asgi import Answer, Client, started
from tests.api.conftest import create_api, settings_for
from tests.fake_ollama import DEFAULT_MODELS, FakeOllama

pytestmark = pytest.mark.anyio


async def dead_url() -> str:
    async with FakeOllama() as fake:
        return fake.url


async def ended(api: Client, job_id: str, fake: FakeOllama) -> dict[str, Any]:
    """The job after its upstream request has ended."""
    await fake.idle(3)
    for _ in range(1000):
        job: dict[str, Any] = (await api.get(f"/api/pulls/{job_id}")).json()
        if job["state"] != "downloading":
            return job
    raise AssertionError(job)


def pulls(fake: FakeOllama) -> int:
    return sum(record.path == "/api/pull" for record in fake.log)


# health


async def test_health_is_healthy_with_the_documented_keys(api: Client) -> None:
    answer = await api.get("/api/health")
    body = answer.json()
    assert answer.status == 200
    assert body["status"] == "healthy"
    assert body["service"] == "ollama-arena"
    assert body["models_available"] == len(DEFAULT_MODELS)
    assert body["ollama_reachable"] is True


async def test_health_without_ollama_is_degraded_and_200() -> None:
    async with started(create_api(settings_for(await dead_url()))) as api:
        answer = await api.get("/api/health")
    assert answer.status == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["models_available"] == 0
    assert answer.json()["ollama_reachable"] is False


async def test_health_does_not_wait_for_a_silent_endpoint(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.api.system.HEALTH_WAIT_S", 0.05)
    async with FakeOllama() as silent:
        silent.state(routes={"/api/tags": "fx-hang"})
        async with started(create_api(settings_for(f"a={fake.url}", f"b={silent.url}"))) as api:
            body = (await api.get("/api/health")).json()
            assert body["status"] == "healthy"
            assert (body["endpoints_reachable"], body["endpoints_configured"]) == (1, 2)


async def test_without_any_endpoint_health_is_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.app.Arena", partial(Arena, local_ollama=await dead_url()))
    async with started(create_api(settings_for())) as api:
        assert (await api.get("/api/health")).json()["status"] == "degraded"
        assert (await api.get("/api/models")).status == 500
        assert (await api.get("/api/health")).json()["endpoints_configured"] == 1


# lists


async def test_models_are_a_list_of_names(api: Client) -> None:
    body = (await api.get("/api/models")).json()
    assert body["models"] == sorted(DEFAULT_MODELS)
    assert [info["name"] for info in body["details"]] == body["models"]
    assert body["details"][0]["size_bytes"] > 0


async def test_no_model_at_all_is_an_empty_list(api: Client, fake: FakeOllama) -> None:
    fake.state(models=[])
    assert (await api.get("/api/models")).json()["models"] in ([], sorted(DEFAULT_MODELS))
    async with started(create_api(settings_for(fake.url))) as fresh:
        assert (await fresh.get("/api/models")).json() == {"models": [], "details": []}


async def test_models_without_ollama_are_the_documented_500() -> None:
    async with started(create_api(settings_for(await dead_url()))) as api:
        answer = await api.get("/api/models")
    assert answer.status == 500
    assert answer.json()["error"] == "An unexpected error occurred"
    assert answer.json()["code"] == "backend_unreachable"
    assert answer.json()["details"]


async def test_a_busy_ollama_is_the_documented_500_too(fake: FakeOllama) -> None:
    fake.state(routes={"/api/tags": "fx-status:c-503"})
    async with started(create_api(settings_for(fake.url))) as api:
        assert (await api.get("/api/models")).json()["error"] == "An unexpected error occurred"


async def test_loaded_models_and_endpoints_are_told(api: Client) -> None:
    await api.post("/api/load_model", {"model": "tiny"})
    (loaded,) = (await api.get("/api/loaded")).json()["loaded"]
    assert loaded["name"] == "tiny:latest"
    body = (await api.get("/api/endpoints")).json()
    (status,) = body["endpoints"]
    assert status["reachable"] is True
    assert status["version"]
    assert body["engine"] == {"state": "off", "error": None}


async def test_an_endpoint_that_is_down_is_told_in_its_row() -> None:
    async with started(create_api(settings_for(await dead_url()))) as api:
        (status,) = (await api.get("/api/endpoints")).json()["endpoints"]
    assert status["reachable"] is False
    assert status["error"]


# pull


async def test_pull_answers_at_once_and_ends_by_itself(api: Client, fake: FakeOllama) -> None:
    body = (await api.post("/api/pull_model", {"model": "fx-gate:id-p"})).json()
    assert (body["status"], body["model"]) == ("downloading", "fx-gate:id-p")
    await fake.arrived(1, path="/api/pull")
    listed = (await api.get("/api/pulls")).json()["pulls"]
    assert [job["id"] for job in listed] == [body["job"]["id"]]
    assert listed[0]["state"] == "downloading"
    fake.release("p", 100)
    job = await ended(api, body["job"]["id"], fake)
    assert (job["state"], job["status"]) == ("done", "success")
    assert job["completed_bytes"] == job["total_bytes"] > 0
    assert "fx-gate:id-p" in (await api.get("/api/models")).json()["models"]


async def test_ten_callers_share_one_download(api: Client, fake: FakeOllama) -> None:
    names = ["fx-gate", "fx-gate:latest", "FX-gate"]
    ids = {(await api.post("/api/pull_model", {"model": names[i % 3]})).json()["job"]["id"] for i in range(10)}
    assert len(ids) == 1
    fake.release(100)
    await ended(api, ids.pop(), fake)
    assert pulls(fake) == 1


async def test_a_failed_download_tells_ollamas_own_text(api: Client, fake: FakeOllama) -> None:
    for model, text in (("fx-pull-err", "file does not exist"), ("fx-pull-disk", "no space left on device")):
        job = (await api.post("/api/pull_model", {"model": model})).json()["job"]
        job = await ended(api, job["id"], fake)
        assert job["state"] == "failed"
        assert text in job["error"]


async def test_a_download_that_is_cut_fails_and_can_be_asked_again(api: Client, fake: FakeOllama) -> None:
    ids = []
    for _ in range(2):
        job = (await api.post("/api/pull_model", {"model": "fx-pull:cut-40"})).json()["job"]
        ids.append(job["id"])
        job = await ended(api, job["id"], fake)
        assert job["state"] == "failed"
        assert job["error"]
        assert 0 < job["completed_bytes"] < job["total_bytes"]
    assert ids[0] != ids[1]
    assert pulls(fake) == 2


async def test_the_callers_leaving_does_not_stop_a_download(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/pull_model", {"model": "fx-gate:id-q"}) as exchange:
        await exchange.chunk()
        exchange.leave()
    await fake.arrived(1, path="/api/pull")
    fake.release("q", 100)
    (job,) = (await api.get("/api/pulls")).json()["pulls"]
    assert (await ended(api, job["id"], fake))["state"] == "done"


async def test_cancel_hangs_up(api: Client, fake: FakeOllama) -> None:
    job = (await api.post("/api/pull_model", {"model": "fx-pull-stall"})).json()["job"]
    await fake.arrived(1, path="/api/pull")
    answer = await api.call("POST", f"/api/pulls/{job['id']}/cancel", headers=[])
    assert answer.json()["state"] == "cancelled"
    await fake.closed(1)
    assert (await api.get(f"/api/pulls/{job['id']}")).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    "name",
    ["10.0.0.1:9/x/y", "169.254.169.254/a/b", "localhost:1/a/b", "a.b/c/d", "localhost/x", "evil.example/x", "h:1/x"],
)
async def test_a_registry_that_is_not_allowed_is_never_asked(api: Client, fake: FakeOllama, name: str) -> None:
    answer = await api.post("/api/pull_model", {"model": name})
    assert answer.status == 400
    assert name.encode() not in answer.body
    assert pulls(fake) == 0


async def test_an_allowed_registry_and_a_namespace_are_passed_on(api: Client, fake: FakeOllama) -> None:
    for name in ("hf.co/bartowski/tiny:Q4_K_M", "HF.co/some/model", "someone/model:1b"):
        assert (await api.post("/api/pull_model", {"model": name})).status == 200
    await fake.arrived(3, path="/api/pull")


@pytest.mark.parametrize("route", ["/api/pull_model", "/api/delete_model", "/api/unload_model", "/api/load_model"])
async def test_a_missing_name_has_its_text(api: Client, route: str) -> None:
    for body in ({}, {"model": ""}, {"model": None}, {"model": " "}):
        answer = await api.post(route, body)
        assert answer.status == 400
        assert answer.json()["error"] == "Model name is required"


# delete, load, unload


async def test_delete_removes_the_model(api: Client, fake: FakeOllama) -> None:
    answer = await api.post("/api/delete_model", {"model": "tiny"})
    assert answer.json() == {"status": "deleted", "model": "tiny"}
    assert "tiny:latest" not in fake.models
    assert "tiny:latest" not in (await api.get("/api/models")).json()["models"]


async def test_delete_of_an_unknown_model_is_the_documented_500(api: Client) -> None:
    answer = await api.post("/api/delete_model", {"model": "nothing"})
    assert answer.status == 500
    assert answer.json()["error"] == "Failed to delete model"
    assert "not found" in answer.json()["details"]
    assert answer.json()["code"] == "model_not_found"


async def test_load_and_unload_move_a_model(api: Client, fake: FakeOllama) -> None:
    assert (await api.post("/api/load_model", {"model": "tiny"})).json()["status"] == "loaded"
    assert list(fake.loaded) == ["tiny:latest"]
    assert (await api.post("/api/unload_model", {"model": "tiny"})).json()["status"] == "unloaded"
    assert not fake.loaded
    for route in ("/api/load_model", "/api/unload_model"):
        assert (await api.post(route, {"model": "nothing"})).status == 404


async def test_load_without_ollama_is_the_documented_500() -> None:
    async with started(create_api(settings_for(await dead_url()))) as api:
        answer = await api.post("/api/load_model", {"model": "tiny"})
    assert answer.status == 500
    assert answer.json()["error"] == "An unexpected error occurred"
    assert answer.json()["code"] == "backend_unreachable"


async def test_a_request_that_comes_while_the_endpoints_are_sought_waits_for_them(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arena.app.Arena", partial(Arena, local_ollama=fake.url))
    for method, path, body in (
        ("GET", "/api/models", b""),
        ("POST", "/api/chat", b'{"message": "x", "model": "tiny"}'),
        ("POST", "/api/pull_model", b'{"model": "fx-pull"}'),
    ):
        async with started(create_api(settings_for())) as api:
            assert (await api.call(method, path, body)).status == 200


async def test_leaving_stops_a_load(api: Client, fake: FakeOllama) -> None:
    async with api.open("/api/load_model", {"model": "fx-hang"}) as exchange:
        await fake.arrived(1, path="/api/chat")
        exchange.leave()
        await fake.closed(1)


@asynccontextmanager
async def two_endpoints(one: FakeOllama, two: FakeOllama) -> AsyncIterator[Client]:
    async with started(create_api(settings_for(f"one={one.url}", f"two={two.url}"))) as api:
        yield api


async def test_two_endpoints_delete_everywhere_or_by_name() -> None:
    async with FakeOllama() as one, FakeOllama() as two, two_endpoints(one, two) as api:
        named = await api.post("/api/delete_model", {"model": "tiny", "endpoint": "two"})
        assert named.status == 200
        assert ("tiny:latest" in one.models, "tiny:latest" in two.models) == (True, False)
        await api.post("/api/delete_model", {"model": "llama3.2:3b"})
        assert "llama3.2:3b" not in one.models + two.models
        assert (await api.post("/api/delete_model", {"model": "llama3.2:3b"})).status == 500
        unknown = await api.post("/api/delete_model", {"model": "tiny", "endpoint": "three"})
        assert unknown.status == 400


async def test_a_pull_may_name_its_endpoint() -> None:
    async with FakeOllama() as one, FakeOllama() as two, two_endpoints(one, two) as api:
        pulled = (await api.post("/api/pull_model", {"model": "new", "endpoint": "two"})).json()["job"]
        assert (await ended(api, pulled["id"], two))["endpoint"] == "two"
        assert "new:latest" in two.models
        assert "new:latest" not in one.models


# management off


async def test_management_can_be_turned_off(fake: FakeOllama) -> None:
    async with started(create_api(settings_for(fake.url, management=False))) as api:
        answers: list[Answer] = [
            await api.post(f"/api/{name}_model", {"model": "tiny"}) for name in ("pull", "delete", "load", "unload")
        ]
        answers.append(await api.call("POST", "/api/pulls/x/cancel"))
        for answer in answers:
            assert answer.status == 403
            assert "ARENA_MANAGEMENT" in answer.json()["error"]
        assert (await api.get("/api/models")).status == 200
        assert (await api.get("/api/pulls")).json() == {"pulls": []}
    assert {record.path for record in fake.log} <= {"/api/tags", "/api/ps", "/api/version"}


async def test_answers_are_json(api: Client) -> None:
    for path in ("/api/health", "/api/models", "/api/loaded", "/api/pulls", "/api/endpoints"):
        answer = await api.get(path)
        assert answer.headers["content-type"] == "application/json"
        json.loads(answer.body)
