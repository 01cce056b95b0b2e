"""Runs: every instance its own answer, manifest and end; stops and drains keep the text and free the endpoint."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import msgspec
import pytest

from arena import __version__
from arena.compare import Compare, prompt_hash
from arena.errors import BadRequest, ShuttingDown
from arena.fleet import Endpoint, EndpointSpec, Fleet, FleetSpec
from arena.ollama import OllamaClient
from arena.streaming import Outlet
from arena.types import ChatMessage, ChatRequest, Delta, Finished, Metrics, ModelInstance, Options
from tests.fake_ollama import FakeOllama, text_of

pytestmark = pytest.mark.anyio
HELLO = (ChatMessage("user", "Hello"),)


def ask(model: str, instance_id: str | None = None, options: Options | None = None, **settings: str) -> ChatRequest:
    instance = ModelInstance(instance_id or model, model, options or Options(), **settings)
    return ChatRequest(instance, HELLO)


@pytest.fixture
async def fleet(fake: FakeOllama) -> AsyncIterator[Fleet]:
    fleet = Fleet([Endpoint("local", OllamaClient(fake.url, name="local"))])
    yield fleet
    await fleet.aclose()


@pytest.fixture
def compare(fleet: Fleet) -> Compare:
    return Compare(fleet, now=lambda: datetime(2026, 1, 2, tzinfo=UTC))


async def test_two_models_answer_side_by_side(compare: Compare) -> None:
    transcript = await compare.start([ask("fx-ok:n-5"), ask("fx-ok:n-7", "b")]).transcript()
    assert transcript.replies["fx-ok:n-5"].text == text_of(5)
    assert transcript.replies["b"].text == text_of(7)
    metrics = transcript.replies["b"].metrics
    assert metrics is not None
    assert metrics.tokens == 7
    assert compare.running == 0


class AtOnce:
    """An answer that was whole as soon as it was asked for."""

    call = None
    pieces = 1

    def __init__(self, request: ChatRequest, outlet: Outlet) -> None:
        outlet.put([Delta(request.instance.id, "Hi.")])
        outlet.put([Finished(request.instance.id, Metrics())])

    async def result(self) -> None:
        """It is over."""

    def close(self) -> None:
        """Nothing is left of it."""


async def test_an_answer_that_comes_at_once_has_its_manifest(
    compare: Compare, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.statuses()
    monkeypatch.setattr(OllamaClient, "ask", lambda self, request, outlet, contended: AtOnce(request, outlet))
    reply = (await compare.start([ask("tiny")]).transcript()).replies["tiny"]
    assert (reply.text, reply.error) == ("Hi.", None)
    assert reply.manifest is not None
    assert reply.manifest.model == "tiny"


async def test_the_manifest_holds_what_is_needed_to_run_it_again(compare: Compare, fleet: Fleet) -> None:
    await fleet.statuses()
    await fleet.endpoints[0].client.load("tiny")
    fleet.endpoints[0].forget()
    await fleet.models()
    request = ask("tiny", options=Options(temperature=0.5, seed=42), system="Be brief.")
    reply = (await compare.start([request]).transcript()).replies["tiny"]
    manifest = reply.manifest
    known = fleet.endpoints[0].known("tiny")
    assert manifest is not None
    assert known is not None
    assert manifest.digest == known.digest
    assert manifest.digest
    assert (manifest.endpoint, manifest.endpoint_kind) == ("local", "ollama")
    assert manifest.endpoint_version
    assert manifest.options_sent == {"temperature": 0.5, "seed": 42}
    assert manifest.options_left_default == ("top_p", "top_k", "repeat_penalty", "num_predict", "num_ctx", "stop")
    assert manifest.seed == 42
    assert manifest.context_length
    assert manifest.prompt_sha256 == prompt_hash("Be brief.", HELLO)
    assert manifest.app_version == __version__
    assert manifest.started_at == "2026-01-02T00:00:00.000+00:00"


@pytest.mark.parametrize(("asked", "told"), [(1024, 1024), (1_000_000, 8192), (None, None)])
async def test_the_manifest_never_claims_more_context_than_the_model_has(
    compare: Compare, fleet: Fleet, asked: int | None, told: int | None
) -> None:
    await fleet.models()
    manifest = compare.manifest(ask("tiny", options=Options(num_ctx=asked)), fleet.endpoints[0])
    assert manifest.context_length == told


async def test_after_a_long_answer_the_context_it_ran_with_is_known(fake: FakeOllama) -> None:
    now_s = 0.0
    local = Endpoint("local", OllamaClient(fake.url, name="local"), clock=lambda: now_s)
    compare = Compare(Fleet([local]))
    await local.models()
    contexts: list[int | None] = []
    for arrivals in (1, 2):
        reading = asyncio.create_task(compare.start([ask("fx-gate:id-x")]).transcript())
        await fake.arrived(arrivals, path="/api/chat")
        now_s += 6
        fake.release("x", 1000)
        manifest = (await reading).replies["fx-gate:id-x"].manifest
        assert manifest is not None
        contexts.append(manifest.context_length)
        await anyio.wait_all_tasks_blocked()
        await local.models(max_age_s=1000)  # joins the question under way, asks none itself
    assert contexts == [None, 8192]
    await local.aclose()


def test_the_prompt_hash_tells_prompts_apart() -> None:
    assert prompt_hash(None, HELLO) == prompt_hash(None, HELLO)
    assert prompt_hash(None, HELLO) != prompt_hash("x", HELLO)
    assert prompt_hash(None, HELLO) != prompt_hash(None, (ChatMessage("user", "Hi"),))


async def test_side_by_side_on_one_endpoint_is_flagged_one_after_another_is_not(compare: Compare) -> None:
    requests = [ask("fx-ok:n-30_ms-1", name) for name in "ab"]
    together = await compare.start(requests).transcript()
    apart = await compare.start(requests, order="one_after_another").transcript()
    for transcript, contended in ((together, True), (apart, False)):
        for reply in transcript.replies.values():
            assert reply.metrics is not None
            assert reply.metrics.contended is contended
            assert reply.metrics.rate_reliable is not contended


async def test_one_after_another_never_overlaps(compare: Compare, fake: FakeOllama) -> None:
    requests = [ask("fx-gate:id-x", name) for name in "ab"]

    async def read() -> None:
        await compare.start(requests, order="one_after_another").transcript()

    task = asyncio.create_task(read())
    await fake.arrived(1, path="/api/chat")
    assert fake.open == 1
    fake.release("x", 1000)
    with anyio.fail_after(5):
        await task
    first, second = (record for record in fake.log if record.path == "/api/chat")
    assert first.last_byte_at is not None
    assert second.requested_at >= first.last_byte_at
    assert first.ended == second.ended == "complete"


async def test_stop_one_keeps_its_text_and_lets_the_other_finish(compare: Compare, fake: FakeOllama) -> None:
    run = compare.start([ask("fx-gate:id-a", "a"), ask("fx-gate:id-b", "b")])
    fake.release("a", 3)
    text = {"a": "", "b": ""}
    ends: dict[str, str] = {}
    with anyio.fail_after(5):
        async for batch in run.events():
            for event in batch:
                text[event.instance_id] += getattr(event, "text", "")
                if type(event).__name__ in ("Finished", "Failed"):
                    ends[event.instance_id] = getattr(event, "code", "finished")
            if text["a"] and "a" not in ends:
                run.stop("a")
                await fake.closed(1)
                fake.release("b", 1000)
    assert ends == {"a": "stopped", "b": "finished"}
    assert text["a"]
    assert text["b"]


async def test_an_answer_whose_tokens_nobody_told_counts_its_pieces_to_the_key(
    compare: Compare, fake: FakeOllama, fleet: Fleet
) -> None:
    """Else a key would be free on every server that tells no figures."""
    reply = (await compare.start([ask("fx-nometrics:n-7", "x")], key="ann").transcript()).replies["x"]
    assert reply.metrics is not None
    assert reply.metrics.tokens is None
    (entry,) = fleet.book.recent
    assert (entry.key, entry.outcome, entry.completion_tokens, entry.estimated) == ("ann", "succeeded", 7, True)


async def test_what_an_answer_has_said_counts_to_the_key_though_it_is_stopped(
    compare: Compare, fake: FakeOllama, fleet: Fleet
) -> None:
    run = compare.start([ask("fx-gate")], key="ann")
    fake.release(n=3)
    said = ""
    with anyio.fail_after(5):
        async for batch in run.events():
            said += "".join(event.text for event in batch if isinstance(event, Delta))
            if said == text_of(3):
                run.stop()
    (entry,) = fleet.book.recent
    assert (entry.key, entry.outcome, entry.completion_tokens, entry.estimated) == ("ann", "left", 3, True)


async def test_leaving_frees_the_endpoint_before_the_first_token(compare: Compare, fake: FakeOllama) -> None:
    task = asyncio.create_task(compare.start([ask("fx-hang"), ask("fx-hang", "b")]).transcript())
    await fake.arrived(2, path="/api/chat")
    assert compare.running == 2
    task.cancel()
    await asyncio.wait([task])
    await fake.idle()
    assert compare.running == 0


async def test_a_run_that_nobody_reads_is_forgotten(compare: Compare) -> None:
    run = weakref.ref(compare.start([ask("fx-ok:n-5")]))
    gc.collect()
    assert run() is None


async def test_drain_reaches_a_run_that_is_not_read_yet(compare: Compare, fake: FakeOllama) -> None:
    run = compare.start([ask("fx-ok:n-5")])
    compare.drain()
    error = (await run.transcript()).replies["fx-ok:n-5"].error
    assert error is not None
    assert error.code == "server_shutting_down"
    assert not any(record.path == "/api/chat" for record in fake.log)


async def test_drain_ends_every_answer_and_refuses_new_ones(compare: Compare, fake: FakeOllama) -> None:
    task = asyncio.create_task(compare.start([ask("fx-stall:at-2")]).transcript())
    await fake.arrived(1, path="/api/chat")
    await anyio.wait_all_tasks_blocked()
    compare.drain()
    with anyio.fail_after(5):
        reply = (await task).replies["fx-stall:at-2"]
    assert reply.error is not None
    assert reply.error.code == "server_shutting_down"
    with pytest.raises(ShuttingDown):
        compare.start([ask("tiny")])


async def test_a_model_that_nobody_has_is_its_own_columns_error(compare: Compare) -> None:
    transcript = await compare.start([ask("nowhere:1b"), ask("tiny")]).transcript()
    error = transcript.replies["nowhere:1b"].error
    assert error is not None
    assert error.code == "model_not_found"
    assert transcript.replies["tiny"].text == text_of(20)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "No models selected"),
        ([ask("tiny", "x"), ask("tiny", "x")], "Duplicate model instance detected: x"),
        ([ChatRequest(ModelInstance("x", "tiny"), ())], "No messages provided"),
    ],
)
async def test_what_cannot_run_is_refused_at_once(compare: Compare, requests: list[ChatRequest], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        compare.start(requests)


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Fleet, FakeOllama, FakeOllama]]:
    """Two hosts with the same models, the first of which is asked first."""
    models = ["m:1b", "fx-ok:n-5", "fx-nodone:n-3"]
    async with FakeOllama(models=models) as one, FakeOllama(models=models) as two:
        specs = (EndpointSpec(name="one", url=one.url), EndpointSpec(name="two", url=two.url))
        fleet = Fleet(spec=FleetSpec(endpoints=specs, aliases={"nick": ("m:1b",)}))
        await fleet.models()
        yield fleet, one, two
        await fleet.aclose()


async def test_a_host_that_fails_before_the_first_token_is_replaced_by_another() -> None:
    async with two_hosts() as (fleet, one, _):
        one.state(queue_full=True)
        reply = (await Compare(fleet).start([ask("fx-ok:n-5", "x")]).transcript()).replies["x"]
        assert reply.error is None
        assert reply.text == text_of(5)
        assert reply.manifest is not None
        assert reply.manifest.endpoint == "two"
        assert [(entry.endpoint, entry.outcome, entry.tried) for entry in fleet.book.recent] == [
            ("two", "succeeded", ("one",)),
            ("one", "failed", ()),
        ]
        assert fleet.book.recent[0].completion_tokens == 5
        assert fleet.book.recent[0].ttft_s is not None
        assert [endpoint.in_flight for endpoint in fleet.endpoints] == [0, 0]


@pytest.mark.parametrize("alone", [False, True], ids=["two hosts", "the only one that has it"])
async def test_a_host_that_froze_is_left_where_another_can_take_over(alone: bool) -> None:
    async with two_hosts() as (fleet, one, two):
        host = fleet.endpoint("one")
        host.adopt(msgspec.structs.replace(host.spec, check_timeout_s=0.05, down_after=1))
        if alone:
            two.state(models=["other"])
            await fleet.models(0.0)
        one.state(routes={"/api/chat": "fx-gate:n-5"})
        answer = asyncio.create_task(Compare(fleet).start([ask("m:1b", "x")]).transcript())
        await one.arrived(path="/api/chat")
        one.state(delay_ms=60_000)
        await host.probe()
        one.release(n=99)
        reply = (await answer).replies["x"]
        assert reply.error is None
        assert reply.manifest is not None
        assert reply.manifest.endpoint == ("one" if alone else "two")


@pytest.mark.parametrize("status", [400, 401])
async def test_what_is_wrong_with_the_request_or_its_credentials_is_not_tried_elsewhere(status: int) -> None:
    async with two_hosts() as (fleet, one, two):
        one.state(routes={"/api/chat": f"fx-status:c-{status}"})
        reply = (await Compare(fleet).start([ask("m:1b", "x")]).transcript()).replies["x"]
        assert reply.error is not None
        assert not [record for record in two.log if record.path == "/api/chat"]


async def test_when_no_other_host_can_take_over_the_failure_is_told() -> None:
    async with two_hosts() as (fleet, one, two):
        for host in (one, two):
            host.state(queue_full=True)
        reply = (await Compare(fleet).start([ask("fx-ok:n-5", "x")]).transcript()).replies["x"]
        assert reply.error is not None
        assert reply.error.code == "busy"
        assert fleet.book.totals().failed_requests == 1


async def test_what_broke_after_the_first_token_is_not_asked_again() -> None:
    async with two_hosts() as (fleet, _, two):
        reply = (await Compare(fleet).start([ask("fx-nodone:n-3", "x")]).transcript()).replies["x"]
        assert reply.error is not None
        assert reply.error.code == "upstream_eof"
        assert not [record for record in two.log if record.path == "/api/chat"]


async def test_a_pinned_column_goes_nowhere_else() -> None:
    async with two_hosts() as (fleet, one, _):
        one.state(queue_full=True)
        instance = ModelInstance(id="x", model="m:1b", endpoint="one")
        reply = (await Compare(fleet).start([ChatRequest(instance, HELLO)]).transcript()).replies["x"]
        assert reply.error is not None
        assert reply.error.code == "busy"
        unknown = ModelInstance(id="x", model="m:1b", endpoint="nowhere")
        reply = (await Compare(fleet).start([ChatRequest(unknown, HELLO)]).transcript()).replies["x"]
        assert reply.error is not None
        assert reply.error.code == "unknown_endpoint"


async def test_an_alias_is_sent_as_the_model_it_stands_for() -> None:
    async with two_hosts() as (fleet, _, _two):
        reply = (await Compare(fleet).start([ask("Nick", "x")]).transcript()).replies["x"]
        assert reply.error is None
        assert reply.manifest is not None
        assert reply.manifest.model == "m:1b"
