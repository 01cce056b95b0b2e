"""The server on the wire: what it refuses, what it survives, how long it waits, how it stops."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from arena.server import Limits
from arena.server.head import BAD_LINES, flaw
from tests.fake_ollama.stopwatch import Stopwatch
from tests.served import PATIENCE_S, SHORT, Running, Wire, running

GET = b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def refusing() -> Iterator[Running]:
    """One server for all the requests that must not reach its application."""
    with running(Limits(sweep_s=0.1, linger_s=0.3)) as server:
        yield server


@pytest.fixture
def served() -> Iterator[Running]:
    """One server with the limits as shipped, but a quick sweep."""
    with running(Limits(sweep_s=0.1, linger_s=0.3)) as server:
        yield server


@pytest.fixture
def hasty() -> Iterator[Running]:
    """One server that waits for nobody."""
    with running(SHORT) as server:
        yield server


# heads


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 33 * 1024 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 33 * 1024, 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400),
        (b"GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://?x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://:80/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET http:/h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h#/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nHost: a\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h/ HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        (b"GET http://h/a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"CONNECT http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET @evil/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /echo\r\nHost: h\r\n\r\n", 400),
        (b"GET http://h/echo\r\nHost: h\r\n\r\n", 400),
        (b"GET /echo HTTP/2.0\r\nHost: h\r\n\r\n", 400),
        (b"GET /echo RTSP/1.0\r\nHost: h\r\n\r\n", 400),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"OPTIONS *x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"OPTIONS * HTTP/2.0\r\nHost: h\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
    ],
)
def test_bad_heads_are_refused_at_once(refusing: Running, request_bytes: bytes, status: int) -> None:
    watch = Stopwatch()
    with Wire(refusing.port) as wire:
        reply = wire.send(request_bytes).reply()
        assert reply.status == status
        assert reply.headers["connection"] == "close"
        assert reply.code in ("uri_too_long", "head_too_large", "bad_request")
        wire.closed()
    assert watch.own_s() < 1
    assert refusing.app.seen.empty()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_what_is_asked_of_the_server_as_a_whole_it_answers_itself(refusing: Running, version: bytes) -> None:
    with Wire(refusing.port) as wire:
        wire.send(b"OPTIONS * HTTP/%b\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % version)
        reply = wire.reply()
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers == {"allow": "get, head, post, put, delete, options", "connection": "close"}
        wire.closed()
    assert refusing.app.seen.empty()


@pytest.mark.parametrize("fold", [b" ", b"\t"])
def test_folded_headers_are_refused_before_the_parser_sees_them(fold: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n" + fold + b"b\r\n\r\n"
    assert flaw(head, Limits()) is BAD_LINES


def test_heads_up_to_the_limits_pass(served: Running) -> None:
    line = b"GET /" + b"a" * (8 * 1024 - len("GET / HTTP/1.1")) + b" HTTP/1.1\r\n"
    many = b"Host: h\r\n" + b"X: y\r\n" * 99
    large = b"Host: h\r\nX: " + b"a" * (32 * 1024 - len(b"GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n"))
    for head in (
        line + b"Host: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + many + b"\r\n",
        b"GET / HTTP/1.1\r\n" + large + b"\r\n\r\n",
    ):
        with Wire(served.port) as wire:
            assert wire.send(head).reply().status == 200, head[:60]
        served.app.seen.get(timeout=PATIENCE_S)


def test_a_head_may_arrive_byte_by_byte(served: Running) -> None:
    with Wire(served.port) as wire:
        for byte in GET:
            wire.send(bytes([byte]))
        assert wire.reply().status == 200
    served.app.seen.get(timeout=PATIENCE_S)


def test_empty_lines_before_a_request_are_skipped(served: Running) -> None:
    with Wire(served.port) as wire:
        assert wire.send(b"\r\n\r\n" + GET).reply().status == 200
        wire.send(b"\r\n")
        assert wire.send(GET).reply().status == 200
    for _ in range(2):
        served.app.seen.get(timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://h:1/echo", "/echo", b"h:1"),
        (b"HTTP://h/echo?x=http://y/", "/echo", b"h"),
        (b"http://h", "/", b"h"),
        (b"http://h?/x", "/", b"h"),
        (b"http://h//evil/", "//evil/", b"h"),
        (rb"http://u:p@h\1/%2f", "//", rb"u:p@h\1"),
    ],
)
def test_the_authority_of_an_absolute_target_is_the_host(
    served: Running, target: bytes, path: str, host: bytes
) -> None:
    head = b"POST " + target + b" HTTP/1.1\r\nX: host: x\r\nhOST:\tother\r\nContent-Length: 3\r\n\r\n"
    with Wire(served.port) as wire:
        wire.send(head + b"abc" + GET)
        assert [wire.reply().body, wire.reply().body] == [b"3", b"0"]
    seen = served.app.seen.get(timeout=PATIENCE_S)
    assert (seen.path, seen.body) == (path, b"abc")
    assert [value for name, value in seen.headers if name == b"host"] == [host]
    assert served.app.seen.get(timeout=PATIENCE_S).path == "/echo"


@pytest.mark.parametrize("headers", [b"", b"X: host: x\r\n", b"Host: other\r\n"])
def test_an_absolute_target_of_http_1_0_needs_no_host(served: Running, headers: bytes) -> None:
    with Wire(served.port) as wire:
        assert wire.send(b"GET http://h:1/echo HTTP/1.0\r\n" + headers + b"\r\n").reply().body == b"0"
    seen = served.app.seen.get(timeout=PATIENCE_S)
    assert [value for name, value in seen.headers if name == b"host"] == [b"h:1"]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
def test_an_offer_to_change_the_protocol_is_declined(served: Running, offer: bytes) -> None:
    headers = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\nUpgrade-Insecure-Requests: 1\r\n"
    with Wire(served.port) as wire:
        assert wire.ask(headers=headers, body=b"abc").reply().body == b"3"
        assert wire.ask(body=b"abcd").reply().body == b"4"
    assert (b"upgrade-insecure-requests", b"1") in served.app.seen.get(timeout=PATIENCE_S).headers
    served.app.seen.get(timeout=PATIENCE_S)


# bodies


def test_requests_on_one_connection_are_answered_in_turn(served: Running) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n"
    with Wire(served.port) as wire:
        wire.ask(body=b"a").ask(body=b"bb").send(GET).ask(headers=chunked, body=b"1\r\nx\r\n2\r\nyy\r\n0\r\n\r\n")
        assert [wire.reply().body for _ in range(4)] == [b"1", b"2", b"0", b"3"]
        assert wire.ask(body=b"c" * 300_000).reply().body == b"300000"
    bodies = [served.app.seen.get(timeout=PATIENCE_S).body for _ in range(5)]
    assert bodies == [b"a", b"bb", b"", b"xyy", b"c" * 300_000]


def test_a_trailer_does_not_become_a_header(served: Running) -> None:
    body = b"1\r\nx\r\n0\r\nHost: evil\r\nX-Late: 1\r\n\r\n"
    with Wire(served.port) as wire:
        assert wire.ask(headers=b"Transfer-Encoding: chunked\r\n", body=body).reply().body == b"1"
    headers = served.app.seen.get(timeout=PATIENCE_S).headers
    assert headers == ((b"host", b"h"), (b"transfer-encoding", b"chunked"))


def test_a_request_hidden_behind_a_chunked_body_is_dropped(served: Running) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: evil\r\nContent-Length: 3\r\n\r\nabc"
    with Wire(served.port) as wire:
        wire.ask(headers=b"Transfer-Encoding: chunked\r\n", body=b"1\r\nx\r\n0\r\n\r\n" + hidden)
        reply = wire.reply()
        assert (reply.body, reply.headers["connection"]) == (b"1", "close")
        assert wire.rest() == b""
    assert served.app.seen.get(timeout=PATIENCE_S).body == b"x"
    assert served.app.seen.empty()


@pytest.mark.parametrize(
    "framing", [b"1;" + b"x" * 400_000, b"0\r\nX: " + b"y" * 400_000, b"0\r\n" + b"X: y\r\n" * 60_000]
)
def test_framing_without_content_is_cut(served: Running, framing: bytes) -> None:
    watch = Stopwatch()
    with Wire(served.port) as wire:
        reply = wire.ask(headers=b"Transfer-Encoding: chunked\r\n", body=framing).reply()
        assert (reply.status, reply.code) == (400, "bad_request")
    assert watch.own_s() < 1
    assert served.app.gone.get(timeout=PATIENCE_S) == "/echo"


def test_many_tiny_chunks_are_done_quickly(served: Running) -> None:
    watch = Stopwatch()
    with Wire(served.port) as wire:
        body = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
        assert wire.ask(headers=b"Transfer-Encoding: chunked\r\n", body=body).reply().body == b"100000"
    assert watch.own_s() < 2
    served.app.seen.get(timeout=PATIENCE_S)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_before_the_body_keeps_the_connection(served: Running, chunked: bool) -> None:
    with Wire(served.port) as wire:
        if chunked:
            wire.ask("/lazy", headers=b"Transfer-Encoding: chunked\r\n", body=b"186a0\r\n" + b"x" * 50_000)
            assert wire.reply().body == b"lazy"
            wire.send(b"x" * 50_000 + b"\r\n0\r\n\r\n")
        else:
            wire.send(b"POST /lazy HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
            assert wire.reply().body == b"lazy"
            wire.send(b"x" * 50_000)
        assert wire.ask(body=b"next").reply().body == b"4"
    served.app.seen.get(timeout=PATIENCE_S)


def test_a_body_nobody_wants_is_not_taken_for_ever(hasty: Running) -> None:
    with Wire(hasty.port) as wire:
        wire.send(b"POST /lazy HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        assert wire.reply().body == b"lazy"
        wire.send(b"x" * 20_000_000)
        assert wire.closed() < PATIENCE_S
    with Wire(hasty.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000_000)
        assert wire.closed() < PATIENCE_S


def test_a_client_is_told_to_continue(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.send(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.send(b"ab").reply().body == b"2"
    served.app.seen.get(timeout=PATIENCE_S)


def test_broken_framing_in_mid_answer_ends_both(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/mumble", headers=b"Transfer-Encoding: chunked\r\n", body=b"1\r\nx\r\n")
        wire.until(b'{"token":"a"}\n')
        wire.send(b"nonsense\r\n")
        assert b"HTTP" not in wire.rest()
    assert served.app.gone.get(timeout=PATIENCE_S) == "/mumble"


def test_early_requests_wait_but_not_without_bound(hasty: Running) -> None:
    with Wire(hasty.port) as wire:
        wire.ask("/gradio_api/heartbeat/1").until(b'{"token":"a"}\n')
        wire.send(b"x" * 40_000)
        wire.send(b"x" * 9_000_000)
        assert wire.closed() < PATIENCE_S
    assert hasty.app.gone.get(timeout=PATIENCE_S) == "/gradio_api/heartbeat/1"


def test_a_client_that_leaves_is_noticed_though_it_sent_more(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/gradio_api/heartbeat/1").until(b'{"token":"a"}\n')
        wire.send(b"GET /early HTTP/1.1\r\n")
    assert served.app.gone.get(timeout=PATIENCE_S) == "/gradio_api/heartbeat/1"


def test_too_many_early_bytes_close_after_the_answer(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.ask("/gated")
        wire.send(b"GET /early HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 40_000)
        served.app.open_gate()
        assert wire.reply().body == b"0"
        assert wire.closed() < PATIENCE_S
    assert served.app.seen.get(timeout=PATIENCE_S).path == "/gated"
    assert served.app.seen.empty()


# time

SHAPES = {
    "silent": (b"", b"", None, SHORT.head_s),
    "half a head": (b"GET /echo HTTP/1.1\r\nHo", b"", None, SHORT.head_s),
    "a head in drops": (b"GET /echo HTTP/1.1\r\nX: ", b"x", None, SHORT.head_s),
    "half a body": (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab", b"", 408, SHORT.body_idle_s),
    "a body in drops": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\nab",
        b"x",
        408,
        SHORT.body_total_s,
    ),
}


def drip(wires: list[tuple[Wire, bytes]], port: int) -> list[float]:
    """Send each wire its drop every 50 ms until the server has had enough of all; seconds that health checks took."""
    health, end = [], time.monotonic() + PATIENCE_S
    while wires:
        assert time.monotonic() < end
        watch = Stopwatch()
        with Wire(port) as wire:
            assert wire.send(GET).reply().status == 200
        health.append(watch.own_s())
        for wire, drop in wires:
            wire.send(drop)
        wires[0][0].quiet(0.05)
        wires = [(wire, drop) for wire, drop in wires if wire.quiet(0)]
    return health


@pytest.mark.parametrize("shape", SHAPES)
def test_slow_clients_are_closed_in_time(hasty: Running, shape: str) -> None:
    first, drop, status, limit_s = SHAPES[shape]
    watch = Stopwatch()
    with Wire(hasty.port) as wire:
        drip([(wire.send(first), drop)], hasty.port)
        assert watch.own_s() < limit_s + 1
        assert time.monotonic() - wire.opened_at >= limit_s
        if status:
            reply = wire.reply()
            assert (reply.status, reply.code) == (status, "timeout")
            assert hasty.app.gone.get(timeout=PATIENCE_S) == "/echo"
        assert wire.rest() == b""


def test_a_large_body_that_keeps_coming_has_the_time_it_needs() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 200100\r\n\r\n"
    unhurried = replace(SHORT, body_idle_s=PATIENCE_S, body_bytes_per_s=8 * 1024)  # it is this process that may be late
    with running(unhurried) as server, Wire(server.port) as wire:
        wire.send(head + b"x" * 200_000)
        sent = 0
        while time.monotonic() - wire.opened_at < 2 * SHORT.body_total_s:
            assert wire.quiet(0.05), "refused although it comes fast enough"
            wire.send(b"y")
            sent += 1
        wire.send(b"y" * (100 - sent))
        assert wire.reply().status == 200


def test_a_crowd_of_slow_clients_leaves_the_others_alone(hasty: Running) -> None:
    wires = []
    for first, drop, _status, _limit_s in [*SHAPES.values()] * 100:
        wire = Wire(hasty.port)
        wires.append((wire.send(first), drop))
    watch = Stopwatch()
    health = drip(wires, hasty.port)
    # one second of grace by the goal; the rest is for a machine that runs other tests meanwhile
    assert watch.own_s() < SHORT.body_total_s + 1 + 2
    for wire, _ in wires:
        wire.rest()
        wire.socket.close()
    assert sorted(health)[len(health) // 2] < 0.1
    assert max(health) < 2
    assert [hasty.app.gone.get(timeout=PATIENCE_S) for _ in range(200)] == ["/echo"] * 200


def test_an_idle_connection_is_closed(hasty: Running) -> None:
    with Wire(hasty.port) as wire:
        assert wire.send(GET).reply().status == 200
        watch = Stopwatch()
        assert wire.closed() >= SHORT.keep_alive_s
        assert watch.own_s() < SHORT.keep_alive_s + 1


def test_a_body_nobody_finishes_is_given_up_after_the_answer(hasty: Running) -> None:
    with Wire(hasty.port) as wire:
        wire.send(b"POST /lazy HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
        assert wire.reply().body == b"lazy"
        assert wire.rest() == b""


def test_a_slow_application_is_not_the_clients_fault(hasty: Running) -> None:
    with Wire(hasty.port) as wire:
        wire.ask("/gated", body=b"x" * 200_000)
        assert wire.quiet(SHORT.body_total_s + 0.3)
        hasty.app.open_gate()
        assert wire.reply().body == b"200000"


def test_an_answer_may_take_its_time(hasty: Running) -> None:
    with Wire(hasty.port) as wire:
        wire.ask("/gradio_api/heartbeat/1").until(b'{"token":"a"}\n')
        assert wire.until(b"\r\n") == b"\r\n"
        assert wire.quiet(SHORT.body_total_s + 0.3)
    assert hasty.app.gone.get(timeout=PATIENCE_S) == "/gradio_api/heartbeat/1"


@pytest.mark.parametrize("path", ["/flood", "/large"])
def test_a_client_that_does_not_read_is_dropped(hasty: Running, path: str) -> None:
    with Wire(hasty.port, receive_bytes=4096) as wire:
        watch = Stopwatch()
        assert wire.ask(path).reset() >= SHORT.write_stall_s
        assert watch.own_s() < SHORT.write_stall_s + 1
    if path == "/flood":
        assert hasty.app.gone.get(timeout=PATIENCE_S) == "/flood"
