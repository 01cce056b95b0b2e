"""The fleet's levers: its file is read again, endpoints rest or get another share."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from arena.wire import Pool
from arena.wire.connection import Connection
from tests.api.asgi import started
from tests.api.conftest import create_api, settings_for
from tests.fake_ollama import DEFAULT_MODELS, FakeOllama

pytestmark = pytest.mark.anyio


def write(path: Path, *endpoints: tuple[str, str]) -> None:
    rows = "".join(f"  - name: {name}\n    url: {url}\n" for name, url in endpoints)
    path.write_text(f"endpoints:\n{rows}")


async def test_the_fleet_file_is_read_again_and_a_bad_one_changes_nothing(fake: FakeOllama, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    async with FakeOllama() as other:
        write(file, ("a", fake.url))
        async with started(create_api(settings_for(data=tmp_path))) as api:
            write(file, ("a", fake.url), ("b", other.url))
            answer = await api.post("/api/fleet/reload", {})
            assert (answer.status, answer.json()["endpoints"]) == (200, ["a", "b"])
            file.write_text("endpoints:\n  - nam: a\n    url: http://127.0.0.1:1\n")
            answer = await api.post("/api/fleet/reload", {})
            assert (answer.status, answer.json()["code"]) == (400, "settings")
            assert "fleet.yaml" in answer.json()["error"]
            names = [row["name"] for row in (await api.get("/api/endpoints")).json()["endpoints"]]
            assert names == ["a", "b"]


async def test_an_endpoint_that_rests_gets_no_work(fake: FakeOllama) -> None:
    async with FakeOllama() as other, started(create_api(settings_for(f"a={fake.url}", f"b={other.url}"))) as api:
        rest = await api.post("/api/fleet/drain", {"endpoint": "a"})
        assert rest.json() == {"status": "draining", "endpoint": "a"}
        for _ in range(4):
            answer = await api.post("/api/chat", {"message": "hi", "models": [DEFAULT_MODELS[0]]})
            assert answer.json()["server"] == "b"
        serve = await api.post("/api/fleet/drain", {"endpoint": "a", "on": False})
        assert serve.json()["status"] == "serving"
        weight = await api.post("/api/fleet/weight", {"endpoint": "a", "weight": 2.5})
        assert weight.json() == {"status": "weighted", "endpoint": "a", "weight": 2.5}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("drain", {}, "endpoint is required"),
        ("drain", {"endpoint": "nobody"}, "endpoint must be"),
        ("drain", {"endpoint": "a", "on": "yes"}, "on must be"),
        ("drain", {"endpoint": "a", "drain": False}, "'drain' is no key of this request; the keys are endpoint and on"),
        ("weight", {"endpoint": "a", "weigth": 2, "weight": 1}, "'weigth' is no key of this request; the keys are"),
        ("weight", {"endpoint": "a"}, "weight must be"),
        ("weight", {"endpoint": "a", "weight": True}, "weight must be"),
        ("weight", {"endpoint": "a", "weight": 0}, "weight must be"),
        ("weight", {"endpoint": "a", "weight": 1e9}, "weight must be"),
    ],
)
async def test_a_wrong_request_names_the_key(fake: FakeOllama, path: str, body: dict[str, object], text: str) -> None:
    async with started(create_api(settings_for(f"a={fake.url}"))) as api:
        answer = await api.post(f"/api/fleet/{path}", body)
        assert answer.status == 400
        assert text in answer.json()["error"]


async def test_where_models_are_not_managed_neither_is_the_fleet(fake: FakeOllama) -> None:
    async with started(create_api(settings_for(f"a={fake.url}", management=False))) as api:
        for path in ("reload", "drain", "weight"):
            assert (await api.post(f"/api/fleet/{path}", {"endpoint": "a"})).status == 403


async def test_a_host_that_asks_for_a_rest_is_told_in_the_error_itself(fake: FakeOllama) -> None:
    async with started(create_api(settings_for(f"a={fake.url}"))) as api:
        body = {"message": "hi", "models": ["fx-status:c-503_ra-60"]}
        assert (await api.post("/api/chat", body)).status == 500
        answer = await api.post("/api/chat", body)
        assert (answer.status, answer.json()["code"]) == (503, "resting")
        assert "asks to be left alone" in answer.json()["error"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_a_server_without_connections_to_give_says_so_itself(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with started(create_api(settings_for(f"a={fake.url}"))) as api:
        with monkeypatch.context() as patch:
            patch.setattr(Pool, "_open", none)
            patch.setattr(Connection, "usable", False)  # those that are open already
            answer = await api.post("/api/chat", {"message": "hi", "models": ["tiny"]})
        assert (answer.status, answer.json()["code"]) == (503, "no_more_connections")
        assert "cannot open one more connection" in answer.json()["error"]
