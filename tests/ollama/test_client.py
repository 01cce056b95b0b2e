"""OllamaClient: what it sends, what it makes of the lines, the counters and the lists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from arena.errors import ArenaError, BadRequest, Busy, ModelNotFound, UpstreamError
from arena.ollama import OllamaClient
from arena.streaming import Mailbox, Outlet
from arena.types import (
    Batch,
    ChatMessage,
    ChatRequest,
    Delta,
    Finished,
    LoadedModel,
    Metrics,
    ModelInfo,
    ModelInstance,
    Options,
    PullProgress,
)
from arena.wire import Timeouts
from tests import asking
from tests.asking import HELLO
from tests.fake_ollama import FakeOllama, text_of
from tests.ollama.test_lines import line
from tests.peer import Guest, answers, chunked, ok

pytestmark = pytest.mark.anyio

client_of = partial(asking.client_of, OllamaClient, name="fake")
said = partial(asking.said, OllamaClient, name="fake")


async def pulled(client: OllamaClient, model: str, got: list[PullProgress] | None = None) -> list[PullProgress]:
    """All progress; in `got` also if it ends badly."""
    got = [] if got is None else got
    async for progress in client.pull(model):
        got.append(progress)
    return got


def status(code: int, body: bytes, *fields: str) -> bytes:
    return ok(body, *fields).replace(b"200 OK", b"%d Status" % code)


async def answered(client: OllamaClient, request: ChatRequest, contended: Callable[[], bool] | None = None) -> Batch:
    """All events of one chat."""
    mailbox = Mailbox(1)
    await client.chat(request, Outlet(request.instance.id, mailbox), contended=contended)
    return await mailbox.get() or []


# requests


async def test_what_a_chat_sends(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        instance = ModelInstance(
            "a", "fx-vision", Options(temperature=0, seed=7, stop=("END",)), system="Be brief.", think=False
        )
        history = (
            ChatMessage("user", "Look", images=("aGk=",)),
            ChatMessage("assistant", "", thinking="hm", extra={"tool_calls": [{"id": "1"}], "role": "forged"}),
            ChatMessage("tool", "42", extra={"tool_name": "sum"}),
        )
        await answered(client, ChatRequest(instance, history))
        assert fake.log[0].body == {
            "model": "fx-vision",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Look", "images": ["aGk="]},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "42", "tool_name": "sum"},
            ],
            "stream": True,
            "truncate": False,
            "options": {"temperature": 0, "seed": 7, "stop": ["END"]},
            "think": False,
        }


async def test_what_is_not_set_is_not_sent(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        own = (ChatMessage("system", "Mine."), *HELLO)
        await answered(client, ChatRequest(ModelInstance("a", "fx-ok", system="Yours."), own))
        assert fake.log[0].body == {
            "model": "fx-ok",
            "messages": [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hello"}],
            "stream": True,
            "truncate": False,
        }


async def test_half_a_character_is_refused_before_anything_is_sent(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        with pytest.raises(BadRequest, match="lone surrogate"):
            await answered(client, ChatRequest(ModelInstance("a", "fx-ok"), (ChatMessage("user", "\ud800"),)))
        assert fake.log == []


async def test_our_own_credentials_for_an_endpoint_are_sent(fake: FakeOllama) -> None:
    async with client_of(fake.url, headers=[("Authorization", "Bearer upstream")]) as client:
        await client.version()
        assert fake.log[0].headers["authorization"] == "Bearer upstream"


async def test_a_model_that_cannot_think_says_so() -> None:
    text = b'{"error":"\\"plain\\" does not support thinking"}'
    async with said(answers(status(400, text))) as client:
        with pytest.raises(UpstreamError) as error:
            await answered(client, ChatRequest(ModelInstance("a", "plain", think=True), HELLO))
        assert (error.value.message, error.value.upstream_status) == ('"plain" does not support thinking', 400)


# the stream


async def test_one_delta_a_line_and_then_the_end(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        *deltas, end = await answered(client, ChatRequest(ModelInstance("a", "fx-ok:n-3"), HELLO))
        assert [type(event) for event in deltas] == [Delta] * 3
        assert "".join(cast(Delta, event).text for event in deltas) == text_of(3)
        assert isinstance(end, Finished)


async def test_the_last_line_is_the_end_even_if_the_endpoint_lingers() -> None:
    async def script(guest: Guest) -> None:
        await guest.request()
        await guest.say(chunked(line("a"), line(done=True), end=False))
        await guest.gone()

    async with said(script) as client:
        events = await answered(client, ChatRequest(ModelInstance("a", "m"), HELLO))
        assert [type(event) for event in events] == [Delta, Finished]


async def test_figures_of_an_answer(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        request = ChatRequest(ModelInstance("a", "fx-ok:n-20_prompt-10_queue-300_load-100"), HELLO)
        end = (await answered(client, request))[-1]
        assert isinstance(end, Finished)
        figures = end.metrics
        assert (figures.tokens, figures.duration_s, figures.tokens_per_sec) == (20, 0.4, 50)
        assert (figures.load_s, figures.prompt_s) == (0.1, 0.01)
        assert figures.queue_s == pytest.approx(0.3)
        assert (figures.prompt_tokens, figures.prompt_cached, figures.done_reason) == (10, None, "stop")
        assert (figures.rate_reliable, figures.cut_by_limit, figures.contended) == (True, False, False)
        assert figures.ttft_s is not None
        assert figures.ttft_s == figures.first_visible_s
        assert figures.total_s is not None
        assert figures.total_s >= figures.ttft_s
        assert figures.server_total_s == pytest.approx(0.81)


async def test_contention_makes_the_rate_unreliable(fake: FakeOllama) -> None:
    async with client_of(fake.url) as client:
        end = (await answered(client, ChatRequest(ModelInstance("a", "fx-ok"), HELLO), lambda: True))[-1]
        assert isinstance(end, Finished)
        assert (end.metrics.contended, end.metrics.rate_reliable) == (True, False)
        assert end.metrics.tokens_per_sec == pytest.approx(50)


async def test_thoughts_count_for_the_first_token_but_not_for_the_first_visible_one() -> None:
    now_s = 0.0
    go = asyncio.Event()

    async def script(guest: Guest) -> None:
        await guest.request()
        await guest.say(chunked(line(thinking="hm"), end=False))
        await go.wait()
        await guest.say(chunked(line("yes"), line(done=True)).partition(b"\r\n\r\n")[2])

    async with said(script, clock=lambda: now_s) as client:
        mailbox = Mailbox(1)
        outlet = Outlet("a", mailbox)
        now_s = 10.0
        task = asyncio.ensure_future(client.chat(ChatRequest(ModelInstance("a", "m"), HELLO), outlet))
        now_s = 10.0
        await asyncio.sleep(0)
        now_s = 12.0
        assert await mailbox.get() == [Delta("a", "", "hm")]
        assert outlet.metrics_so_far() == Metrics(ttft_s=2.0, first_visible_s=None, total_s=2.0)
        now_s = 15.0
        go.set()
        await task
        events = await mailbox.get()
        assert events is not None
        assert events[0] == Delta("a", "yes")
        end = events[-1]
        assert isinstance(end, Finished)
        assert (end.metrics.ttft_s, end.metrics.first_visible_s, end.metrics.total_s) == (2.0, 5.0, 5.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_deltas": 100}, "cut at 100 pieces of text"),
        ({"max_bytes": 5000}, "cut at 5000 bytes"),
        ({"timeouts": Timeouts(total_s=0.05)}, "took longer than 0.05 s"),
    ],
)
async def test_an_endless_answer_is_cut_at_its_budget(fake: FakeOllama, settings: dict[str, Any], words: str) -> None:
    async with client_of(fake.url, **settings) as client:
        mailbox = Mailbox(1)
        with pytest.raises(ArenaError) as error:
            await client.chat(ChatRequest(ModelInstance("a", "fx-endless"), HELLO), Outlet("a", mailbox))
        assert (error.value.code, words in error.value.message) == ("budget_exceeded", True)
        await fake.closed(1)
        if "max_deltas" in settings:
            assert len(await mailbox.get() or []) == 100


async def test_the_lane_does_not_wake_for_tokens(fake: FakeOllama) -> None:
    """One sleep for the whole stream: however many reads there were."""
    async with client_of(fake.url) as client:
        awaited = 0

        class Lane:
            def __await__(self) -> Any:
                nonlocal awaited
                steps = client.chat(request, Outlet("a", Mailbox(1))).__await__()
                for step in steps:
                    awaited += 1
                    yield step

        request = ChatRequest(ModelInstance("a", "fx-slicer:n-100_k-5"), HELLO)
        await Lane()
        assert awaited == 1


async def test_an_error_line_without_words() -> None:
    async with said(answers(ok(b'{"error":{}}\n'))) as client:
        with pytest.raises(UpstreamError, match="fake failed without saying why"):
            await answered(client, ChatRequest(ModelInstance("a", "m"), HELLO))


async def test_an_error_that_never_ends_is_cut_short() -> None:
    async def script(guest: Guest) -> None:
        await guest.request()
        await guest.say(b"HTTP/1.1 500 Oh\r\n\r\n")
        while True:
            await guest.say(b"x" * 10_000)

    async with said(script) as client:
        with pytest.raises(UpstreamError, match="status 500: xxx") as error:
            await answered(client, ChatRequest(ModelInstance("a", "m"), HELLO))
        assert len(error.value.message) < 300
        with pytest.raises(UpstreamError, match="status 500: xxx"):
            await pulled(client, "m")


# lists


async def test_version_and_lists_of_the_fake(fake: FakeOllama) -> None:
    async with client_of(fake.url + "/") as client:
        assert client.url == fake.url + "/"
        assert (await client.version())[0].isdigit()
        models = await client.tags()
        assert [model.name for model in models] == fake.models
        assert all(model.endpoints == ("fake",) and model.size_bytes > 0 for model in models)
        assert all(len(model.digest) == 64 for model in models)
        assert await client.ps() == ()
        await client.load(models[0].name)
        (loaded,) = await client.ps()
        assert (loaded.name, loaded.endpoint, loaded.context_length) == (models[0].name, "fake", 8192)
        await client.unload(models[0].name)
        assert await client.ps() == ()
        shown = await client.show(models[0].name)
        assert shown.name == models[0].name
        assert shown.capabilities is not None
        assert "completion" in shown.capabilities
        await client.delete(models[0].name)
        assert models[0].name not in {model.name for model in await client.tags()}
        with pytest.raises(ModelNotFound, match="not found"):
            await client.delete(models[0].name)
        with pytest.raises(ModelNotFound, match="not found"):
            await client.load("nobody:1b")


async def test_a_full_list_entry() -> None:
    entry = {
        "name": "m:1b", "model": "m:1b", "modified_at": "2026-11-22T03:07:40.1+00:00",
        "size": 98, "digest": "sha256:ab",
        "details": {"family": "llama", "families": None, "parameter_size": "1B", "quantization_level": "Q4_1",
                    "context_length": 8192},
        "capabilities": ["completion", "vision"],
    }  # fmt: skip
    async with said(answers(ok(json.dumps({"models": [entry]}).encode()))) as client:
        assert await client.tags() == (
            ModelInfo(
                name="m:1b",
                endpoints=("fake",),
                size_bytes=98,
                digest="ab",
                family="llama",
                parameter_size="1B",
                quantization="Q4_1",
                context_length=8192,
                capabilities=("completion", "vision"),
                modified_at="2026-11-22T03:07:40.1+00:00",
            ),
        )
    entry = {"model": "m:1b", "size": 98, "size_vram": 49, "context_length": 4096, "expires_at": "2319-01-01T00:00:00Z"}
    async with said(answers(ok(json.dumps({"models": [entry]}).encode()))) as client:
        assert await client.ps() == (LoadedModel("m:1b", "fake", 98, 49, 4096, "2319-01-01T00:00:00Z"),)


@pytest.mark.parametrize(
    "body",
    [b'{"models":null}', b'{"models":[]}', b'{"models":[{"name":"m","details":null}]}', b'{"models":[{"name":"m"}]}'],
)
async def test_sparse_lists(body: bytes) -> None:
    async with said(answers(ok(body))) as client:
        assert [model.name for model in await client.tags()] in ([], ["m"])


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (ok(b"Ollama is running"), "malformed"),
        (ok(b"<html>"), "not_ollama"),
        (ok(b"{}"), "malformed"),
        (ok(b""), "malformed"),
        (ok(b'{"models":[{"name":7}]}'), "malformed"),
        (status(404, b"404 page not found"), "not_ollama"),
        (status(503, b""), "busy"),
        (status(500, b""), "upstream_error"),
    ],
)
async def test_a_list_that_is_none(wire: bytes, code: str) -> None:
    async with said(answers(wire)) as client:
        for ask in (client.tags, client.ps):
            with pytest.raises(ArenaError) as error:
                await ask()
            assert error.value.code == code


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ({"model_info": {"general.architecture": "llama", "llama.context_length": 8192}}, 8192),
        ({"model_info": {"llama.context_length": None}}, None),
        ({"model_info": None, "details": {"family": None}}, None),
        ({}, None),
    ],
)
async def test_the_training_context_is_found(body: dict[str, Any], context: int | None) -> None:
    async with said(answers(ok(json.dumps({"capabilities": ["completion"], **body}).encode()))) as client:
        shown = await client.show("m")
        assert (shown.name, shown.context_length, shown.capabilities) == ("m", context, ("completion",))


async def test_a_failure_under_status_200_is_a_failure() -> None:
    async with said(answers(ok(b'{"error":"out of memory"}'))) as client:
        with pytest.raises(UpstreamError, match="out of memory"):
            await client.load("m")


async def test_busy_tells_what_ollama_said() -> None:
    async with said(answers(status(503, b'{"error":"server busy, please try again"}'))) as client:
        with pytest.raises(Busy) as error:
            await client.load("m")
        assert (error.value.message, error.value.details) == ("fake: server busy", "server busy, please try again")
