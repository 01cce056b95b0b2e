"""5,000 requests bent at random, the same ones each time: documented answers only, small, without the input."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.asgi import JSON_TYPE, Client
from tests.api.conftest import HELLO
from tests.fake_ollama import FakeOllama

pytestmark = pytest.mark.anyio

REQUESTS = 5000
GROUPS = 5
CANARY = "c4nary secret"
INSTANCE: dict[str, Any] = {
    "id": "llama__0.7",
    "model": "fx-ok:n-1",
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "repeat_penalty": 1.1,
    "num_predict": -1,
    "seed": 0,
    "num_ctx": 2048,
    "stop": ["x"],
    "think": False,
    "system": "s",
}
BODIES: dict[str, list[Any]] = {
    "/api/chat": [
        {"history": HELLO, "models": ["fx-ok:n-1", "tiny"], "stream": False},
        {"history": HELLO, "model_instances": [INSTANCE, {**INSTANCE, "id": "b"}], "order": "together"},
        {"message": "hi", "system": "s", "model": "tiny"},
    ],
    "/api/stream_chat": [{"history": HELLO * 2, "model_instances": [INSTANCE]}, {"history": HELLO, "models": ["tiny"]}],
    "/api/pull_model": [{"model": "fx-pull:n-1", "endpoint": None}],
    "/api/delete_model": [{"model": "nothing"}],
    "/api/load_model": [{"model": "tiny"}],
    "/api/unload_model": [{"model": "tiny"}],
}
NASTY: list[Any] = [
    None, True, False, 0, -1, 1e308, -0.0, 2**63, 2**200, 0.1, "", CANARY, CANARY * 200, "nan", "1e5", "\0", "\u202e",
    "../../etc/passwd", "a\r\nb: c", "http://127.0.0.1:9/", "127.0.0.1:9/a/b", "模型", "🙂" * 300, [], {}, [[]], [None],
    {CANARY: CANARY}, [CANARY] * 50, {"role": "user", "content": CANARY}, HELLO, INSTANCE, "system", "x" * 70_000,
]  # fmt: skip
SPLICES = [
    b"NaN", b"1e999", b"-Infinity", b'"\\ud800"', b"\xff", b"\x00", b"[" * 2000, b'{"a":' * 500, b"//", b"}", b"]",
    b",", b'"', b"\\", b"\xed\xa0\x80", b"9" * 5000, b"'", b"\xe2\x80\xa8", b"\n",
]  # fmt: skip
# what a well-formed request may meet at the endpoint
UPSTREAM_CODES = {"model_not_found", "upstream_error", "busy"}


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*path, key)
        yield from nodes(child, (*path, key))


def bent(value: Any, rng: random.Random) -> Any:
    """`value` with a few of its parts replaced, removed or added."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        paths = list(nodes(value))
        if not paths:
            return rng.choice(NASTY)
        *way, key = rng.choice(paths)
        holder = value
        for step in way:
            holder = holder[step]
        match rng.randrange(4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice((CANARY, "options", "messages", "id", "order"))] = copy.deepcopy(rng.choice(NASTY))
            case 2 if isinstance(holder, list):
                holder += [copy.deepcopy(holder[key])] * rng.choice((1, 20))
            case _:
                holder[key] = copy.deepcopy(rng.choice(NASTY))
    return value


def mutated(rng: random.Random) -> tuple[str, bytes, bytes]:
    """A route, a body and a content type."""
    route = rng.choice(list(BODIES))
    body = json.dumps(bent(rng.choice(BODIES[route]), rng), ensure_ascii=rng.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )
    if rng.random() < 0.3:
        at = rng.randrange(len(body) + 1)
        body = rng.choice(
            (body[:at], body[:at] + rng.choice(SPLICES) + body[at + rng.randrange(3) :], body[at:] + body[:at])
        )
    kind = rng.choice((b"text/plain", b"", b"application/json;charset=utf-16")) if rng.random() < 0.03 else JSON_TYPE[1]
    return route, body, kind


@pytest.mark.parametrize("group", range(GROUPS))
async def test_mutated_requests_get_documented_answers(api: Client, fake: FakeOllama, group: int) -> None:
    rng = random.Random(f"arena {group}")
    seen: set[int] = set()
    for number in range(REQUESTS // GROUPS):
        route, body, kind = mutated(rng)
        answer = await api.call("POST", route, body, [(b"content-type", kind)])
        what = f"{number}: {route} {body[:200]!r} -> {answer.status} {answer.body[:200]!r}"
        seen.add(answer.status)
        if answer.status == 200:
            continue
        told = answer.json()
        assert answer.status in (400, 404, 415, 500, 503), what
        assert set(told) <= {"error", "code", "details"}, what
        assert len(answer.body) <= 1024, what
        assert answer.status < 500 or told["code"] in UPSTREAM_CODES, what
        assert CANARY not in told["error"] or told["error"].startswith("Duplicate model instance"), what
    assert seen >= {200, 400, 415, 500}
    assert fake.canary_hits == []
