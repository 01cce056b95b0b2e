"""A host whose figures are absurd: its models and answers are served all the same, and nothing of ours shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.asgi import started
from tests.api.conftest import HELLO, create_api, settings_for
from tests.peer import Guest, Peer

pytestmark = pytest.mark.anyio

ABSURD = {
    "negative": "-5",
    "a float": "1e308",
    "a word": '"7"',
    "a yes": "true",
    "a nothing": "null",
    "too many": "9" * 17,
    "large": "9" * 30,
    "huge": "9" * 400,
}
PLACES = (
    "/api/models", "/api/endpoints", "/api/loaded", "/internal/status", "/internal/status/endpoints",
    "/internal/status/models", "/internal/stats/models", "/internal/metrics", "/olla/models", "/olla/models/m",
)  # fmt: skip
OLLAMAS = ("eval_count", "eval_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration")
OPENAIS = ("prompt_tokens", "completion_tokens")
MOST = 1e16


def figures(body: bytes) -> Iterator[float]:
    """Every number in JSON, or in what Prometheus reads."""
    if not body.startswith((b"{", b"[")):
        yield from (float(line.rpartition(b" ")[2]) for line in body.splitlines() if not line.startswith(b"#"))
        return
    left = [json.loads(body)]
    while left:
        item = left.pop()
        if isinstance(item, dict | list):
            left += item.values() if isinstance(item, dict) else item
        elif isinstance(item, int | float):
            yield item


def told(path: str, figure: str) -> str:
    """What the host says at `path`."""
    counters = "".join(f',"{name}":{figure}' for name in OLLAMAS)
    usage = ",".join(f'"{name}":{figure}' for name in OPENAIS)
    size = f'"name":"m","size":{figure},"size_vram":{figure},"context_length":{figure}'
    details = f'"details":{{"parameter_size":"1e400B","context_length":{figure}}}'
    return {
        "/api/tags": f'{{"models":[{{{size},{details}}}]}}',
        "/api/ps": f'{{"models":[{{{size}}}]}}',
        "/api/version": f'{{"version":"{"9" * 5000}"}}',
        "/api/chat": f'{{"message":{{"role":"assistant","content":"hi"}},"done":true{counters}}}',
        "/v1/chat/completions": f'{{"choices":[{{"message":{{"content":"hi"}}}}],"usage":{{{usage}}}}}',
    }[path]


@pytest.mark.parametrize("figure", ABSURD.values(), ids=ABSURD.keys())
async def test_absurd_figures_of_a_host_hide_nothing_and_are_shown_nowhere(figure: str) -> None:
    async def host(guest: Guest) -> None:
        while True:
            request = await guest.request()
            body = told(request.line.split()[1], figure).encode()
            await guest.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            await guest.say(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    asked: dict[str, Any] = {"model": "m", "messages": HELLO, "stream": False}
    async with Peer(host) as peer, started(create_api(settings_for(f"a={peer.url}"))) as api:
        for path in ("/olla/ollama/api/chat", "/olla/proxy/v1/chat/completions"):
            assert (await api.post(path, asked)).status == 200
        answer = await api.post("/api/chat", {"message": "hi", "models": ["m"]})
        assert (answer.status, answer.json()["assistant"]) == (200, "hi")
        assert json.loads((await api.get("/olla/ollama/api/version")).body)["version"].startswith("9")
        for path in PLACES:
            answer = await api.get(path)
            assert answer.status == 200, (path, answer.body)
            assert [figure for figure in figures(answer.body) if not -1 <= figure < MOST] == [], path
