"""The proxy's own routes with the embedded engine and a fake server behind them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from arena.fleet import EndpointSpec, Fleet, FleetSpec
from arena.proxy import blobs, manage, merge
from arena.settings import load
from tests.engine.files import smollm2
from tests.fake_ollama import FakeOllama
from tests.proxy.ground import Ground, pieces, whole

pytestmark = [pytest.mark.anyio, pytest.mark.engine]
MODEL = "smollm2:135m"
END_S = 20


@pytest.fixture
def engine_url(tmp_path: Path) -> Iterator[str]:
    """An engine with SmolLM2, which nobody has to load."""
    weights = smollm2()
    if weights is None:
        pytest.skip("SmolLM2 is not here: run `python -m arena.engine setup`")
    link = tmp_path / "models" / "smollm2" / "135m.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(weights)
    options = ["--port", "0", "--data", str(tmp_path), "--no-fetch", "--watch-parent"]
    command = [sys.executable, "-m", "arena.engine", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.stdin.close()  # it ends with its standard input
            process.wait(END_S)


@pytest.fixture
async def ground(engine_url: str) -> AsyncIterator[Ground]:
    """The engine as the default host, and a fake server beside it."""
    async with FakeOllama(models=["tiny"]) as fake:
        specs = (
            EndpointSpec(name="engine", url=engine_url, type="engine"),
            EndpointSpec(name="fake", url=fake.url),
        )
        fleet = Fleet(spec=FleetSpec(endpoints=specs))
        try:
            await fleet.statuses()
            yield Ground(fleet, load(engine="off"), {"fake": fake})
        finally:
            await fleet.aclose()


async def test_lists_show_and_changes(ground: Ground) -> None:
    listed = (await ground.ask(merge.tags, "GET", "/api/tags")).json["models"]
    assert [(entry["name"], entry["olla"]["hosts"]) for entry in listed if entry["name"] in (MODEL, "tiny:latest")] == [
        (MODEL, ["engine"]),
        ("tiny:latest", ["fake"]),
    ]
    assert {"engine", "fake"} == set((await ground.ask(merge.version, "GET", "/api/version")).json["hosts"])
    assert (await ground.ask(merge.v1_model, "GET", f"/v1/models/{MODEL}")).json["id"] == MODEL
    shown = await ground.ask(merge.show, "POST", "/api/show", {"model": MODEL.upper()})
    assert shown.headers["x-olla-endpoint"] == "engine"
    assert shown.json["model_info"]["general.architecture"] == "llama"
    assert shown.json["modelfile"].startswith(f"FROM {MODEL}")

    data = b"no model at all"
    path = f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
    assert (await ground.ask(blobs.has_blob, "HEAD", path)).status == 404
    put = await whole(await blobs.put_blob(ground, ground.inbound("POST", path), pieces(data[:5], data[5:])))
    assert put.status == 201
    assert (await ground.ask(blobs.has_blob, "HEAD", path)).status == 200

    body = {"model": "made", "from": MODEL, "system": "Be brief."}
    made = await ground.ask(manage.create, "POST", "/api/create", body, query="endpoint=all")
    assert made.lines[-1] == {
        "status": "success",
        "results": [{"host": "engine", "status": "success"}, {"host": "fake", "status": "success"}],
    }
    assert ground.fleet.endpoint("engine").known("made") or await ground.fleet.models(0.0)
    removed = await ground.ask(manage.delete, "DELETE", "/api/delete", {"model": "made"}, query="endpoint=all")
    assert [result["status"] for result in removed.json["results"]] == ["success", "success"]
    names = [entry["name"] for entry in (await ground.ask(merge.tags, "GET", "/api/tags")).json["models"]]
    assert "made:latest" not in names
