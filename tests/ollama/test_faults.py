"""Every way an endpoint can fail: the one failure that is told, the text that is kept, and nobody else harmed."""

from __future__ import annotations

from functools import partial

import pytest

from arena.errors import Busy
from arena.ollama import OllamaClient
from arena.ollama.failures import refusal
from arena.streaming import FanOut
from arena.types import ChatRequest, ModelInstance
from tests import asking
from tests.asking import HELLO, SHORT, SOUND, Fault, answers_exactly, ask, client_at, fails_alone, serves_on, stops
from tests.fake_ollama import FakeOllama, text_of

pytestmark = pytest.mark.anyio

client_of = partial(client_at, OllamaClient)

FAULTS: dict[str, Fault] = asking.FAULTS | {
    "fx-rst-head": ("upstream_reset", "broke off the connection", 0),
    "fx-slowhead": ("timeout", "did not begin to answer in 1 s", 0),
    "fx-http09": ("upstream_broken", "not sound HTTP", 0),
    "fx-status:c-400_kind-nested": ("upstream_error", "(9000 tokens) exceeds the available context", 0),
    "fx-status:c-429": ("rate_limited", "fake limits requests", 0),
    "fx-status:c-404_kind-text": ("not_ollama", "is not an Ollama server", 0),
    "fx-status:c-405_kind-text": ("upstream_error", "fake answered with status 405: 404 page not found", 0),
    "fx-status:c-403": ("upstream_refused", "fake refuses our credentials", 0),
    "fx-html": ("not_ollama", "is not an Ollama server", 0),
    "fx-html:c-502": ("not_ollama", "is not an Ollama server", 0),
    "fx-cutline:n-5": ("upstream_truncated", "in the middle of a line", 5),
    "fx-cutline:n-5_clean-0": ("upstream_truncated", "in the middle of a line", 5),
    "fx-badjson:n-5": ("malformed", "not Ollama's JSON", 5),
    "fx-deep:n-5": ("malformed", "not Ollama's JSON", 0),
    "fx-wrongtype:n-5_k-0": ("malformed", "that Ollama would not send", 5),
    "fx-wrongtype:n-5_k-2": ("malformed", "that Ollama would not send", 5),
    "fx-bigline:mb-9": ("line_too_long", "a line of more than 8 MiB", 0),
    "fx-badframe": ("upstream_broken", "not sound HTTP", 0),
    "fx-longcl:n-5": ("upstream_truncated", "in the middle of a line", 5),
    "fx-gzip-bomb:mb-16": ("upstream_broken", "not sound HTTP", 0),
}


@pytest.mark.parametrize("model", FAULTS)
async def test_a_fault_is_one_columns_failure_and_nothing_else(fake: FakeOllama, model: str) -> None:
    await fails_alone(OllamaClient, fake, model, FAULTS[model])


GOOD = [
    *SOUND, "fx-load:load-20", "fx-nan", "fx-twodone", "fx-pipeline", "fx-evil-headers", "fx-ansi", "fx-cached",
    "fx-nometrics", "fx-noeval", "fx-noprompt", "fx-wrongtype:n-5_k-1",
]  # fmt: skip


@pytest.mark.parametrize("model", GOOD)
async def test_an_odd_but_sound_answer_is_exact(fake: FakeOllama, model: str) -> None:
    await answers_exactly(OllamaClient, fake, model)


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
    await stops(OllamaClient, fake, model, tokens=2 if model in ("fx-stall:n-2", "fx-endless:ms-0") else 0)


async def test_a_slow_consumer_holds_the_endpoint_back(fake: FakeOllama) -> None:
    async with client_of(fake, max_deltas=10**9, max_bytes=10**12) as client:
        request = ChatRequest(ModelInstance("a", "fx-endless:size-2000"), HELLO)
        events = FanOut({"a": partial(client.chat, request)}).events()
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
