"""Answers to clients of HTTP/1.0 without a length: only a reset tells one that is cut from one that is whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from arena.server import Limits
from tests.served import PATIENCE_S, SHORT, STOPPING, Running, Wire, running
from tests.sockets import ending

BEGUN = b'{"token":"a"}\n'


@pytest.fixture
def served() -> Iterator[Running]:
    """A server with the limits as shipped."""
    with running(Limits()) as server:
        yield server


def asked(path: str, body: bytes = b"") -> bytes:
    """A request of HTTP/1.0."""
    return f"POST {path} HTTP/1.0\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_one_that_breaks_in_the_middle_ends_in_a_reset_after_all_that_was_said(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.send(asked("/mumble", b"x"))
        came, reset = ending(wire.socket)
    assert (came.partition(b"\r\n\r\n")[2], reset) == (BEGUN, True)


def test_one_that_is_whole_ends_in_good_order(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.send(asked("/large"))
        came, reset = ending(wire.socket)
    assert (len(came.partition(b"\r\n\r\n")[2]), reset) == (16_000_000, False)


def test_one_that_the_server_cuts_as_it_stops_ends_in_a_reset() -> None:
    with running(SHORT, drain_s=0.1) as server, Wire(server.port) as cut, Wire(server.port) as whole:
        cut.send(asked("/stubborn")).until(BEGUN)
        whole.send(asked("/stream")).until(BEGUN)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert ending(whole.socket) == (STOPPING, False)
        assert ending(cut.socket) == (b"", True)
        stopping.join(PATIENCE_S)


def test_one_whose_client_has_left_is_over(served: Running) -> None:
    with Wire(served.port) as wire:
        wire.send(asked("/gradio_api/heartbeat/1")).until(BEGUN)
    assert served.app.gone.get(timeout=PATIENCE_S) == "/gradio_api/heartbeat/1"
    with Wire(served.port) as wire:
        assert wire.send(asked("/lazy")).reply().body == b"lazy"
