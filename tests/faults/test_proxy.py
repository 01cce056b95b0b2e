"""Every fault of an endpoint through the proxy's two kinds of streams: refused, broken off in words, or passed on.

The request names its endpoint, so that no other can help it; with another one `tests/proxy/test_failover.py` is about.
"""

from __future__ import annotations

import http.client
import json
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from msgspec import Struct

from tests.fake_ollama.invariants import seven_nevers
from tests.faults.doors import HELLO
from tests.faults.serving import PATIENCE_S, ServedArena
from tests.faults.table import ANSWERS, Fault
from tests.faults.test_matrix import LIMIT_S, arrange

NATIVE = "/olla/proxy/api/chat"
EVENTS = "/olla/proxy/v1/chat/completions"

Fate = Literal["whole", "passed", "refused", "broken"]


class Seen(Struct, frozen=True):
    """What a client of the proxy has: its text, its error's word, and whether the answer came to its end."""

    status: int
    whole: bool
    body: bytes
    headers: dict[str, str]


class Expected(Struct, frozen=True):
    """What becomes of a fault: its fate, the word in the log ("" for no line), and the status of a refusal."""

    fate: Fate
    code: str = ""
    status: int = 502


# what a proxy does not look into passes; everything else is the same as at the arena's own doors
PROXIED = {
    "F01": Expected("refused", "backend_unreachable"),
    "F02": Expected("refused", "backend_unreachable"),
    "F04": Expected("refused", "timeout", 504),
    "F04.half": Expected("refused", "timeout", 504),
    "F04.slow": Expected("refused", "timeout", 504),
    "F05": Expected("refused", "upstream_eof"),
    "F05.accept": Expected("refused", "upstream_eof"),
    "F06": Expected("refused", "upstream_reset"),
    "F06.accept": Expected("refused", "upstream_reset"),
    "F06.head": Expected("refused", "upstream_reset"),
    "F06.bighead": Expected("refused", "upstream_broken"),
    "F07": Expected("refused", "upstream_error", 500),
    "F07.big": Expected("refused", "upstream_error", 500),
    "F08": Expected("refused", "busy", 503),
    "F09": Expected("refused", "rate_limited", 429),
    "F10": Expected("refused", "", 404),
    "F10.path": Expected("refused", "", 404),
    "F11": Expected("refused", "", 401),
    "F11.forbidden": Expected("refused", "", 403),
    "F12": Expected("refused", "upstream_broken"),
    "F13": Expected("refused", "not_ollama"),
    "F13.noise": Expected("refused", "upstream_broken"),
    "F13.empty": Expected("refused", "upstream_eof"),
    "F14": Expected("broken", "timeout"),
    "F15": Expected("broken", "upstream_eof"),
    "F15.eof": Expected("broken", "upstream_eof"),
    "F16": Expected("broken", "upstream_eof"),
    "F16.eof": Expected("broken", "upstream_eof"),
    "F17": Expected("passed"),
    "F17.type": Expected("passed"),
    "F17.deep": Expected("passed"),
    "F18.invalid": Expected("passed"),
    "F20": Expected("passed"),
    "F23": Expected("passed"),
    "F20.gzip": Expected("passed"),
    "F22": Expected("passed", "upstream_error"),
    "F26": Expected("broken", "upstream_reset"),
    "F27": Expected("refused", "upstream_broken"),
    "F27.chunk": Expected("broken", "upstream_broken"),
    "F27.short": Expected("broken", "upstream_eof"),
}
CASES = [
    pytest.param(path, name, id=f"{name}-{'events' if path == EVENTS else 'lines'}")
    for path in (NATIVE, EVENTS)
    for name in ANSWERS
    if name != "F24"  # an answer without end is limited in time only
]


def ask(arena: ServedArena, path: str, fault: Fault) -> Seen:
    """One streamed chat with the endpoint of the fault, on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(arena.url).netloc, timeout=PATIENCE_S)
    body = {"model": fault.model, "messages": HELLO, "stream": True}
    try:
        connection.request("POST", path, json.dumps(body).encode(), {"X-Olla-Endpoint": fault.endpoint})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Seen(response.status, True, response.read(), headers)
        except http.client.IncompleteRead as cut:
            return Seen(response.status, False, cut.partial, headers)
    finally:
        connection.close()


def said(path: str, body: bytes) -> str:
    """The text of a sound stream."""
    if path == NATIVE:
        lines = [json.loads(line) for line in body.split(b"\n") if line.strip()]
        return "".join(line["message"]["content"] for line in lines if "message" in line)
    events = [json.loads(event[6:]) for event in body.split(b"\n") if event.startswith(b"data: {")]
    return "".join(c["delta"].get("content", "") for event in events for c in event["choices"])


def last_error(path: str, body: bytes) -> Any:
    """The error that a broken stream ends with."""
    if path == NATIVE:
        assert body.endswith(b"\n")
        last = json.loads(body.split(b"\n")[-2])
        assert (last["done"], last["done_reason"]) == (True, "error")
        return last
    assert body.endswith(b"\n\n")
    assert b"[DONE]" not in body
    return json.loads(body.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]


@pytest.fixture
def fault(name: str) -> Fault:
    """What the test is about."""
    return ANSWERS[name]


@pytest.mark.parametrize(("path", "name"), CASES)
def test_a_fault_behind_the_proxy(arena: ServedArena, path: str, name: str, fault: Fault) -> None:
    expected = PROXIED.get(name, Expected("whole"))
    if fault.primed:
        ask(arena, path, fault)
    arrange(arena, fault)
    with seven_nevers(arena, within_s=LIMIT_S) as case:
        seen = ask(arena, path, fault)
        case.request_id = seen.headers["x-olla-request-id"]
        if expected.code:
            logged = [line for line in arena.log if line.get("request_id") == case.request_id]
            codes = {expected.code, fault.or_code or expected.code}
            told = [line["code"] for line in logged if line["logger"] == "arena.proxy.forward"]
            assert len(told) == 1
            assert told[0] in codes, told
            case.failed(fault.endpoint, told[0])
        arena.other.state(accept="normal")
    assert seen.headers["x-olla-endpoint"] == fault.endpoint
    check(path, fault, expected, seen)


def check(path: str, fault: Fault, expected: Expected, seen: Seen) -> None:
    """Nothing that is not whole looks as if it were."""
    match expected.fate:
        case "refused":
            assert (seen.status, seen.whole) == (expected.status, True)
            assert "error" in json.loads(seen.body)
        case "broken":
            assert (seen.status, seen.whole) == (200, False)
            assert last_error(path, seen.body)["code"] == expected.code
        case "passed":
            assert (seen.status, seen.whole) == (200, True)
        case "whole":
            assert (seen.status, seen.whole) == (200, True)
            assert said(path, seen.body) == fault.text
