"""A client at a server that fails, or is only odd: what holds whichever API it speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from arena.streaming import FanOut, Reply, Transcript
from arena.types import ChatMessage, ChatRequest, ModelInstance
from arena.upstream import ChatClient
from arena.wire import Timeouts
from tests.fake_ollama import FakeOllama, checksum, text_of, text_said_by
from tests.peer import Peer, Script

C = TypeVar("C", bound=ChatClient)

HELLO = (ChatMessage("user", "Hello"),)
SHORT = Timeouts(connect_s=1, first_byte_s=1, idle_s=1)
MANY = 2000
"""Pieces of text that an answer may have while faults are looked at."""

Fault = tuple[str, str, int | None]
"""Code, words of the message, tokens of text that are kept (None: any number up to the fault)."""

FAULTS: dict[str, Fault] = {
    "fx-hang": ("timeout", "did not begin to answer in 1 s", 0),
    "fx-eof0": ("upstream_eof", "closed the connection before its answer was complete", 0),
    "fx-rst0": ("upstream_reset", "broke off the connection", 0),
    "fx-halfhead": ("timeout", "did not begin to answer in 1 s", 0),
    "fx-bighead": ("upstream_broken", "not sound HTTP", 0),
    "fx-status:c-500": ("upstream_error", "an error was encountered while running the model: unexpected EOF", 0),
    "fx-status:c-503": ("busy", "server busy", 0),
    "fx-status:c-429_ra-2": ("rate_limited", "fake limits requests; retry in 2 s", 0),
    "fx-status:c-404": ("model_not_found", "model 'fx-status:c-404' not found", 0),
    "fx-status:c-401": ("upstream_refused", "fake refuses our credentials", 0),
    "fx-redirect": ("upstream_broken", "redirects elsewhere", 0),
    "fx-bigerr": ("upstream_error", "", 0),
    "fx-empty200": ("upstream_eof", "without saying that it is complete", 0),
    "fx-stall:n-5": ("timeout", "fell silent for 1 s while answering", 5),
    "fx-nodone:n-5": ("upstream_eof", "without saying that it is complete", 5),
    "fx-eof:n-5": ("upstream_eof", "closed the connection before its answer was complete", 5),
    "fx-rst:n-5": ("upstream_reset", "broke off the connection", None),
    "fx-errline:n-5": ("upstream_error", "an error was encountered while running the model: unexpected EOF", 5),
    "fx-endless:n-5": ("budget_exceeded", "cut at 2000 pieces of text", 2000),
    "fx-badchunk:n-5": ("upstream_broken", "not sound HTTP", 5),
    "fx-gzip": ("upstream_broken", "not sound HTTP", 0),
}
"""Faults that look the same in every API, by the fake's scenario; "fake" is what the client calls it."""

SOUND = (
    "fx-ok", "fx-jitter:n-3", "fx-unicode", "fx-split", "fx-slicer:k-3", "fx-longline", "fx-crlf", "fx-blank",
    "fx-keyorder", "fx-extra", "fx-nocl", "fx-afterdone", "fx-slowclose", "fx-staleka", "fx-shortcl",
    "fx-manytokens:n-3000", "fx-100", "fx-empty", "fx-tools",
)  # fmt: skip
"""Scenarios of answers that are odd but sound in every API."""


@asynccontextmanager
async def client_of(speaks: Callable[..., C], url: str, **settings: Any) -> AsyncIterator[C]:
    """A client; afterwards it has nothing open."""
    client = speaks(url, **settings)
    try:
        async with asyncio.timeout(30):
            yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def client_at(speaks: Callable[..., C], fake: FakeOllama, **settings: Any) -> AsyncIterator[C]:
    """A client of the fake, called "fake"; afterwards neither side has anything open."""
    async with client_of(speaks, fake.url, name="fake", **settings) as client:
        yield client
    await fake.idle()


@asynccontextmanager
async def said(speaks: Callable[..., C], script: Script, **settings: Any) -> AsyncIterator[C]:
    """A client of a peer that says exactly what the test wants."""
    async with Peer(script) as peer, client_of(speaks, peer.url, **settings) as client:
        yield client


async def ask(client: ChatClient, *models: str | ModelInstance) -> list[Reply]:
    """Ask all models at once; their replies in order. Every lane must have had exactly one end."""
    lanes = {}
    for number, model in enumerate(models):
        instance = ModelInstance(str(number), model) if isinstance(model, str) else model
        lanes[instance.id] = partial(client.chat, ChatRequest(instance, HELLO))
    transcript, ends = Transcript(list(lanes)), []
    async for batch in FanOut(lanes).events():
        transcript.apply(batch)
        ends += [event.instance_id for event in batch if hasattr(event, "metrics")]
    assert sorted(ends) == sorted(lanes)
    return list(transcript.replies.values())


async def serves_on(client: ChatClient) -> None:
    """Eight good requests, four of them at a time."""
    for first in range(0, 20, 4):
        seeds = range(first, first + 4)
        replies = await ask(client, *(f"fx-ok:n-3_seed-{seed}" for seed in seeds))
        assert [(reply.text, reply.error) for reply in replies] == [(text_of(3, seed), None) for seed in seeds]


async def fails_alone(speaks: Callable[..., ChatClient], fake: FakeOllama, model: str, fault: Fault) -> None:
    """The fault is told once, the text before it is kept, it is not asked again, and nobody else is harmed."""
    code, words, kept = fault
    timeouts = SHORT if code == "timeout" else Timeouts()
    async with client_at(speaks, fake, timeouts=timeouts, max_deltas=MANY) as client:
        faulty, good = await ask(client, model, "fx-ok:n-40")
        assert faulty.error is not None
        assert (faulty.error.code, words in faulty.error.message) == (code, True), faulty.error
        if kept == MANY:
            assert faulty.text.startswith(text_of(5))
        else:
            assert faulty.text in [text_of(n) for n in ([kept] if kept is not None else range(6))]
        assert faulty.error.metrics.tokens is None, "what was not counted by the server is not invented"
        assert (faulty.error.metrics.ttft_s is None) == (faulty.text == "")
        assert (good.text, good.error) == (text_of(40), None)
        await serves_on(client)
    assert fake.canary_hits == []
    assert [record.model for record in fake.log].count(model) == 1, "sent again"


async def answers_exactly(speaks: Callable[..., ChatClient], fake: FakeOllama, model: str) -> None:
    """An odd but sound answer loses nothing, on a new connection or a used one, nor does the one after it."""
    async with client_at(speaks, fake) as client:
        for reply in await ask(client, model, model) + await ask(client, model):
            assert reply.error is None
            assert checksum(reply.text) == checksum(text_said_by(model))
            assert reply.metrics is not None
        (reply,) = await ask(client, "fx-ok")
        assert reply.text == text_of(20)
        assert reply.metrics is not None
        assert reply.metrics.tokens == 20


async def stops(speaks: Callable[..., ChatClient], fake: FakeOllama, model: str, tokens: int = 0) -> None:
    """Stopping, after that many tokens were told, frees the server at once; it then serves others."""
    async with client_at(speaks, fake, max_deltas=10**9) as client:
        fan = FanOut({"a": partial(client.chat, ChatRequest(ModelInstance("a", model), HELLO))})
        fan.start()
        await fake.arrived(1)
        await fake.until(lambda: fake.log[0].tokens >= tokens, 10, "tokens told")
        fan.stop()
        await fake.closed(1)
        batches = [batch async for batch in fan.events()]
        assert batches[-1][-1].code == "stopped"  # type: ignore[union-attr]
        await serves_on(client)
