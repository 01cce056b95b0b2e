"""Pulls that succeed, fail, stall or are cut, and gates that a test opens token by token."""

from __future__ import annotations

import asyncio

import pytest

from tests.fake_ollama import FakeOllama, text_of
from tests.fake_ollama.raw import Answer, ask, ask_chat, chat, connect, request

pytestmark = pytest.mark.anyio


async def pull(fake: FakeOllama, model: str, **fields: object) -> Answer:
    return await ask(fake, "POST", "/api/pull", {"model": model, **fields})


async def test_a_pull_shows_progress_and_lists_the_model(fake: FakeOllama) -> None:
    lines = (await pull(fake, "new:1b")).lines
    assert [lines[0], lines[-1]] == [{"status": "pulling manifest"}, {"status": "success"}]
    layer = [line for line in lines if line.get("total") == 1_000_000]
    assert "completed" not in layer[0]
    assert layer[-1]["completed"] == 1_000_000
    assert layer[0]["digest"].startswith("sha256:")
    assert "new:1b" in fake.models
    assert (await pull(fake, "other", stream=False)).json == {"status": "success"}
    assert fake.models[0] == "other:latest"


async def test_pulls_that_fail(fake: FakeOllama) -> None:
    assert (await pull(fake, "fx-pull-err")).lines[-1] == {"error": "pull model manifest: file does not exist"}
    assert (await pull(fake, "missing:1b")).lines[-1] == {"error": "pull model manifest: file does not exist"}
    refused = await pull(fake, "missing:1b", stream=False)
    assert (refused.status, "error" in refused.json) == (500, True)
    assert "no space left" in (await pull(fake, "fx-pull-disk")).lines[-1]["error"]
    cut = await pull(fake, "fx-pull:cut-40")
    assert (cut.reset, fake.log[-1].tokens) == (True, 4)
    assert (await pull(fake, "a b")).status == 400
    assert not any("missing" in name for name in fake.models)


async def test_a_pull_that_stalls_waits_for_the_client_to_leave(fake: FakeOllama) -> None:
    _, writer = await connect(fake)
    writer.write(request("POST", "/api/pull", {"model": "fx-pull-stall"}))
    await fake.until(lambda: fake.log[:1] != [] and fake.log[0].tokens == 5, 1)
    writer.close()
    await fake.closed(1)


# gates


async def test_a_gate_lets_one_token_pass_for_each_release(fake: FakeOllama) -> None:
    reader, writer = await connect(fake)
    writer.write(request("POST", "/api/chat", chat("fx-gate:n-3_id-a")))
    await fake.arrived()
    assert fake.log[0].first_byte_at is None
    fake.release("b", 5)
    for count in (1, 2):
        fake.release("a")
        await fake.until(lambda count=count: fake.log[0].tokens == count, 1)  # type: ignore[misc]
    fake.release("a", 1)
    assert Answer(await reader.read()).text == text_of(3)
    writer.close()
    fake.release(2)
    assert (await ask_chat(fake, "fx-gate:n-2")).text == text_of(2)


async def test_a_gate_holds_a_pull(fake: FakeOllama) -> None:
    asking = asyncio.create_task(pull(fake, "fx-gate:id-p_n-2"))
    await fake.arrived()
    fake.release("p", 1)
    await fake.until(lambda: fake.log[0].tokens == 1, 1)
    fake.release("p", 1)
    assert (await asking).lines[-1] == {"status": "success"}
