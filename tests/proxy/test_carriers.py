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

from arena.api.carrier import AnswerCut
from arena.api.proxy import ProxyRoutes
from arena.app import create_app
from arena.guard.asgi import Message
from arena.settings import Settings
from tests.api.asgi import Client, started
from tests.fake_ollama import FakeOllama, running_fake
from tests.fake_ollama.badclient import BadClient
from tests.faults.serving import LogLines, ServedArena, logged, served
from tests.proxy.front import HELLO, front

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
        yield stack.enter_context(served(*fakes, lines=log_lines, idle_timeout_s=0.3))


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
    settings = Settings(engine="off", endpoints=(f"fake={fake.url}",), idle_timeout_s=0.2)  # type: ignore[call-arg]
    async with started(create_app(settings, page=False)) as running:
        yield running


@pytest.mark.anyio
async def test_a_stream_over_asgi(client: Client) -> None:
    answer = await client.post(CHAT, {"model": "fx-ok:n-5", "messages": HELLO})
    assert (answer.status, len(answer.lines())) == (200, 6)
    assert answer.headers["x-olla-endpoint"] == "fake"


@pytest.mark.anyio
async def test_a_broken_stream_is_cut_over_asgi(client: Client) -> None:
    with pytest.raises(AnswerCut):
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
