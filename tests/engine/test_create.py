"""create, blobs and push: what can be made here, and what is refused with a reason."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from arena.engine.blobs import KEPT_S, Blobs
from arena.engine.digests import Digests
from arena.engine.models import Models
from tests.engine.conftest import KEYS, config_for, serving, until
from tests.engine.files import gguf_bytes
from tests.engine.scripted import Scripted

pytestmark = pytest.mark.anyio

GGUF = gguf_bytes(KEYS)
PROJECTOR = gguf_bytes({"general.architecture": "clip"})


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def engine(tmp_path: Path, script: Scripted) -> AsyncIterator[httpx.AsyncClient]:
    """An engine with one model, base:1b, whose answers are played."""
    folder = tmp_path / "models" / "base"
    folder.mkdir(parents=True)
    (folder / "1b.gguf").write_bytes(GGUF)
    (folder / "1b.json").write_bytes(b'{"system": "Be kind.", "parameters": {"top_k": 3}}')
    async with serving(config_for(tmp_path), script) as client:
        yield client


async def create(engine: httpx.AsyncClient, model: str = "mine", **more: Any) -> httpx.Response:
    return await engine.post("/api/create", json={"model": model, **more})


async def asked(engine: httpx.AsyncClient, script: Scripted, model: str) -> dict[str, Any]:
    """What the runner is asked when the model is."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": False}
    assert (await engine.post("/api/chat", json=body)).status_code == 200
    return script.requests[-1]


async def send(engine: httpx.AsyncClient, *files: bytes) -> dict[str, str]:
    """Send files; returns what create is told of them."""
    for data in files:
        response = await engine.post(f"/api/blobs/{digest_of(data)}", content=data)
        assert (response.status_code, response.content) == (201, b"")
    return {f"{number}.gguf": digest_of(data) for number, data in enumerate(files)}


class TestFrom:
    async def test_with_settings_of_its_own(self, engine: httpx.AsyncClient, script: Scripted) -> None:
        response = await create(
            engine,
            **{"from": "base:1b"},
            system="Be brief.",
            parameters={"temperature": 0, "stop": "END"},
            license=["A", "B"],
        )
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line)["status"] for line in response.content.splitlines()]
        assert lines[-2:] == ["writing manifest", "success"]
        sent = await asked(engine, script, "mine")
        assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (sent["temperature"], sent["top_k"], sent["stop"]) == (0, 3, ["END"])
        shown = (await engine.post("/api/show", json={"model": "mine"})).json()
        assert (shown["system"], shown["license"]) == ("Be brief.", "A\nB")
        first = await asked(engine, script, "base:1b")
        assert (first["messages"][0]["content"], first["temperature"]) == ("Be kind.", 0.8)

    async def test_nothing_changed_is_a_copy(self, engine: httpx.AsyncClient, script: Scripted) -> None:
        template = KEYS["tokenizer.chat_template"]
        response = await create(engine, **{"from": "base:1b"}, template=template, stream=False)
        assert response.json() == {"status": "success"}
        assert (await asked(engine, script, "mine"))["top_k"] == 3

    async def test_a_model_of_that_name_is_replaced_and_leaves_the_memory(
        self, engine: httpx.AsyncClient, script: Scripted
    ) -> None:
        await create(engine, **{"from": "base:1b"}, system="One.")
        await asked(engine, script, "mine")
        dead = script.dead
        await create(engine, "MINE:latest", **{"from": "mine"}, system="Two.")
        await dead.wait()
        assert (await asked(engine, script, "mine"))["messages"][0]["content"] == "Two."
        await create(engine, **{"from": "mine"}, system="", parameters={})
        assert (await asked(engine, script, "mine"))["messages"][0]["role"] == "user"

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ({}, 400, "neither 'from' or 'files'"),
            ({"from": "base:1b", "files": {"a": digest_of(b"")}}, 400, "not both"),
            ({"from": "no"}, 404, "model 'no' not found, try pulling it first"),
            ({"from": "a b"}, 400, "invalid model name in from"),
            ({"model": "a b", "from": "base:1b"}, 400, "invalid model name"),
            ({"model": None, "from": "base:1b"}, 400, "model is required"),
            ({"from": "base:1b", "parameters": {"heat": 1}}, 400, "unknown parameter 'heat'"),
            ({"from": "base:1b", "parameters": {"top_p": -1}}, 400, 'option "top_p"'),
            ({"from": "base:1b", "template": "{{ .Prompt }}"}, 501, "does not support template"),
            ({"files": {"a": digest_of(b"")}, "template": "x"}, 501, "does not support template"),
            ({"from": "base:1b", "adapters": {"a": "b"}}, 501, "does not support adapters: a model is made from"),
            ({"from": "base:1b", "quantize": "q4_0"}, 501, "does not support quantize"),
            ({"from": "base:1b", "messages": [{}]}, 501, "does not support messages"),
            ({"modelfile": "FROM x"}, 501, "does not support modelfile"),
        ],
    )
    async def test_refusals(self, engine: httpx.AsyncClient, body: Any, status: int, words: str) -> None:
        response = await engine.post("/api/create", json={"model": "mine", **body})
        assert (response.status_code, words in response.json()["error"]) == (status, True), response.text

    async def test_a_full_disk_is_told(self, engine: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("arena.engine.shelf.os.replace", refuse)
        response = await create(engine, **{"from": "base:1b"})
        assert response.status_code == 500
        assert response.json() == {"error": "the model cannot be written: No space left on device"}


class TestFiles:
    async def test_a_sent_file_becomes_a_model(
        self, engine: httpx.AsyncClient, script: Scripted, tmp_path: Path
    ) -> None:
        data = gguf_bytes({**KEYS, "general.name": "sent"})
        where = f"/api/blobs/{digest_of(data)}"
        assert (await engine.head(where)).status_code == 404
        files = await send(engine, data, PROJECTOR)
        assert (await engine.head(where)).status_code == 200
        response = await create(engine, files=files, system="Be new.")
        assert json.loads(response.content.splitlines()[0])["status"] == f"using existing layer {digest_of(data)}"
        assert (await asked(engine, script, "mine"))["messages"][0]["content"] == "Be new."
        tags = (await engine.get("/api/tags")).json()["models"]
        mine = next(model for model in tags if model["name"] == "mine:latest")
        assert (mine["digest"], "vision" in mine["capabilities"]) == (digest_of(data).removeprefix("sha256:"), True)
        assert list((tmp_path / "engine" / "blobs").iterdir()) == [], "its bytes are the model's now"
        assert (await engine.head(where)).status_code == 200, "it is known by the model"
        assert (await engine.post(where, content=data)).status_code == 200
        assert (await create(engine, files={"a.gguf": digest_of(data)})).status_code == 200
        first, *_ = (await asked(engine, script, "mine"))["messages"]
        assert first["role"] == "user", "nothing stays of the model that had the name before"

    async def test_what_is_not_a_model(self, engine: httpx.AsyncClient) -> None:
        files = await send(engine, b"GGUF but not really, for long enough", GGUF + b"\0", GGUF + b"\0\0", PROJECTOR)
        broken, one, two, projector = files.values()
        for given, status, words in [
            ({"a.gguf": broken}, 400, "a.gguf: GGUF version"),
            ({"a.gguf": digest_of(b"never sent")}, 400, "send it to /api/blobs first"),
            ({"a.gguf": "sha256:x"}, 400, "invalid digest format"),
            ({"a.gguf": one, "b.gguf": two}, 501, "a model in several files"),
            ({"a.gguf": projector}, 400, "a projector alone"),
        ]:
            response = await create(engine, files=given)
            assert (response.status_code, words in response.json()["error"]) == (status, True), response.text

    async def test_a_blob_must_be_what_it_says(self, engine: httpx.AsyncClient, tmp_path: Path) -> None:
        response = await engine.post(f"/api/blobs/{digest_of(b'a')}", content=b"b")
        assert (response.status_code, "digest mismatch" in response.json()["error"]) == (400, True)
        assert (await engine.post("/api/blobs/md5:1", content=b"b")).status_code == 400
        assert (await engine.head("/api/blobs/md5:1")).status_code == 400
        assert list((tmp_path / "engine" / "blobs").iterdir()) == []

    async def test_a_large_blob_is_written_piece_by_piece(
        self, engine: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("arena.engine.blobs.BLOCK_BYTES", 100_000)
        await send(engine, os.urandom(1_000_000))

    async def test_a_disk_that_cannot_be_written(self, engine: httpx.AsyncClient, tmp_path: Path) -> None:
        (tmp_path / "engine").mkdir(exist_ok=True)
        (tmp_path / "engine" / "blobs").write_bytes(b"in the way")
        response = await engine.post(f"/api/blobs/{digest_of(b'a')}", content=b"a")
        assert (response.status_code, "cannot be written" in response.json()["error"]) == (500, True)

    async def test_a_client_that_leaves_leaves_nothing(self, engine: httpx.AsyncClient, tmp_path: Path) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", engine.base_url.port)
        head = f"POST /api/blobs/{digest_of(b'a')} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf"
        writer.write(head.encode())
        folder = tmp_path / "engine" / "blobs"
        await until(lambda: folder.is_dir() and bool(list(folder.iterdir())))
        writer.close()
        await writer.wait_closed()
        await until(lambda: not list(folder.iterdir()))

    async def test_old_ones_go_at_the_next_start(self, tmp_path: Path) -> None:
        folder = tmp_path / "engine" / "blobs"
        folder.mkdir(parents=True)
        for name, age_s in (("0" * 64, KEPT_S + 9), ("1" * 64, 9), ("2" * 64 + ".ab", 9)):
            (folder / name).write_bytes(b"x")
            os.utime(folder / name, (time.time() - age_s,) * 2)
        config = config_for(tmp_path)
        Blobs(folder, Models(config), Digests(tmp_path / "digests.json")).prune()
        assert [path.name for path in folder.iterdir()] == ["1" * 64]


async def test_push_says_where_to_go(engine: httpx.AsyncClient) -> None:
    response = await engine.post("/api/push", json={"model": "base:1b"})
    assert response.status_code == 501
    assert "push it from an Ollama" in response.json()["error"]
