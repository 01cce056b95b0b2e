"""The border between a connection and whoever answers on it: headers as lines, and what never reaches a log."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from arena.exchange import Headers, header_lines, headers_in
from arena.server.direct import Exchange
from arena.server.limits import Limits
from arena.server.protocol import State

NAMES = st.text("abc-", min_size=1).map(str.encode)
VALUES = st.text("abc: ;,=", max_size=9).map(str.encode)


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_headers_written_as_lines_read_the_same(headers: Headers) -> None:
    assert headers_in(header_lines(headers)) == headers


def test_the_lines_that_every_answer_has_follow_the_clock() -> None:
    state = State(Limits())
    assert state.common_lines == b""
    state.default_headers = [(b"date", b"now"), (b"server", b"arena")]
    assert state.common_lines == b"date: now\r\nserver: arena\r\n"
    assert state.common_lines is state.common_lines
    state.default_headers = [(b"date", b"later")]
    assert state.common_lines == b"date: later\r\n"


def test_what_a_request_holds_is_not_for_the_log() -> None:
    scope = {"headers": [(b"authorization", b"Bearer secret")]}
    connection: Any = None
    exchange = Exchange(connection, lambda inbound, body, sink: None, scope, True, body=b"secret")
    assert "secret" not in repr(exchange)
    assert "secret" not in repr([exchange.begin])
