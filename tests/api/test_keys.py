"""Named keys through the whole application: models, scopes, and the tokens that are counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arena.keys import Use, add, read, read_use
from tests.api.asgi import JSON_TYPE, Answer, App, Client, started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio

ALLOWED, OTHER = "fx-ok:n-7", "fx-unicode:n-3"
Header = tuple[bytes, bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of keys."""
    return tmp_path / "keys.json"


@pytest.fixture
def chatter(path: Path) -> Header:
    """What brings a key that may chat with one model."""
    return header(add(path, "chatter", scopes=("chat",), models=("fx-ok*",), tokens_per_day=1000))


@pytest.fixture
def keeper(path: Path) -> Header:
    """What brings a key that may manage one model."""
    return header(add(path, "keeper", scopes=("manage",), models=("fx-ok*",)))


@pytest.fixture
def app(fake: FakeOllama, path: Path, chatter: Header, keeper: Header) -> App:
    """An API without a token that has keys, not started yet."""
    return create_api(settings_for(fake.url, data=path.parent))


@pytest.fixture
async def api(app: App) -> AsyncIterator[Client]:
    """The same, started."""
    async with started(app) as client:
        yield client


def header(secret: str) -> Header:
    return (b"authorization", b"Bearer " + secret.encode())


async def post(api: Client, path: str, key: Header, **body: Any) -> Answer:
    return await api.call("POST", path, json.dumps(body).encode(), headers=[JSON_TYPE, key])


async def test_without_a_key_nothing_is_answered_but_health(api: Client) -> None:
    assert (await api.get("/api/models")).status == 401
    assert (await api.get("/olla/ollama/api/tags")).status == 401
    assert (await api.get("/api/health")).status == 200


@pytest.mark.parametrize("target", ["/api/chat", "/api/stream_chat"])
async def test_a_model_outside_the_list_is_refused_before_anything_runs(
    api: Client, fake: FakeOllama, chatter: Header, target: str
) -> None:
    answer = await post(api, target, chatter, history=HELLO, models=[ALLOWED, OTHER])
    assert (answer.status, answer.json()["code"]) == (403, "model_not_allowed")
    assert not [record for record in fake.log if record.path == "/api/chat"]
    assert (await post(api, target, chatter, history=HELLO, models=[ALLOWED])).status == 200


async def test_the_proxy_holds_to_the_list_too(api: Client, chatter: Header) -> None:
    for model, status in ((ALLOWED, 200), (OTHER, 403)):
        answer = await post(api, "/olla/ollama/api/chat", chatter, model=model, messages=HELLO)
        assert answer.status == status, model


async def test_what_is_listed_is_what_the_key_may_use(fake: FakeOllama, path: Path, chatter: Header) -> None:
    for model in ("fx-ok:latest", "tiny:latest"):
        fake.load(model, {})  # before anybody asks the host, since what it has in memory is remembered for a while
    async with started(create_api(settings_for(fake.url, data=path.parent))) as api:
        listed = (await api.call("GET", "/api/models", headers=[chatter])).json()
        assert listed["models"]
        assert all(name.startswith("fx-ok") for name in listed["models"])
        assert [info["name"] for info in listed["details"]] == listed["models"]
        (loaded,) = (await api.call("GET", "/api/loaded", headers=[chatter])).json()["loaded"]
        assert loaded["name"] == "fx-ok:latest"


async def test_scopes_hold_on_both_doors(api: Client, chatter: Header, keeper: Header) -> None:
    for key, path, status in (
        (chatter, "/api/unload_model", 403),
        (keeper, "/api/unload_model", 200),
        (chatter, "/olla/ollama/api/pull", 403),
        (keeper, "/olla/ollama/api/chat", 403),
        (keeper, "/api/chat", 403),
        (chatter, "/olla/ollama/api/embed", 403),
        (chatter, "/internal/status", 403),
    ):
        assert (await post(api, path, key, model=ALLOWED)).status == status, path
    for key in (chatter, keeper):
        assert (await api.call("GET", "/api/models", headers=[key])).status == 200
        assert (await api.call("GET", "/olla/ollama/api/tags", headers=[key])).status == 200
        assert (await api.call("GET", "/config", headers=[key])).status == 403


async def test_a_manager_changes_only_the_models_of_its_list(api: Client, keeper: Header) -> None:
    for path in ("/api/unload_model", "/api/load_model", "/api/delete_model", "/api/pull_model"):
        answer = await post(api, path, keeper, model=OTHER)
        assert (answer.status, answer.json()["code"]) == (403, "model_not_allowed"), path


@pytest.mark.parametrize("target", ["/olla/ollama/api/chat", "/olla/ollama/v1/chat/completions"])
async def test_tokens_of_the_proxy_are_counted_and_kept(app: App, target: str, chatter: Header, tmp_path: Path) -> None:
    async with started(app) as api:
        assert (await post(api, target, chatter, model=ALLOWED, messages=HELLO)).status == 200
    (used,) = used_by(tmp_path, "chatter").models.values()
    assert used.answers == 1
    assert used.tokens >= 7


@pytest.mark.parametrize("target", ["/api/chat", "/api/stream_chat"])
async def test_tokens_of_the_arena_are_counted_and_kept(app: App, target: str, chatter: Header, tmp_path: Path) -> None:
    async with started(app) as api:
        assert (await post(api, target, chatter, history=HELLO, models=[ALLOWED])).status == 200
    use = used_by(tmp_path, "chatter")
    assert use.models[ALLOWED].tokens >= 7
    assert use.requests == 1


def used_by(folder: Path, name: str) -> Use:
    (digest,) = (key.digest for key in read(folder / "keys.json") if key.name == name)
    return read_use(folder / "keys.json")[digest]
