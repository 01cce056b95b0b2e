"""Every way a server can fail, as with OllamaClient: one failure that is told, the text kept, nobody else harmed."""

from __future__ import annotations

from functools import partial

import pytest

from arena.openai import OpenAIClient
from arena.streaming import FanOut
from arena.types import ChatRequest, ModelInstance
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama, checksum, text_of, text_said_by
from tests.openai.conftest import HELLO, ask, client_of

pytestmark = pytest.mark.anyio

SHORT = Timeouts(connect_s=1, first_byte_s=0.5, idle_s=0.5)


async def serves_on(client: OpenAIClient) -> None:
    """Eight good requests, four of them at a time."""
    for first in range(0, 8, 4):
        seeds = range(first, first + 4)
        replies = await ask(client, *(f"fx-ok:n-3_seed-{seed}" for seed in seeds))
        assert [(reply.text, reply.error) for reply in replies] == [(text_of(3, seed), None) for seed in seeds]


# model: (code, words of the message, tokens of text that were kept; None: any number up to the fault)
FAULTS: dict[str, tuple[str, str, int | None]] = {
    "fx-hang": ("timeout", "did not begin to answer in 0.5 s", 0),
    "fx-eof0": ("upstream_eof", "closed the connection before its answer was complete", 0),
    "fx-rst0": ("upstream_reset", "broke off the connection", 0),
    "fx-halfhead": ("timeout", "did not begin to answer in 0.5 s", 0),
    "fx-bighead": ("upstream_broken", "not sound HTTP", 0),
    "fx-status:c-500": ("upstream_error", "unexpected EOF", 0),
    "fx-status:c-503": ("busy", "server busy", 0),
    "fx-status:c-429_ra-2": ("rate_limited", "there limits requests; retry in 2 s", 0),
    "fx-status:c-404": ("model_not_found", "model 'fx-status:c-404' not found", 0),
    "fx-status:c-404_kind-text": ("not_openai", "does not know this address", 0),
    "fx-status:c-401": ("upstream_refused", "there refuses our credentials", 0),
    "fx-redirect": ("upstream_broken", "redirects elsewhere", 0),
    "fx-html": ("not_openai", "answered with a web page", 0),
    "fx-html:c-502": ("not_openai", "answered with a web page", 0),
    "fx-bigerr": ("upstream_error", "", 0),
    "fx-empty200": ("upstream_eof", "without saying that it is complete", 0),
    "fx-stall:n-5": ("timeout", "fell silent for 0.5 s while answering", 5),
    "fx-nodone:n-5": ("upstream_eof", "without saying", 5),
    "fx-eof:n-5": ("upstream_eof", "closed the connection before its answer was complete", 5),
    "fx-rst:n-5": ("upstream_reset", "broke off the connection", None),
    "fx-badjson:n-5": ("malformed", "not the JSON of OpenAI's API", 5),
    "fx-deep:n-5": ("malformed", "", 0),
    "fx-bigline:mb-9": ("line_too_long", "an event of more than 8 MiB", 0),
    "fx-errline:n-5": ("upstream_error", "unexpected EOF", 5),
    "fx-endless:n-5": ("budget_exceeded", "cut at 2000 pieces of text", 2000),
    "fx-badchunk:n-5": ("upstream_broken", "not sound HTTP", 5),
    "fx-gzip": ("upstream_broken", "not sound HTTP", 0),
}


@pytest.mark.parametrize("model", FAULTS)
async def test_a_fault_is_one_columns_failure_and_nothing_else(fake: FakeOllama, model: str) -> None:
    code, words, kept = FAULTS[model]
    timeouts = SHORT if code == "timeout" else Timeouts()
    async with client_of(fake.url, timeouts=timeouts, max_deltas=2000) as client:
        faulty, good = await ask(client, model, "fx-ok:n-40")
        assert faulty.error is not None
        assert (faulty.error.code, words in faulty.error.message) == (code, True), faulty.error
        if kept == 2000:
            assert faulty.text.startswith(text_of(5))
        else:
            assert faulty.text in [text_of(n) for n in ([kept] if kept is not None else range(6))]
        assert faulty.error.metrics.tokens is None, "what was not counted by the server is not invented"
        assert (good.text, good.error) == (text_of(40), None)
        await serves_on(client)
    await fake.idle()
    assert [record.model for record in fake.log].count(model) == 1, "sent again"


GOOD = [
    "fx-ok", "fx-jitter:n-3", "fx-unicode", "fx-split", "fx-slicer:k-3", "fx-longline", "fx-crlf", "fx-blank",
    "fx-keyorder", "fx-extra", "fx-nocl", "fx-afterdone", "fx-slowclose", "fx-staleka", "fx-shortcl",
    "fx-manytokens:n-3000", "fx-100", "fx-empty", "fx-tools",
]  # fmt: skip


@pytest.mark.parametrize("model", GOOD)
async def test_an_odd_but_sound_answer_is_exact(fake: FakeOllama, model: str) -> None:
    async with client_of(fake.url) as client:
        for reply in await ask(client, model, model):
            assert reply.error is None
            assert checksum(reply.text) == checksum(text_said_by(model))
            assert reply.metrics is not None
        (reply,) = await ask(client, "fx-ok")
        assert reply.text == text_of(20)
        assert reply.metrics is not None
        assert reply.metrics.tokens == 20
    await fake.idle()


async def test_limits_of_bytes_and_of_time(fake: FakeOllama) -> None:
    async with client_of(fake.url, max_bytes=50_000) as client:
        (reply,) = await ask(client, "fx-endless")
        assert reply.error is not None
        assert (reply.error.code, reply.error.message) == ("budget_exceeded", "The answer was cut at 50000 bytes.")
    async with client_of(fake.url, timeouts=Timeouts(total_s=0.3)) as client:
        (reply,) = await ask(client, "fx-stall:n-2")
        assert reply.error is not None
        assert reply.error.code == "budget_exceeded"
        assert reply.text == text_of(2)
    await fake.idle()


@pytest.mark.parametrize("model", ["fx-hang", "fx-stall:n-2"])
async def test_stopping_frees_the_server_at_once(fake: FakeOllama, model: str) -> None:
    async with client_of(fake.url) as client:
        request = ChatRequest(ModelInstance("a", model), HELLO)
        fan = FanOut({"a": partial(client.chat, request)})
        fan.start()
        await fake.arrived(1)
        fan.stop()
        await fake.closed(1)
        batches = [batch async for batch in fan.events()]
        assert batches[-1][-1].code == "stopped"  # type: ignore[union-attr]
        await serves_on(client)
    await fake.idle()
