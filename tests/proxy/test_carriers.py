"""The proxy as it is served: past ASGI on our own server, and as an ASGI application under any other."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest

from arena.api.proxy import ProxyRoutes
from arena.api.scopes import needs
from arena.app import create_app
from arena.guard.asgi import Message
from arena.proxy.table import Table, tidied
from arena.settings import Settings
from tests.api.asgi import Client, Cut, started
from tests.fake_ollama import FakeOllama, running_fake
from tests.fake_ollama.badclient import BadClient
from tests.faults.serving import LogLines, ServedArena, logged, served
from tests.proxy.front import HELLO, front
from tests.sockets import ending

CHAT = "/olla/ollama/api/chat"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def log_lines() -> Iterator[LogLines]:
    """The structured log."""
    with logged() as lines:
        yield lines


@pytest.fixture(scope="module")
def arena(log_lines: LogLines) -> Iterator[ServedArena]:
    """A whole arena on a socket, two hosts behind it."""
    models = ["tiny", "fx-ok:n-5", "fx-eof:n-5", "fx-hang", "fx-stall:n-2"]
    with ExitStack() as stack:
        fakes = [stack.enter_context(running_fake(models=held)) for held in (models, ["other"])]
        yield stack.enter_context(served(*fakes, lines=log_lines))


def test_a_stream_over_a_real_connection_with_its_trailers(arena: ServedArena) -> None:
    with BadClient(arena.url, timeout_s=10) as client:
        client.send(client.request("POST", CHAT, {"model": "fx-ok:n-5", "messages": HELLO}))
        received = client.read_until(b"total;dur=").decode()
    head, _, rest = received.partition("\r\n\r\n")
    assert "200 OK" in head
    for name in ("x-olla-endpoint: fake", "x-olla-model: fx-ok:n-5", "trailer: ", "transfer-encoding: chunked"):
        assert name in head.lower()
    trailers = rest.rpartition("\r\n0\r\n")[2].lower()
    assert trailers.startswith("x-olla-total-time: ")


def test_a_broken_stream_is_cut_after_its_last_words(arena: ServedArena) -> None:
    with pytest.raises(http.client.IncompleteRead) as cut:
        arena.ask("POST", CHAT, {"model": "fx-eof:n-5", "messages": HELLO})
    last = json.loads(cut.value.partial.split(b"\n")[-2])
    assert (last["code"], last["done"]) == ("upstream_eof", True)


def test_a_client_that_hangs_up_frees_the_host(arena: ServedArena) -> None:
    for model in ("fx-hang", "fx-stall:n-2"):
        before = arena.fake.fake.cut
        arrived = sum(record.path == "/api/chat" for record in arena.fake.log)
        with BadClient(arena.url, timeout_s=10) as client:
            client.send(client.request("POST", CHAT, {"model": model, "messages": HELLO}))
            arena.fake.arrived(arrived + 1, path="/api/chat")
            client.leave("fin")
            arena.fake.closed(before + 1)


def test_lists_and_errors_over_a_real_connection(arena: ServedArena) -> None:
    names = [entry["name"] for entry in arena.ask("GET", "/olla/ollama/api/tags").json()["models"]]
    assert {"tiny:latest", "other:latest"} <= set(names)
    assert arena.ask("GET", "/olla/ollama/").body == b"Ollama is running"
    assert arena.ask("HEAD", "/olla/ollama/").body == b""
    assert arena.ask("GET", "/olla/ollama/api/chat").status == 405
    assert arena.ask("POST", "/olla/ollama/api/chat/").status == 404
    assert arena.ask("GET", "/olla/nobody/x").json()["code"] == "not_found"
    assert arena.ask("GET", "/olla/vllm/v1/models").json() == {"object": "list", "data": []}
    assert arena.ask("POST", "/olla/vllm/v1/chat/completions", {}).status == 503


def test_an_encoded_slash_is_refused_but_in_a_models_name(arena: ServedArena) -> None:
    assert arena.ask("GET", "/olla/ollama/api%2ftags").status == 400
    assert arena.ask("GET", "/olla/ollama/v1/models/no%2Fsuch").status == 404


def test_a_file_is_handed_on_as_it_comes(arena: ServedArena) -> None:
    connection = http.client.HTTPConnection(urlsplit(arena.url).netloc, timeout=15)
    with closing(connection):
        pieces = (b"x" * 100_000 for _ in range(5))
        connection.request(
            "POST", f"/olla/ollama/api/blobs/{DIGEST}", pieces, {"Transfer-Encoding": "chunked"}, encode_chunked=True
        )
        response = connection.getresponse()
        text = response.read()
        assert response.getheader("x-olla-endpoint") is not None, text
    (record,) = [record for record in arena.fake.log if record.path.startswith("/api/blobs/")]
    assert record.bytes_in >= 500_000


# ASGI


@pytest.fixture
async def client(fake: FakeOllama) -> AsyncIterator[Client]:
    """The application as another server would run it."""
    settings = Settings(engine="off", endpoints=(f"fake={fake.url}",))  # type: ignore[call-arg]
    async with started(create_app(settings, page=False)) as running:
        yield running


@pytest.mark.anyio
async def test_a_stream_over_asgi(client: Client) -> None:
    answer = await client.post(CHAT, {"model": "fx-ok:n-5", "messages": HELLO})
    assert (answer.status, len(answer.lines())) == (200, 6)
    assert answer.headers["x-olla-endpoint"] == "fake"


@pytest.mark.anyio
async def test_a_broken_stream_is_cut_over_asgi(client: Client) -> None:
    with pytest.raises(Cut):
        await client.post(CHAT, {"model": "fx-eof:n-5", "messages": HELLO})


@pytest.mark.anyio
async def test_a_client_that_leaves_over_asgi(client: Client, fake: FakeOllama) -> None:
    async with client.open(CHAT, {"model": "fx-hang", "messages": HELLO}) as exchange:
        await fake.arrived(1, path="/api/chat")
        exchange.leave()
        await fake.closed(1)


@pytest.mark.anyio
async def test_a_slow_reader_over_asgi(client: Client, fake: FakeOllama) -> None:
    async with client.open(CHAT, {"model": "fx-ok:n-4000_size-1000", "messages": HELLO}) as exchange:
        exchange.blocked = asyncio.Event()
        await fake.arrived(1, path="/api/chat")
        (record,) = [record for record in fake.log if record.path == "/api/chat"]
        await fake.until(lambda: record.bytes_out > 200_000, 5, "the host has run into the wall")
        assert record.ended is None
        exchange.blocked.set()
        exchange.blocked = None
        answer = await exchange.answer()
        assert len(answer.lines()) == 4001


@pytest.mark.anyio
async def test_a_file_over_asgi_and_one_that_stays_half(client: Client, fake: FakeOllama) -> None:
    path = f"/olla/ollama/api/blobs/{DIGEST}"
    answer = await client.call("POST", path, b"x" * 1000, headers=())
    assert answer.status < 500
    async with client.request("POST", path, b"x" * 1000, headers=(), complete=False) as exchange:
        exchange.leave()
    await fake.idle()
    assert len([record for record in fake.log if record.path.endswith(DIGEST) and record.ended == "complete"]) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/olla/ollama/api/blobs/..", f"/olla/ollama%2fapi/blobs/{DIGEST}", "/olla/nobody"])
async def test_what_no_route_takes_is_refused_before_it_is_read(client: Client, path: str) -> None:
    async with client.request("POST", path, b"x" * 1000, headers=(), complete=False) as exchange:
        assert (await exchange.answer()).status in (400, 404)


@pytest.mark.anyio
async def test_lists_and_refusals_over_asgi(client: Client) -> None:
    assert (await client.get("/olla/ollama/api/version")).json()["version"]
    assert (await client.call("HEAD", "/olla/ollama/api/tags")).body == b""
    assert (await client.call("DELETE", "/olla/ollama/api/chat")).headers["allow"] == "POST"
    assert (await client.get("/olla/..%2fx")).status in (400, 404)


@pytest.mark.anyio
async def test_a_file_waits_too_until_it_is_known_who_answers() -> None:
    messages = [{"type": "http.request", "body": b"weights"}]
    sent: list[Message] = []
    left = asyncio.Event()

    async def receive() -> Message:
        if not messages:
            await left.wait()
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    path = f"/olla/ollama/api/blobs/sha256:{hashlib.sha256(b'weights').hexdigest()}"
    async with front("a") as it:
        endpoints = it.fleet.endpoints
        it.fleet._endpoints = ()
        scope = {"method": "POST", "path": path, "query_string": b"", "headers": []}
        answer = asyncio.ensure_future(ProxyRoutes(it.proxy)(scope, receive, send))
        for _ in range(9):  # turns enough to be refused in
            await asyncio.sleep(0)
        assert messages
        assert not sent
        it.fleet._endpoints = endpoints
        it.settled.set()
        await answer
    assert dict(sent[0]["headers"])[b"x-olla-endpoint"] == b"a"


def raw(arena: ServedArena, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of all that comes until the server hangs up."""
    with BadClient(arena.url, timeout_s=10) as client:
        client.send(request)
        head, _, body = client.read_all().partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
def test_a_client_of_http_1_0_gets_no_chunks(arena: ServedArena, more: bytes) -> None:
    """Its stream is as it is, and ends with the connection; an answer with a length keeps that."""
    told = {}
    for stream in (True, False):
        body = json.dumps({"model": "fx-ok:n-5", "messages": HELLO, "stream": stream}).encode()
        lines = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\n%bContent-Length: %d" % (more, len(body))
        told[stream] = raw(arena, b"POST %b HTTP/1.0\r\n%b\r\n\r\n%b" % (CHAT.encode(), lines, body))
    head, streamed = told[True]
    assert head.startswith(b"http/1.1 200")
    assert b"connection: close" in head
    for name in (b"transfer-encoding", b"trailer", b"content-length"):
        assert b"\r\n%b:" % name not in head
    assert [json.loads(line)["done"] for line in streamed.split(b"\n")[:-1]] == [False] * 5 + [True]
    head, answer = told[False]
    assert b"content-length: %d" % len(answer) in head
    assert json.loads(answer)["done"]
    head, nothing = raw(arena, b"HEAD /olla/ollama/api/tags HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert (head.startswith(b"http/1.1 200"), nothing) == (True, b"")


def test_a_client_of_http_1_0_sees_that_its_stream_was_cut(arena: ServedArena) -> None:
    body = json.dumps({"model": "fx-eof:n-5", "messages": HELLO}).encode()
    with BadClient(arena.url, timeout_s=10) as client:
        client.send(b"POST %b HTTP/1.0\r\nHost: 127.0.0.1\r\n" % CHAT.encode())
        client.send(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        came, reset = ending(client.socket)
    assert (json.loads(came.splitlines()[-1])["code"], reset) == ("upstream_eof", True)


@pytest.mark.parametrize(
    "path", ["/olla/ollama//api/chat", "/olla/proxy///api/chat", "/olla/openai//v1/chat/completions"]
)
def test_a_base_url_with_a_slash_at_its_end_does_no_harm(arena: ServedArena, path: str) -> None:
    answer = arena.ask("POST", path, {"model": "tiny", "messages": HELLO, "stream": False})
    assert answer.status == 200
    assert arena.arena.fleet.book.recent[0].route == tidied(path)
    assert needs(Table())("POST", "/olla/ollama//api/pull") == "manage", "what it may is judged by the same path"


@pytest.mark.parametrize(
    "path",
    [
        "//olla/ollama/api/tags", "/olla//ollama/api/tags", "/olla/ollama/api//tags", "/olla/ollama//api//tags",
        "/olla/ollama//../api/tags", "/olla/ollama//./api/tags", "/olla/ollama//..//..//internal/status",
        "/olla/ollama/%2Fapi/tags", "/olla/ollama/%2F%2E%2E/api/tags", "/olla/ollama//olla/ollama/api/tags",
        "/olla/ollama\\\\api/tags", "/olla/ollamax//api/tags", "/olla/ollama//internal/status",
    ],
)  # fmt: skip
def test_no_other_slash_is_taken_for_one(arena: ServedArena, path: str) -> None:
    assert arena.ask("GET", path).status in (400, 404)


@pytest.mark.parametrize("path", ["/olla", "/olla/", "/internal", "/internal/ui/", "/internal/nothing"])
def test_what_is_not_there_is_told_with_our_headers(arena: ServedArena, path: str) -> None:
    head, body = raw(arena, b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % path.encode())
    assert head.startswith(b"http/1.1 404"), head
    assert b"\r\nx-olla-request-id: " in head
    assert json.loads(body)["error"]


def test_a_clients_request_id_goes_all_the_way(arena: ServedArena) -> None:
    """The second of two requests with the same head is read from memory, and has the same id."""
    body = json.dumps({"model": "tiny", "messages": HELLO, "stream": False}).encode()
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-ID: my.own-1\r\nContent-Length: %d\r\n\r\n"
    request = head % (CHAT.encode(), len(body)) + body
    with BadClient(arena.url, timeout_s=10) as client:
        for _ in range(2):
            client.send(request)
            answer = client.read_until(b'"fx_sha256"').lower()
            assert b"\r\nx-request-id: my.own-1\r\n" in answer
            assert b"\r\nx-olla-request-id: my.own-1\r\n" in answer
    sent = [dict(record.headers) for record in arena.fake.log if record.path == "/api/chat"][-1]
    assert sent["x-olla-request-id"] == sent["x-request-id"] == "my.own-1"
