"""Every way an endpoint can fail: the one failure that is told, the text that is kept, and nobody else harmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from arena.errors import Busy
from arena.ollama import OllamaClient
from arena.ollama.failures import refusal
from arena.streaming import FanOut, Reply, Transcript
from arena.types import ChatMessage, ChatRequest, ModelInstance
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama, checksum, text_of, text_said_by

pytestmark = pytest.mark.anyio

SHORT = Timeouts(connect_s=1, first_byte_s=1, idle_s=1)


@asynccontextmanager
async def client_of(fake: FakeOllama, **settings: Any) -> AsyncIterator[OllamaClient]:
    """A client; afterwards neither side has anything open."""
    client = OllamaClient(fake.url, name="fake", **settings)
    try:
        async with asyncio.timeout(30):
            yield client
    finally:
        await client.aclose()
    await fake.idle()


async def ask(client: OllamaClient, *models: str) -> list[Reply]:
    """Ask all models at once; their replies in order. Every lane must have had exactly one end."""
    lanes = {}
    for number, model in enumerate(models):
        instance = ModelInstance(str(number), model)
        request = ChatRequest(instance, (ChatMessage("user", "Hello"),))
        lanes[instance.id] = lambda outlet, request=request: client.chat(request, outlet)
    transcript, ends = Transcript(list(lanes)), []
    async for batch in FanOut(lanes).events():
        transcript.apply(batch)
        ends += [event.instance_id for event in batch if hasattr(event, "metrics")]
    assert sorted(ends) == sorted(lanes)
    return list(transcript.replies.values())


async def serves_on(client: OllamaClient) -> None:
    """Twenty good requests, four of them at a time."""
    for first in range(0, 20, 4):
        seeds = range(first, first + 4)
        replies = await ask(client, *(f"fx-ok:n-3_seed-{seed}" for seed in seeds))
        assert [(reply.text, reply.error) for reply in replies] == [(text_of(3, seed), None) for seed in seeds]


# model: (code, words of the message, tokens of text that were kept; None: any number up to the fault)
FAULTS: dict[str, tuple[str, str, int | None]] = {
    "fx-hang": ("timeout", "did not begin to answer in 1 s", 0),
    "fx-eof0": ("upstream_eof", "closed the connection before its answer was complete", 0),
    "fx-rst0": ("upstream_reset", "broke off the connection", 0),
    "fx-rst-head": ("upstream_reset", "broke off the connection", 0),
    "fx-halfhead": ("timeout", "did not begin to answer in 1 s", 0),
    "fx-slowhead": ("timeout", "did not begin to answer in 1 s", 0),
    "fx-bighead": ("upstream_broken", "not sound HTTP", 0),
    "fx-http09": ("upstream_broken", "not sound HTTP", 0),
    "fx-status:c-500": ("upstream_error", "an error was encountered while running the model: unexpected EOF", 0),
    "fx-status:c-400_kind-nested": ("upstream_error", "(9000 tokens) exceeds the available context", 0),
    "fx-status:c-503": ("busy", "server busy", 0),
    "fx-status:c-429_ra-2": ("rate_limited", "fake limits requests; retry in 2 s", 0),
    "fx-status:c-429": ("rate_limited", "fake limits requests", 0),
    "fx-status:c-404": ("model_not_found", "model 'fx-status:c-404' not found", 0),
    "fx-status:c-404_kind-text": ("not_ollama", "is not an Ollama server", 0),
    "fx-status:c-405_kind-text": ("upstream_error", "fake answered with status 405: 404 page not found", 0),
    "fx-status:c-401": ("upstream_refused", "fake refuses our credentials", 0),
    "fx-status:c-403": ("upstream_refused", "fake refuses our credentials", 0),
    "fx-redirect": ("upstream_broken", "redirects elsewhere", 0),
    "fx-html": ("not_ollama", "is not an Ollama server", 0),
    "fx-html:c-502": ("not_ollama", "is not an Ollama server", 0),
    "fx-bigerr": ("upstream_error", "", 0),
    "fx-empty200": ("upstream_eof", "without saying that it is complete", 0),
    "fx-stall:n-5": ("timeout", "fell silent for 1 s while answering", 5),
    "fx-cutline:n-5": ("upstream_truncated", "in the middle of a line", 5),
    "fx-cutline:n-5_clean-0": ("upstream_truncated", "in the middle of a line", 5),
    "fx-nodone:n-5": ("upstream_eof", "without saying that it is complete", 5),
    "fx-eof:n-5": ("upstream_eof", "closed the connection before its answer was complete", 5),
    "fx-badjson:n-5": ("malformed", "not Ollama's JSON", 5),
    "fx-deep:n-5": ("malformed", "not Ollama's JSON", 0),
    "fx-wrongtype:n-5_k-0": ("malformed", "that Ollama would not send", 5),
    "fx-wrongtype:n-5_k-2": ("malformed", "that Ollama would not send", 5),
    "fx-bigline:mb-9": ("line_too_long", "a line of more than 8 MiB", 0),
    "fx-errline:n-5": ("upstream_error", "an error was encountered while running the model: unexpected EOF", 5),
    "fx-endless:n-5": ("budget_exceeded", "cut at 2000 pieces of text", 2000),
    "fx-rst:n-5": ("upstream_reset", "broke off the connection", None),
    "fx-badframe": ("upstream_broken", "not sound HTTP", 0),
    "fx-badchunk:n-5": ("upstream_broken", "not sound HTTP", 5),
    "fx-longcl:n-5": ("upstream_truncated", "in the middle of a line", 5),
    "fx-gzip": ("upstream_broken", "not sound HTTP", 0),
    "fx-gzip-bomb:mb-16": ("upstream_broken", "not sound HTTP", 0),
}


@pytest.mark.parametrize("model", FAULTS)
async def test_a_fault_is_one_columns_failure_and_nothing_else(fake: FakeOllama, model: str) -> None:
    code, words, kept = FAULTS[model]
    timeouts = SHORT if code == "timeout" else Timeouts()
    async with client_of(fake, timeouts=timeouts, max_deltas=2000) as client:
        faulty, good = await ask(client, model, "fx-ok:n-40")
        assert faulty.error is not None
        assert (faulty.error.code, words in faulty.error.message) == (code, True), faulty.error
        if kept == 2000:
            assert faulty.text.startswith(text_of(5))
        else:
            texts = [text_of(n) for n in ([kept] if kept is not None else range(6))]
            assert faulty.text in texts
        assert faulty.error.metrics.tokens is None, "what was not counted by the endpoint is not invented"
        assert (faulty.error.metrics.ttft_s is None) == (faulty.text == "")
        assert (good.text, good.error) == (text_of(40), None)
        await serves_on(client)
    assert fake.canary_hits == []
    assert [record.model for record in fake.log].count(model) == 1, "sent again"


GOOD = [
    "fx-ok", "fx-jitter:n-3", "fx-load:load-20", "fx-tools", "fx-unicode", "fx-split", "fx-slicer:k-3", "fx-longline",
    "fx-crlf", "fx-blank", "fx-keyorder", "fx-extra", "fx-nocl", "fx-nan", "fx-afterdone", "fx-twodone",
    "fx-slowclose", "fx-staleka", "fx-pipeline", "fx-shortcl", "fx-manytokens:n-3000", "fx-100", "fx-evil-headers",
    "fx-ansi", "fx-cached", "fx-nometrics", "fx-noeval", "fx-noprompt", "fx-empty", "fx-wrongtype:n-5_k-1",
]  # fmt: skip


@pytest.mark.parametrize("model", GOOD)
async def test_an_odd_but_sound_answer_is_exact(fake: FakeOllama, model: str) -> None:
    async with client_of(fake) as client:
        for reply in await ask(client, model, model) + await ask(client, model):
            assert reply.error is None
            assert checksum(reply.text) == checksum(text_said_by(model))
            assert reply.metrics is not None
        (reply,) = await ask(client, "fx-ok")
        assert reply.text == text_of(20)


async def test_thinking_is_kept_apart(fake: FakeOllama) -> None:
    async with client_of(fake) as client:
        (reply,) = await ask(client, "fx-think:think-3_n-4")
        assert reply.text == text_of(4)
        assert reply.thinking == text_of(3, 1001)


async def test_bytes_that_are_no_text_become_a_mark_and_the_stream_goes_on(fake: FakeOllama) -> None:
    async with client_of(fake) as client:
        (reply,) = await ask(client, "fx-badutf8:n-5_at-2")
        assert reply.error is None
        assert reply.text == text_of(5)[: len(text_of(2))] + "\ufffd(" + text_of(5)[len(text_of(2)) :]


@pytest.mark.parametrize(
    ("accept", "codes"),
    [
        ("refuse", {"backend_unreachable"}),
        ("blackhole", {"backend_unreachable"}),
        ("eof", {"upstream_eof"}),
        ("rst", {"upstream_reset", "backend_unreachable"}),  # the reset may come before the connection is known to be
    ],
)
async def test_a_dead_endpoint_and_its_return(fake: FakeOllama, accept: str, codes: set[str]) -> None:
    async with client_of(fake, timeouts=SHORT) as client:
        fake.state(accept=accept)
        (reply,) = await ask(client, "fx-ok")
        assert reply.error is not None
        assert reply.error.code in codes
        fake.state(accept="normal")
        await serves_on(client)


@pytest.mark.parametrize("model", ["fx-hang", "fx-load:load-60000", "fx-stall:n-2", "fx-slow", "fx-endless:ms-0"])
async def test_stopping_frees_the_endpoint_at_once(fake: FakeOllama, model: str) -> None:
    async with client_of(fake, max_deltas=10**9) as client:
        request = ChatRequest(ModelInstance("a", model), (ChatMessage("user", "Hello"),))
        fan = FanOut({"a": lambda outlet: client.chat(request, outlet)})
        fan.start()
        await fake.arrived(1)
        if model in ("fx-stall:n-2", "fx-endless:ms-0"):
            await fake.until(lambda: fake.log[0].tokens >= 2, 5, "two tokens told")
        fan.stop()
        await fake.closed(1)
        batches = [batch async for batch in fan.events()]
        assert batches[-1][-1].code == "stopped"  # type: ignore[union-attr]
        (reply,) = await ask(client, "fx-ok")
        assert reply.text == text_of(20)


async def test_a_slow_consumer_holds_the_endpoint_back(fake: FakeOllama) -> None:
    async with client_of(fake, max_deltas=10**9, max_bytes=10**12) as client:
        request = ChatRequest(ModelInstance("a", "fx-endless:size-2000"), (ChatMessage("user", "Hello"),))
        events = FanOut({"a": lambda outlet: client.chat(request, outlet)}).events()
        await anext(events)
        told = -1
        while told != fake.log[0].tokens:  # until the endpoint stands still, the kernel's buffers being full
            told = fake.log[0].tokens
            await client.version()
        while fake.log[0].tokens == told:
            await anext(events)
        await events.aclose()
        await fake.closed(1)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("soon", None), ("9" * 400, None), ("", None)])
def test_a_busy_server_says_for_how_long_it_wants_to_rest(value: str, seconds: float | None) -> None:
    error = refusal(503, (("retry-after", value),), b"", "host")
    assert isinstance(error, Busy)
    assert error.retry_after_s == seconds
