"""The API's description: every route, every error, examples that hold, and a page that asks nobody outside."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from starlette.routing import Mount, Route

from tests.api.asgi import Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio


@pytest.fixture
async def document(api: Client) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get("/openapi.json")).json()
    return found


def check(document: dict[str, Any], name: str, value: Any) -> None:
    """Does `value` have the shape called `name`?"""
    root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(root).validate(value)


def served(app: Any) -> set[tuple[str, str]]:
    """Every method and path under /api that the application serves."""
    (api,) = (route for route in app.app.router.routes if isinstance(route, Mount) and route.path == "/api")
    routes = [route for route in api.routes if isinstance(route, Route)]
    return {(method, f"/api{route.path}") for route in routes for method in (route.methods or ()) if method != "HEAD"}


async def test_every_route_is_described_and_every_description_served(api: Client, document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, rows in document["paths"].items() for method in rows}
    assert described == served(api.app)
    assert len(described) == 36
    assert json.loads(json.dumps(api.app.app.openapi())) == document  # type: ignore[attr-defined]


async def test_every_route_documents_its_errors_in_the_one_form(document: dict[str, Any]) -> None:
    for path, rows in document["paths"].items():
        for method, row in rows.items():
            statuses = set(row["responses"])
            assert statuses >= {"200", "400", "403", "429", "503"}
            assert ("401" in statuses) == (path != "/api/health")
            if "requestBody" in row:
                assert statuses >= {"413", "415"}, (method, path)
            assert row["summary"]
            assert row["description"]
    for response in document["components"]["responses"].values():
        for example in response["content"]["application/json"]["examples"].values():
            check(document, "Error", example["value"])


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = str(document)
    for kind, name in set(re.findall(r"#/components/(\w+)/(\w+)", text)):
        assert name in document["components"][kind]
    ids = [row["operationId"] for rows in document["paths"].values() for row in rows.values()]
    assert len(set(ids)) == len(ids)


async def test_examples_have_the_shapes_they_stand_for(document: dict[str, Any]) -> None:
    for rows in document["paths"].values():
        for row in rows.values():
            for part in (row["responses"]["200"], row.get("requestBody", {"content": {}})):
                for content in part["content"].values():
                    name = content["schema"]["$ref"].rpartition("/")[2]
                    for example in content.get("examples", {}).values():
                        if name != "PullStarted":  # shown as the clients' document has it, without the job
                            check(document, name, example["value"])


async def test_real_answers_have_the_described_shapes(api: Client, document: dict[str, Any]) -> None:
    many = {"history": HELLO, "models": ["tiny", "fx-errline:at-2", "fx-think"]}
    for name, answer in (
        ("Health", await api.get("/api/health")),
        ("Models", await api.get("/api/models")),
        ("Endpoints", await api.get("/api/endpoints")),
        ("ChatAnswer", await api.post("/api/chat", many)),
        ("ChatAnswer", await api.post("/api/chat", {"history": HELLO, "models": ["tiny"]})),
        ("PullStarted", await api.post("/api/pull_model", {"model": "fx-pull"})),
        ("Pulls", await api.get("/api/pulls")),
        ("ModelDone", await api.post("/api/load_model", {"model": "tiny"})),
        ("Loaded", await api.get("/api/loaded")),
        ("ModelDone", await api.post("/api/delete_model", {"model": "tiny"})),
    ):
        assert answer.status == 200
        check(document, name, answer.json())
    for line in (await api.post("/api/stream_chat", many)).lines():
        check(document, "StreamLine", line)
    check(document, "Error", (await api.post("/api/chat", {})).json())


async def test_the_page_needs_nothing_from_outside(api: Client, document: dict[str, Any]) -> None:
    for path in ("/docs", "/redoc"):
        answer = await api.get(path)
        page = answer.body.decode()
        assert answer.headers["content-type"].startswith("text/html")
        assert not re.search(r"https?://|<script|<link|<img|url\(|@import", page)
        assert all(route in page for route in document["paths"])
        assert all(f"id='{name}'" in page for name in document["components"]["schemas"])
        assert "temperature must be between 0.01 and 2.0" in page


async def test_the_description_knows_the_token_and_the_prefix(fake: FakeOllama) -> None:
    settings = settings_for(fake.url, token="a-long-and-secret-token", root_path="/arena")
    async with started(create_api(settings)) as api:
        bearer = [(b"authorization", b"Bearer a-long-and-secret-token")]
        answer = await api.call("GET", "/openapi.json", headers=bearer)
        assert (await api.get("/docs")).status == 401
    document = answer.json()
    assert document["servers"] == [{"url": "/arena"}]
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/api/health"]["get"]["security"] == []
    assert b"secret-token" not in answer.body
