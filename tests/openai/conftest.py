"""Asking an OpenAI-compatible server, and folding what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from arena.openai import OpenAIClient
from arena.streaming import FanOut, Reply, Transcript
from arena.types import ChatMessage, ChatRequest, ModelInstance
from tests.peer import Guest, Peer, Script

HELLO = (ChatMessage("user", "Hello"),)


@asynccontextmanager
async def client_of(url: str, **settings: Any) -> AsyncIterator[OpenAIClient]:
    """A client; afterwards it has nothing open."""
    client = OpenAIClient(url, name="there", **settings)
    try:
        async with asyncio.timeout(30):
            yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def said(script: Script, **settings: Any) -> AsyncIterator[OpenAIClient]:
    """A client of a peer that says exactly what the test wants."""
    async with Peer(script) as peer, client_of(peer.url, **settings) as client:
        yield client


async def ask(client: OpenAIClient, *models: str | ModelInstance) -> list[Reply]:
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


def chunk(text: str | None = None, reason: str | None = None, **more: Any) -> bytes:
    """One event of a stream of chat completions."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}).encode() + b"\n\n"


def event(value: object) -> bytes:
    """Any JSON as an event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def in_turn(*answers: bytes) -> Script:
    """A script that gives one answer after the other, on whatever connection."""
    left = list(answers)

    async def script(guest: Guest) -> None:
        while left:
            await guest.request()
            await guest.say(left.pop(0))

    return script


def refused(status: int, body: object) -> bytes:
    """A refusal with a JSON body."""
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status} No\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
