"""What the server refuses by itself, in the words of those who ask and with the headers of every answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from arena.exchange import Refusals
from arena.guard import Guard
from arena.proxy import turned_away
from arena.server import Limits, Server, bind
from arena.server.refusal import path_in
from arena.settings import load
from tests.served import SHORT, Reply, TinyApp, Wire, running
from tests.threads import in_thread

CHAT = b"POST /olla/ollama/api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MANY = b"X: y\r\n" * 100
CODED = b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"


@pytest.fixture(scope="module")
def refusals() -> Refusals:
    """What was refused."""
    return Refusals()


@pytest.fixture(scope="module")
def guarded(refusals: Refusals) -> Iterator[int]:
    """The port of a server with the guard and the proxy's words before its application."""
    settings, app, ready = load(port=0, root_path="/arena"), TinyApp(), threading.Event()
    sockets = bind(settings)
    guard = Guard(app, settings, told=turned_away, refusals=refusals)
    server = Server(guard, settings, sockets, limits=SHORT, on_ready=lambda _: ready.set())
    with in_thread(server, ready):
        yield sockets[0].getsockname()[1]


def reply_to(port: int, request: bytes) -> Reply:
    """The answer to bytes."""
    with Wire(port) as wire:
        return wire.send(request).reply()


REFUSED = {
    "too many headers": (CHAT + MANY + b"\r\n", 431, "head_too_large"),
    "half a head, too large": (CHAT + b"X: " + b"y" * 33 * 1024, 431, "head_too_large"),
    "a long line": (b"GET /olla/ollama/api/tags?" + b"a" * 9000, 414, "uri_too_long"),
    "no host": (b"POST /olla/ollama/api/chat HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "bare line ends": (CHAT + b"X: a\nY: b\r\n\r\n", 400, "bad_request"),
    "two lengths": (CHAT + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "bad_request"),
    "no chunks": (CHAT + CODED, 400, "bad_request"),
    "a slow body": (CHAT + b"Content-Length: 9\r\n\r\nslow", 408, "timeout"),
    "behind a prefix": (CHAT.replace(b"/olla", b"/arena/olla", 1) + MANY + b"\r\n", 431, "head_too_large"),
    "by its whole address": (CHAT.replace(b"/olla", b"http://h/olla", 1) + MANY + b"\r\n", 431, "head_too_large"),
}


@pytest.mark.parametrize(("request_bytes", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_every_answer_of_the_proxy_has_its_headers(
    guarded: int, refusals: Refusals, request_bytes: bytes, status: int, code: str
) -> None:
    before = refusals.counts[code]
    reply = reply_to(guarded, request_bytes)
    told = json.loads(reply.body)
    request_id = reply.headers["x-olla-request-id"]
    assert (reply.status, told["code"], told["request_id"]) == (status, code, request_id)
    assert reply.headers["x-request-id"] == request_id
    assert reply.headers["x-olla-routing-reason"] == code
    assert {"x-olla-endpoint", "x-olla-model", "x-olla-backend-type", "x-olla-response-time"} <= reply.headers.keys()
    assert (reply.headers["connection"], reply.headers["x-content-type-options"]) == ("close", "nosniff")
    assert refusals.counts[code] == before + 1


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/olla/openai/v1/chat/completions", {"error": "invalid_request_error"}),
        (b"/olla/anthropic/v1/messages", {"type": "error", "error": "invalid_request_error"}),
    ],
)
def test_each_dialect_has_its_own_words(guarded: int, path: bytes, error: dict[str, str]) -> None:
    reply = reply_to(guarded, b"POST " + path + b" HTTP/1.1\r\nHost: h\r\n" + MANY + b"\r\n")
    told = json.loads(reply.body)
    assert told["error"]["type"] == error["error"]
    assert told.get("type") == error.get("type")
    assert reply.headers.get("request-id") == (reply.headers["x-request-id"] if "type" in error else None)


def test_elsewhere_it_is_plain(guarded: int) -> None:
    for path in (b"/api/chat", b"/"):
        reply = reply_to(guarded, b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n" + MANY + b"\r\n")
        assert set(json.loads(reply.body)) == {"error", "code"}
        assert not [name for name in reply.headers if name.startswith("x-olla-")]
        assert reply.headers["x-request-id"]


def test_a_crowd_is_told_in_the_words_of_those_who_ask() -> None:
    with running(Limits(sweep_s=0.1, linger_s=0.3, descriptor_share=0)) as server:
        reply = reply_to(server.port, CHAT + b"\r\n")
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "busy", "1")


@pytest.mark.parametrize(
    ("head", "path"),
    [
        (b"GET /a/b?c=/d HTTP/1.1\r\n", "/a/b"),
        (b"GET http://h:1/a HTTP/1.1\r\n", "/a"),
        (b"GET http://h?a HTTP/1.1\r\n", ""),
        (b"GET /a", "/a"),
        (b"GET /" + b"a" * 9000, "/" + "a" * 1024),
        (b"GET /\xff\r\nX: /y", "/"),
        (b"get /a", ""),
        (b"\x16\x03\x01", ""),
        (b"", ""),
    ],
)
def test_the_path_is_read_as_far_as_it_can_be(head: bytes, path: str) -> None:
    assert path_in(head) == path == path_in(bytearray(head))
