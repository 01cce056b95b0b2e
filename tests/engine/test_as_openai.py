"""The embedded engine as any OpenAI-compatible server: a column asks its /v1 and gets the same answer as from /api."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from arena.compare import Compare
from arena.errors import ModelNotFound
from arena.fleet import EndpointSpec, Fleet, connect
from arena.streaming import Reply
from arena.types import ChatMessage, ChatRequest, EndpointKind, ModelInstance, Options

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

ONE = "tiny:one"
COLD = Options(temperature=0, top_p=1.0, num_predict=24)


@pytest.fixture
async def fleet(engine: httpx.AsyncClient) -> AsyncIterator[Fleet]:
    """The engine twice: by its own API and as an OpenAI-compatible server."""
    url = str(engine.base_url).rstrip("/")
    kinds: tuple[EndpointKind, ...] = ("ollama", "openai")
    specs = [EndpointSpec(name=kind, url=url, type=kind, check_interval_s=0) for kind in kinds]
    fleet = Fleet([connect(spec) for spec in specs])
    try:
        await fleet.statuses()
        yield fleet
    finally:
        await fleet.aclose()


async def asked(fleet: Fleet, *instances: ModelInstance) -> list[Reply]:
    requests = [ChatRequest(instance, (ChatMessage("user", "Hello"),)) for instance in instances]
    run = Compare(fleet).start(requests, order="one_after_another")
    return list((await run.transcript()).replies.values())


async def test_the_same_answer_by_both_ways(fleet: Fleet) -> None:
    native, other = await asked(
        fleet, ModelInstance("a", ONE, COLD, endpoint="ollama"), ModelInstance("b", ONE, COLD, endpoint="openai")
    )
    assert (native.error, other.error) == (None, None)
    assert other.text == native.text != ""
    assert native.metrics is not None
    assert other.metrics is not None
    assert (other.metrics.tokens, other.metrics.prompt_tokens) == (24, native.metrics.prompt_tokens)
    assert other.metrics.prompt_cached, "the same prompt came just before"
    assert (other.metrics.cut_by_limit, other.metrics.done_reason) == (True, "length")
    assert (other.metrics.duration_s, other.metrics.load_s, other.metrics.queue_s) == (None, None, None)


async def test_what_it_lists_and_what_it_lacks(fleet: Fleet) -> None:
    endpoint = fleet.endpoint("openai")
    assert {info.name for info in await endpoint.models()} == {ONE, "tiny:two"}
    (reply,) = await asked(fleet, ModelInstance("a", "no-such-model", endpoint="openai"))
    assert reply.error is not None
    assert reply.error.code == ModelNotFound.default_code


async def test_a_setting_it_refuses_is_told_in_its_own_words(fleet: Fleet) -> None:
    (reply,) = await asked(fleet, ModelInstance("a", ONE, Options(top_p=-1.0), endpoint="openai"))
    assert reply.error is not None
    assert reply.error.message == 'option "top_p" must be between 0 and 1000'
