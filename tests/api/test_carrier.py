"""Answers that are pushed, carried over ASGI: what the server is told, in which order, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from arena.api.carrier import PRESSURE_BYTES, answer, carry
from arena.app import create_app
from arena.exchange import Begin, Caller, Headers, Inbound, Session, Sink
from arena.guard.asgi import Message, Receive, Scope, Send
from arena.settings import Settings
from tests.api.asgi import JSON_TYPE, started
from tests.fake_ollama import FakeOllama

INBOUND = Inbound("POST", "/olla/ollama/api/chat", b"", [], Caller("127.0.0.1", "127.0.0.1", "r-1"))
HEADERS: Headers = [(b"content-type", b"text/plain")]
TURNS = 5


class Told:
    """A session that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def left(self) -> None:
        self.told.append("left")


class Server:
    """A server in small: `request` is received first, then nothing until the client leaves."""

    def __init__(self, *request: Message) -> None:
        self.request = list(request)
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.received = 0
        self.taking: Callable[[Message], object] = lambda message: None
        """What happens while a message is taken."""
        self.session = Told()
        self.sink: Sink | None = None

    async def receive(self) -> Message:
        self.received += 1
        if self.request:
            return self.request.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        self.taking(message)

    def begin(self, inbound: Inbound, body: bytes, sink: Sink) -> Session | None:
        """An answer that the test writes."""
        self.sink = sink
        return self.session

    async def carried(self, begin: Begin | None = None) -> None:
        await carry(begin or self.begin, INBOUND, b"", self.receive, self.send)

    async def under_way(self) -> tuple[asyncio.Task[None], Sink]:
        """An answer that has begun, and where it is written to."""
        task = asyncio.ensure_future(self.carried())
        await turns()
        assert self.sink is not None
        return task, self.sink

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def more(self) -> list[bool]:
        return [message["more_body"] for message in self.sent[1:]]


async def turns() -> None:
    """Let the loop turn a few times."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def whole(inbound: Inbound, body: bytes, sink: Sink) -> None:
    """An answer that is whole at once."""
    sink.start(200, HEADERS, b"x-more: 1\r\n")
    sink.write(b"one ")
    sink.write(b"two")
    sink.end([(b"x-trailer", b"1")])


async def test_what_is_whole_at_once_takes_two_messages_and_no_watch() -> None:
    server, before = Server(), asyncio.all_tasks()
    await server.carried(whole)
    assert server.sent == [
        {"type": "http.response.start", "status": 200, "headers": [*HEADERS, (b"x-more", b"1")]},
        {"type": "http.response.body", "body": b"one two", "more_body": False},
    ]
    assert (server.received, asyncio.all_tasks() - before) == (0, set())


async def test_what_is_written_in_one_turn_goes_out_in_one_message() -> None:
    server = Server()
    task, sink = await server.under_way()
    sink.start(200, HEADERS)
    await turns()
    assert not server.sent  # a head alone says nothing: the endpoint may yet fail
    sink.write(b"one ")
    sink.write(b"two ")
    await turns()
    sink.write(b"three")
    sink.end()
    await task
    assert [message.get("body") for message in server.sent] == [None, b"one two ", b"three"]
    assert server.more == [True, False]
    assert not server.session.told


async def test_what_comes_while_the_server_takes_the_head_is_not_lost() -> None:
    server = Server()
    task, sink = await server.under_way()

    def go_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            sink.write(b"two")
            sink.end()

    server.taking = go_on
    sink.start(200, HEADERS)
    sink.write(b"one ")
    await task
    assert (server.body, server.more) == (b"one two", [True, False])


async def test_a_client_that_leaves_is_told_to_the_session_once() -> None:
    server = Server()
    task, sink = await server.under_way()
    sink.start(200, HEADERS)
    sink.write(b"one")
    await turns()
    server.left.set()
    await task
    assert server.session.told == ["left"]
    assert server.more == [True]


async def test_a_server_that_gives_up_is_told_to_the_session() -> None:
    server = Server()
    task, _ = await server.under_way()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (server.session.told, server.sent) == (["left"], [])


async def test_a_slow_client_pauses_the_session_and_lets_it_go_on() -> None:
    server = Server()
    task, sink = await server.under_way()
    sink.start(200, HEADERS)
    sink.write(b"x" * PRESSURE_BYTES)
    assert not server.session.told
    sink.write(b"x")
    sink.write(b"x")
    assert server.session.told == ["pause"]
    await turns()
    assert server.session.told == ["pause", "resume"]
    sink.end()
    await task
    assert len(server.body) == PRESSURE_BYTES + 2


async def test_an_answer_that_breaks_off_is_cut_after_its_last_words() -> None:
    server = Server()
    task, sink = await server.under_way()
    sink.start(200, HEADERS)
    sink.write(b"last words")
    sink.abort()
    await task
    assert (server.body, server.more) == (b"last words", [True])


def broken(inbound: Inbound, body: bytes, sink: Sink) -> None:
    """A bug of ours."""
    raise ZeroDivisionError("secret")


def aborted(inbound: Inbound, body: bytes, sink: Sink) -> None:
    """It gives up before it has said a word."""
    sink.abort()


@pytest.mark.parametrize("parser", ["httptools", "h11"])
async def test_a_server_cuts_the_connection_with_one_line_in_its_log(
    parser: Literal["httptools", "h11"], caplog: pytest.LogCaptureFixture
) -> None:
    def break_off(inbound: Inbound, body: bytes, sink: Sink) -> None:
        sink.start(200, HEADERS)
        sink.write(b"last words")
        sink.abort()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await carry(break_off, INBOUND, b"", receive, send)

    config = Config(application, http=parser, lifespan="off", log_config=None, access_log=False)
    config.load()
    protocol: Any = config.http_protocol_class
    connection = partial(protocol, config=config, server_state=ServerState(), app_state={})
    serving = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    async with serving, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*serving.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        got = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert got.endswith(b"\r\n\r\na\r\nlast words\r\n")  # but not 0, the last chunk
    (line,) = [record for record in caplog.records if record.name == "uvicorn.error"]
    assert (line.levelname, line.exc_info) == ("ERROR", None)


@pytest.mark.parametrize(("begin", "raised"), [(broken, pytest.raises(ZeroDivisionError)), (aborted, nullcontext())])
async def test_a_fault_before_the_answer_is_a_plain_500(begin: Begin, raised: AbstractContextManager[object]) -> None:
    server = Server({"type": "http.request"})

    def dress(headers: Headers) -> Headers:
        return [*headers, (b"x-dressed", b"1")]

    with raised:
        await answer(begin, INBOUND, server.receive, server.send, dress)
    assert server.sent[0]["status"] == 500
    assert (b"x-dressed", b"1") in server.sent[0]["headers"]
    assert json.loads(server.body) == {"error": "An unexpected error occurred", "code": "internal"}
    assert server.more == [False]


async def test_a_fault_in_the_middle_adds_nothing_to_the_answer() -> None:
    server = Server()
    task, sink = await server.under_way()

    def fail(message: Message) -> None:
        raise ConnectionResetError

    server.taking = fail
    sink.start(200, HEADERS)
    sink.write(b"one")
    with pytest.raises(ConnectionResetError):
        await task
    assert (len(server.sent), server.session.told) == (1, ["left"])


async def test_a_client_that_leaves_in_the_middle_of_its_request_begins_nothing() -> None:
    server = Server({"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"})
    await answer(server.begin, INBOUND, server.receive, server.send, lambda headers: headers)
    assert (server.sink, server.sent) == (None, [])


async def test_an_answer_leaves_nothing_to_the_collector() -> None:
    server = Server()
    gc.disable()
    try:
        task, sink = await server.under_way()
        sink.start(200, HEADERS)
        sink.write(b"all")
        sink.end()
        await task
        session = weakref.ref(server.session)
        del task, sink, server
        await turns()
        assert session() is None
    finally:
        gc.enable()


# the whole application


@pytest.mark.parametrize("root_path", ["", "/arena"])
async def test_a_request_that_needs_no_router_passes_none(fake: FakeOllama, root_path: str) -> None:
    settings = Settings(engine="off", endpoints=(f"fake={fake.url}",), root_path=root_path)  # type: ignore[call-arg]
    guard = create_app(settings, page=False)
    async with started(guard) as client:
        routed: list[str] = []
        whole_app = guard.app

        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            routed.append(scope["path"])
            await whole_app(scope, receive, send)

        guard.app = noted
        hello = [{"role": "user", "content": "Hello!"}]
        chat = await client.post(f"{root_path}/olla/ollama/api/chat", {"model": "fx-ok:n-2", "messages": hello})
        assert (chat.status, len(chat.lines()), chat.headers["x-olla-endpoint"]) == (200, 3, "fake")
        assert chat.headers["x-content-type-options"] == "nosniff"
        streamed = {"models": ["fx-ok:n-2"], "history": hello}
        assert (await client.post(f"{root_path}/api/stream_chat", streamed)).lines()[-1]["done"]
        refused = await client.call("POST", "/olla/ollama/api/chat", b"[", [JSON_TYPE, (b"content-length", b"1")])
        assert (refused.status, routed) == (400, [])
        assert (await client.get("/olla/ollama/api%2ftags")).status == 400
        assert (await client.get("/api/health")).status == 200
        assert routed == ["/olla/ollama/api%2ftags", "/api/health"]


async def test_a_server_need_not_tell_the_path_as_it_came(fake: FakeOllama) -> None:
    settings = Settings(engine="off", endpoints=(f"fake={fake.url}",))  # type: ignore[call-arg]
    guard = create_app(settings, page=False)

    async def without_raw_path(scope: Scope, receive: Receive, send: Send) -> None:
        await guard({**scope, "raw_path": None} if scope["type"] == "http" else scope, receive, send)

    async with started(without_raw_path) as client:
        assert (await client.get("/olla/ollama/api/version")).status == 200
