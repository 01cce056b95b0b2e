"""Counting tokens for Anthropic's clients: by a host that can, else about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from arena.exchange import Caller
from arena.proxy.tokens import estimate
from tests.peer import Guest, Peer, Script, ok
from tests.proxy.front import front

pytestmark = pytest.mark.anyio

PATH = "/olla/anthropic/v1/messages/count_tokens"
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 41}]}


def counting(answer: bytes) -> Script:
    """A server with the model tiny, that gives `answer` to whoever has tokens counted."""

    async def script(guest: Guest) -> None:
        while True:
            request = await guest.request()
            models = ok(b'{"object":"list","data":[{"id":"Tiny"}]}')
            await guest.say(models if request.line.startswith("GET") else answer)

    return script


def refused(status: str, text: str) -> bytes:
    body = json.dumps({"type": "error", "error": {"type": "x", "message": text}}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_a_host_that_can_counts() -> None:
    async with Peer(counting(ok(b'{"input_tokens":7}'))) as peer, front("a", urls={"p": peer.url}) as it:
        for prefix in ("anthropic", "proxy", "openai"):
            answer = await it.ask("POST", f"/olla/{prefix}/v1/messages/count_tokens", ASKED)
            assert (answer.status, answer.json) == (200, {"input_tokens": 7})
        assert (answer.headers["x-olla-endpoint"], answer.headers["x-olla-model"]) == ("p", "tiny")
        assert json.loads(peer.requests[-1].body) == {**ASKED, "model": "Tiny"}
        strict = await it.ask("POST", "/olla/ollama/v1/messages/count_tokens", ASKED)
        assert strict.json == {"input_tokens": 11, "estimated": True}


async def test_what_no_host_counts_is_estimated_and_said_so() -> None:
    async with Peer(counting(refused("404 Not Found", "no"))) as peer, front("a", urls={"p": peer.url}) as it:
        for _ in range(2):
            answer = await it.ask("POST", PATH, ASKED)
            assert (answer.status, answer.json) == (200, {"input_tokens": 11, "estimated": True})
        assert it["a"].log == []  # Ollama cannot
    async with Peer(counting(ok(b"[]"))) as peer, front(urls={"p": peer.url}) as it:
        assert (await it.ask("POST", PATH, ASKED)).json["estimated"] is True


@pytest.mark.parametrize(
    ("path", "told"), [("/v1/chat/completions/input_tokens", b'{"input_tokens":7}'), ("/tokenize", b'{"count":7}')]
)
async def test_a_host_that_only_knows_openais_chat_counts_in_its_own_way(path: str, told: bytes) -> None:
    async def script(guest: Guest) -> None:
        while True:
            line = (await guest.request()).line
            answer = ok(told) if line.split(" ")[1] == path else refused("404 Not Found", "no")
            await guest.say(ok(b'{"object":"list","data":[{"id":"tiny"}]}') if line.startswith("GET") else answer)

    async with Peer(script) as peer, front(urls={"p": peer.url}) as it:
        for _ in range(2):
            answer = await it.ask("POST", PATH, {**ASKED, "system": "Be brief.", "max_tokens": 5})
            assert (answer.status, answer.json) == (200, {"input_tokens": 7})
        paths = [request.line.split(" ")[1] for request in peer.requests if request.body]
        assert (paths.count(path), paths.count("/v1/messages/count_tokens")) == (2, 1)
        assert json.loads(peer.requests[-1].body)["messages"][0] == {"role": "system", "content": "Be brief."}


async def test_what_a_host_finds_wrong_is_told() -> None:
    async with Peer(counting(refused("400 Bad Request", "messages: odd"))) as peer, front(urls={"p": peer.url}) as it:
        answer = await it.ask("POST", PATH, ASKED)
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")
        assert "messages: odd" in answer.json["error"]["message"]


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), ({}, 400), ({"model": "nowhere"}, 404)])
async def test_what_cannot_be_counted(body: Any, status: int) -> None:
    async with front("a") as it:
        answer = await it.ask("POST", PATH, body)
        assert (answer.status, answer.json["type"]) == (status, "error")


async def test_a_key_counts_for_its_models_only() -> None:
    async with front("a", models=("tiny", "other")) as it:
        caller = Caller("127.0.0.1", "key k", "r-1", key="k", models=("other",))
        assert (await it.ask("POST", PATH, ASKED, caller=caller)).status == 404


@pytest.mark.parametrize(
    ("request_body", "tokens"),
    [
        ({}, 0),
        ({"system": "abcd", "messages": [{"role": "user", "content": "abcde"}]}, 3),
        ({"system": [{"type": "text", "text": "abcd", "cache_control": {"type": "ephemeral"}}]}, 1),
        ({"messages": [{"content": [{"type": "image", "source": {"media_type": "image/png", "data": "A" * 999}}]}]}, 0),
        ({"messages": [{"content": [{"type": "tool_result", "tool_use_id": "t", "content": "abcdefgh"}]}]}, 2),
        ({"messages": None, "tools": [{"name": "f"}]}, 4),
    ],
)
def test_an_estimate_is_of_what_a_model_reads(request_body: dict[str, Any], tokens: int) -> None:
    assert estimate(request_body) == tokens
