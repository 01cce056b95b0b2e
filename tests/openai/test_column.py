"""A server of type "openai" as a column of the arena, from its specification to the folded reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from arena.compare import Compare
from arena.fleet import Auth, EndpointSpec, Fleet, connect
from arena.streaming import Reply
from arena.types import ChatRequest, ModelInstance, Options
from tests.asking import HELLO
from tests.fake_ollama import FakeOllama, text_of
from tests.openai.conftest import DONE, chunk
from tests.peer import Guest, Peer, chunked, ok

pytestmark = pytest.mark.anyio

MODELS = {"data": [{"id": "Qwen/Big", "owned_by": "vllm", "max_model_len": 8192}]}


@asynccontextmanager
async def arena_of(*specs: EndpointSpec) -> AsyncIterator[tuple[Fleet, Compare]]:
    """A fleet of these servers, and what asks them."""
    fleet = Fleet([connect(spec) for spec in specs])
    try:
        async with asyncio.timeout(30):
            await fleet.statuses()
            yield fleet, Compare(fleet)
    finally:
        await fleet.aclose()


def spec(name: str, url: str, auth: Auth | None = None) -> EndpointSpec:
    return EndpointSpec(name=name, url=url, type="openai", auth=auth, check_interval_s=0)


async def asked(compare: Compare, *instances: ModelInstance) -> dict[str, Reply]:
    run = compare.start([ChatRequest(instance, HELLO) for instance in instances])
    return (await run.transcript()).replies


async def vllm(peer: Peer, guest: Guest) -> None:
    """Two routes of a vLLM."""
    while True:
        line = (await guest.request()).line
        if line.startswith("POST"):
            usage = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n'
            await guest.say(chunked(chunk("Hi"), chunk(reason="stop"), usage, DONE))
        else:
            await guest.say(ok(json.dumps(MODELS).encode() if "/v1/models" in line else b'{"version": "0.11.0"}'))


async def test_a_column_with_its_manifest() -> None:
    async with Peer(lambda guest: vllm(peer, guest)) as peer:
        async with arena_of(spec("gpu", f"{peer.url}/v1", Auth.bearer("k"))) as (fleet, compare):
            (status,) = await fleet.statuses()
            assert (status.reachable, status.kind, status.version, status.models) == (True, "openai", "0.11.0", 1)
            assert [item.name for item in await fleet.loaded()] == ["Qwen/Big"]
            options = Options(temperature=0, top_k=5, num_ctx=512, num_predict=-1)
            (reply,) = (await asked(compare, ModelInstance("a", "qwen/big", options, think=True))).values()
        assert (reply.text, reply.error) == ("Hi", None)
        assert reply.metrics is not None
        assert (reply.metrics.tokens, reply.metrics.tokens_per_sec, reply.metrics.load_s) == (2, None, None)
        manifest = reply.manifest
        assert manifest is not None
        assert (manifest.endpoint, manifest.endpoint_kind, manifest.endpoint_version) == ("gpu", "openai", "0.11.0")
        assert manifest.options_sent == {"temperature": 0, "top_k": 5}
        assert (manifest.context_length, manifest.think) == (8192, True)
        sent = [request for request in peer.requests if request.line.startswith("POST")]
        assert json.loads(sent[0].body)["model"] == "Qwen/Big"
        assert all(b"Authorization: Bearer k" in request.head for request in peer.requests)


async def test_beside_columns_of_another_kind(fake: FakeOllama) -> None:
    fake.state(models=["tiny", "fx-ok", "fx-eof:n-3", "fx-slow"])
    native = EndpointSpec(name="native", url=fake.url, check_interval_s=0)
    async with arena_of(native, spec("other", fake.url)) as (fleet, compare):
        replies = await asked(
            compare,
            ModelInstance("a", "fx-ok", endpoint="native"),
            ModelInstance("b", "fx-ok", endpoint="other"),
            ModelInstance("c", "fx-eof:n-3", endpoint="other"),
        )
        assert replies["a"].text == replies["b"].text == text_of(20)
        assert replies["b"].metrics is not None
        assert replies["c"].text == text_of(3)
        assert replies["c"].error is not None
        assert replies["c"].error.code == "upstream_eof"
        paths = sorted(record.path for record in fake.log if record.path.endswith(("/chat", "/completions")))
        assert paths == ["/api/chat", "/v1/chat/completions", "/v1/chat/completions"]
        assert all(endpoint.in_flight == 0 for endpoint in fleet.endpoints)


async def test_stopping_a_column_frees_the_server(fake: FakeOllama) -> None:
    fake.state(models=["fx-hang"])
    async with arena_of(spec("other", fake.url)) as (fleet, compare):
        run = compare.start([ChatRequest(ModelInstance("a", "fx-hang"), HELLO)])
        async with asyncio.TaskGroup() as tasks:
            told = tasks.create_task(run.transcript())
            await fake.arrived(1, path="/v1/chat/completions")
            run.stop()
        (reply,) = told.result().replies.values()
        assert reply.error is not None
        assert reply.error.code == "stopped"
        assert fleet.endpoint("other").in_flight == 0
    await fake.idle()
