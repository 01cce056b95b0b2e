"""Clients of an OpenAI-compatible server, and what it says."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from arena.openai import OpenAIClient
from tests import asking
from tests.peer import Guest, Script

client_of = partial(asking.client_of, OpenAIClient, name="there")
said = partial(asking.said, OpenAIClient, name="there")


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
