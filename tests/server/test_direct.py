"""Answers written straight to their connection: what HTTP asks of them, and what a leaving or slow client does."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from arena.exchange import Begin, Connection, Headers, Inbound, Session, Sink, header_lines
from arena.log import request_id
from arena.server import Server, bind
from arena.settings import load
from tests.served import PATIENCE_S, SHORT, Running, TinyApp, Wire
from tests.threads import in_thread

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


class Noting:
    """A session that notes what it is told."""

    def __init__(self, told: SimpleQueue[str]) -> None:
        self.told = told

    def pause(self) -> None:
        self.told.put("pause")

    def resume(self) -> None:
        self.told.put("resume")

    def left(self) -> None:
        self.told.put("left")


class DirectApp(TinyApp):
    """Takes every POST below /direct/ and does what the rest of the path says."""

    def __init__(self) -> None:
        super().__init__()
        self.told: SimpleQueue[str] = SimpleQueue()
        self.scopes: list[dict[str, Any]] = []
        self.connections: SimpleQueue[Connection] = SimpleQueue()

    def direct(self, method: str, path: str) -> Begin | None:
        return self.begin if method == "POST" and path.startswith("/direct/") else None

    @staticmethod
    def begin(inbound: Inbound, body: bytes, sink: Sink) -> Session | None:
        raise AssertionError("this application carries by itself")

    def carry(self, begin: Begin, scope: dict[str, Any], body: bytes, connection: Connection) -> Session | None:
        assert begin == self.begin
        self.scopes.append(scope)
        connection.request_id = scope["path"]
        connection.over = lambda: self.told.put("over")
        connection.dress = lambda headers: header_lines(headers) + b"x-dressed: yes\r\n"
        self.connections.put(connection)
        ways: dict[str, Callable[[Connection, bytes], None]] = {
            "/direct/echo": self.echo,
            "/direct/chunks": self.chunks,
            "/direct/cut": self.cut,
            "/direct/bug": self.bug,
            "/direct/late-bug": self.late_bug,
            "/direct/empty": self.empty,
            "/direct/nothing": self.nothing,
            "/direct/rush": self.rush,
        }
        self.told.put(f"{scope['path']}?{scope['query_string'].decode()}")
        way = ways.get(scope["path"])
        if way is not None:
            way(connection, body)
        return Noting(self.told)

    @staticmethod
    def echo(sink: Connection, body: bytes) -> None:
        headers: Headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        sink.start(200, headers)
        sink.write(body)
        sink.end()

    @staticmethod
    def empty(sink: Connection, body: bytes) -> None:
        sink.start(204, [(b"content-length", b"0")])
        sink.end()

    @staticmethod
    def nothing(sink: Connection, body: bytes) -> None:
        sink.start(204, [])
        sink.end()

    @staticmethod
    def rush(sink: Connection, body: bytes) -> None:
        sink.start(200, [])
        sink.write(b"x" * 1_000_000)

    def later(self, sink: Connection, *pieces: bytes, end: bool = True, trailers: Headers | None = None) -> None:
        """Answer from the server's own thread."""

        def answer() -> None:
            sink.start(299 if trailers else 200, [])
            for piece in pieces:
                sink.write(piece)
            if end:
                sink.end(trailers or ())

        assert self._loop is not None
        self._loop.call_soon_threadsafe(answer)

    @staticmethod
    def chunks(sink: Connection, body: bytes) -> None:
        sink.start(200, [])
        sink.write(b"hello")
        sink.write(b"")
        sink.end()
        sink.write(b"too late")
        sink.end()

    @staticmethod
    def cut(sink: Connection, body: bytes) -> None:
        sink.start(200, [])
        sink.write(b"hello")
        sink.abort()

    @staticmethod
    def bug(sink: Connection, body: bytes) -> None:
        raise ZeroDivisionError("secret")

    @staticmethod
    def late_bug(sink: Connection, body: bytes) -> None:
        sink.start(200, [])
        sink.write(b"hello")
        raise ZeroDivisionError("secret")


@pytest.fixture
def app() -> DirectApp:
    return DirectApp()


@pytest.fixture(params=["info", "debug"])
def served(app: DirectApp, request: pytest.FixtureRequest) -> Iterator[Running]:
    settings = load(port=0, drain_s=2.0, log_level=request.param)
    ready, sockets = threading.Event(), bind(settings)
    for listener in sockets:  # its connections do the same: left alone, the system may take megabytes at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    server = Server(app, settings, sockets, limits=SHORT, on_ready=lambda url: ready.set())
    with in_thread(server, ready) as thread:
        yield Running(app, server, thread, sockets[0].getsockname()[1])


def told(app: DirectApp) -> str:
    return app.told.get(timeout=PATIENCE_S)


def test_answers_of_known_length_keep_the_connection(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        for body in (b"one", b"", b"x" * 100_000):
            reply = wire.ask("/direct/echo?a=1", body=body).reply()
            assert (reply.status, reply.body) == (200, body)
            assert reply.headers["x-dressed"] == "yes"
            assert "date" in reply.headers
            assert "connection" not in reply.headers
            assert [told(app), told(app)] == ["/direct/echo?a=1", "over"]
        assert wire.ask("/direct/empty").reply().status == 204
        assert b"transfer-encoding" not in wire.ask("/direct/nothing").until(b"\r\n\r\n")
        assert wire.ask("/echo", body=b"abc").reply().body == b"3"


def test_the_authority_of_an_absolute_target_is_the_host_also_when_the_head_is_known(
    app: DirectApp, served: Running
) -> None:
    head = b"POST http://h:1/direct/echo?a=1 HTTP/1.1\r\nHost: other\r\nContent-Length: 1\r\n\r\n"
    with Wire(served.port) as wire:
        for body in (b"1", b"2"):
            assert wire.send(head + body).reply().body == body
            assert [told(app), told(app)] == ["/direct/echo?a=1", "over"]
    assert [dict(scope["headers"])[b"host"] for scope in app.scopes] == [b"h:1", b"h:1"]


def test_an_answer_of_unknown_length_is_chunked(served: Running) -> None:
    with Wire(served.port) as wire:
        for _ in range(2):
            head = wire.ask("/direct/chunks").until(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            assert wire.until(b"0\r\n\r\n") == CHUNKED


def test_trailers_stand_after_the_last_chunk(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/direct/wait")
        sink = app.connections.get(timeout=PATIENCE_S)
        app.later(sink, b"hello", trailers=[(b"x-total", b"9ms")])
        assert wire.until(b"\r\n").startswith(b"HTTP/1.1 299 ")
        assert wire.until(b"9ms\r\n\r\n").endswith(b"5\r\nhello\r\n0\r\nx-total: 9ms\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /direct/echo HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /direct/%65cho HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"GET /direct/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
    ],
)
def test_whatever_is_not_plain_goes_through_asgi(app: DirectApp, served: Running, head: bytes) -> None:
    with Wire(served.port) as wire:
        wire.send(head)
        assert len(app.seen.get(timeout=PATIENCE_S).body) in (2, 300_000)
        assert app.told.empty()


def test_a_client_that_asks_to_close_is_obeyed(served: Running) -> None:
    with Wire(served.port) as wire:
        rest = wire.ask("/direct/echo", headers=b"Connection: close\r\n", body=b"x").rest()
        assert b"connection: close\r\n" in rest
        assert rest.endswith(b"x")


def test_a_cut_answer_has_no_last_chunk(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        assert wire.ask("/direct/cut").rest().endswith(b"5\r\nhello\r\n")
    assert [told(app), told(app)] == ["/direct/cut?", "over"]


def test_a_bug_is_answered_without_its_story(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    with Wire(served.port) as wire:
        reply = wire.ask("/direct/bug").reply()
        assert (reply.status, reply.code) == (500, "internal")
        assert b"secret" not in reply.body
    with Wire(served.port) as wire:
        assert wire.ask("/direct/late-bug").rest().endswith(b"5\r\nhello\r\n")
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_is_told_of_once(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/direct/wait")
        assert told(app) == "/direct/wait?"
    assert {told(app), told(app)} == {"over", "left"}
    sink = app.connections.get(timeout=PATIENCE_S)
    sink.start(200, [])
    sink.write(b"for nobody")
    sink.end()
    sink.abort()
    assert app.told.empty()


def test_a_slow_client_pauses_the_session(app: DirectApp, served: Running) -> None:
    with Wire(served.port, receive_bytes=65536) as wire:
        wire.ask("/direct/wait")
        assert told(app) == "/direct/wait?"
        sink = app.connections.get(timeout=PATIENCE_S)
        app.later(sink, b"x" * 1_000_000, end=False)
        assert told(app) == "pause"
        wire.until(b"\r\n\r\n")
        wire.until(b"x" * 1_000_000)
        assert told(app) == "resume"
        app.later(sink)
        assert wire.until(b"0\r\n\r\n")


def test_a_request_sent_early_waits_for_its_turn(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/direct/wait").ask("/direct/echo", body=b"second")
        sink = app.connections.get(timeout=PATIENCE_S)
        app.later(sink, b"first")
        assert b"first" in wire.until(b"0\r\n\r\n")
        assert wire.reply().body == b"second"
        assert [told(app) for _ in range(4)] == ["/direct/wait?", "over", "/direct/echo?", "over"]


def test_many_early_requests_are_answered_one_after_another(served: Running) -> None:
    with Wire(served.port) as wire:
        for _ in range(500):
            wire.ask("/direct/empty")
        assert [wire.reply().status for _ in range(500)] == [204] * 500


def test_more_early_requests_than_a_head_holds_are_not_kept(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    with Wire(served.port) as wire:
        wire.send(b"POST /direct/empty HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n" * 3000)
        assert wire.rest().startswith(b"HTTP/1.1 204 ")
    assert "Traceback" not in caplog.text


def test_who_does_not_read_gets_no_further_answer(app: DirectApp, served: Running) -> None:
    with Wire(served.port, receive_bytes=65536) as wire:
        wire.ask("/direct/wait")
        assert told(app) == "/direct/wait?"
        app.later(app.connections.get(timeout=PATIENCE_S), b"x" * 4_000_000)
        assert {told(app), told(app)} == {"pause", "over"}
        wire.ask("/direct/empty")
        wire.until(b"\r\n\r\n")
        assert app.told.empty()
        wire.until(b"0\r\n\r\n")
        assert wire.reply().status == 204
        assert [told(app), told(app)] == ["/direct/empty?", "over"]


def test_an_answer_that_is_too_much_at_once_is_paused_as_it_begins(app: DirectApp, served: Running) -> None:
    with Wire(served.port, receive_bytes=65536) as wire:
        wire.ask("/direct/rush")
        assert [told(app), told(app)] == ["/direct/rush?", "pause"]


def test_stopping_ends_the_connection_after_its_answer(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/direct/wait")
        sink = app.connections.get(timeout=PATIENCE_S)
        served.server.should_exit = True
        assert app.draining.wait(PATIENCE_S)
        app.later(sink, b"bye")
        rest = wire.rest()
        assert b"connection: close\r\n" in rest
        assert rest.endswith(b"3\r\nbye\r\n0\r\n\r\n")


def test_a_head_that_was_seen_before_is_read_the_same(app: DirectApp, served: Running) -> None:
    for _ in range(2):  # on a connection of its own each time
        with Wire(served.port) as wire:
            for body in (b"one", b"three", b"", b"x" * 70_000, b"one"):
                reply = wire.ask("/direct/echo?a=1", headers=b"X-A: b\r\n", body=body).reply()
                assert (reply.status, reply.body) == (200, body)
    scopes = list(app.scopes)
    assert len({id(scope) for scope in scopes}) == len(scopes) == 10
    for scope in scopes:
        assert (scope["path"], scope["query_string"]) == ("/direct/echo", b"a=1")
        assert [name for name, _ in scope["headers"]] == [b"host", b"content-length", b"x-a"]
    assert [int(dict(scope["headers"])[b"content-length"]) for scope in scopes[:5]] == [3, 5, 0, 70_000, 3]
    assert scopes[0]["client"] != scopes[5]["client"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: +3\r\n", 400),
    ],
)
def test_an_ambiguous_length_is_never_taken_for_a_head_that_was_seen(
    served: Running, headers: bytes, status: int
) -> None:
    with Wire(served.port) as wire:
        assert wire.ask("/direct/echo", body=b"one").reply().status == 200
        assert wire.ask("/direct/echo", body=b"two").reply().status == 200
        wire.send(b"POST /direct/echo HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\nabc")
        assert wire.until(b"\r\n").startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "length", [b" 5", b"5", b"  5", b"\t5", b" 5 ", b" 005", b" 0000000005"], ids=lambda length: repr(length)[1:]
)
def test_however_a_length_is_written_the_next_request_begins_behind_the_body(
    app: DirectApp, served: Running, length: bytes
) -> None:
    head = b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nContent-Length:%b\r\n\r\n" % length
    with Wire(served.port) as wire:
        for body in (b"11111", b"22222", b"33333"):
            reply = wire.send(head + body).reply()
            assert (reply.status, reply.body) == (200, body)


def test_a_body_may_come_in_pieces_after_a_head_that_was_seen(app: DirectApp, served: Running) -> None:
    with Wire(served.port) as wire:
        assert wire.ask("/direct/echo", body=b"hello").reply().body == b"hello"
        wire.send(b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        for _ in range(2):
            told(app)
        assert wire.quiet(0.05)
        wire.send(b"he")
        assert wire.quiet(0.05)
        assert wire.send(b"llo").reply().body == b"hello"


def test_a_request_without_a_body_may_be_answered_straight_too(served: Running) -> None:
    with Wire(served.port) as wire:
        for _ in range(2):
            wire.send(b"POST /direct/echo HTTP/1.1\r\nHost: h\r\n\r\n")
            assert wire.reply().body == b""
            assert wire.ask("/direct/echo", body=b"x").reply().body == b"x"


@pytest.mark.parametrize("mark", [b"+", b"-"])
def test_no_head_is_taken_for_another_that_has_a_length(app: DirectApp, served: Running, mark: bytes) -> None:
    plain = b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nX-A: b%b\r\n\r\n" % mark
    with_body = b"POST /direct/echo HTTP/1.1\r\nHost: h\r\nX-A: b\r\nContent-Length: 3\r\n\r\none"
    for order in ((plain, with_body), (with_body, plain)):
        app.scopes.clear()
        with Wire(served.port) as wire:
            bodies = [wire.send(request).reply().body for request in order]
        assert bodies == [b"one" if request is with_body else b"" for request in order]
        values = [dict(scope["headers"])[b"x-a"] for scope in app.scopes]
        assert values == [b"b" if request is with_body else b"b" + mark for request in order]


@pytest.mark.parametrize("served", ["debug"], indirect=True)
def test_a_line_of_the_access_log_carries_the_id_of_its_own_request(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: SimpleQueue[str] = SimpleQueue()
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "info", lambda *_: ids.put(request_id.get()))
    with Wire(served.port) as wire:
        for path in ("/direct/echo", "/direct/nothing", "/direct/echo"):
            assert wire.ask(path).reply().status in (200, 204)
            assert ids.get(timeout=PATIENCE_S) == path
