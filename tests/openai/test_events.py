"""Where events are cut, however they are split over reads."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena.errors import UpstreamBroken
from arena.openai.events import MAX_EVENT_BYTES, Events, payloads, plain_lines

STREAM = b'data: {"a": 1}\n\n: a comment\n\ndata:{"b":\r\ndata: 2}\r\n\r\nevent: x\ndata: [DONE]\n\nid: 7\n\n'
DATA = [b'{"a": 1}', b'{"b":\n2}', b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_survive_any_split(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    events, whole = Events("there"), b""
    for begin, end in pairwise(places):
        block = events.feed(STREAM[begin:end])
        assert not block or block.endswith((b"\n\n", b"\n\r\n"))
        whole += block
    assert whole == STREAM
    assert events.rest() == b""
    assert list(payloads(whole)) == DATA


def test_the_rest_is_what_has_no_empty_line() -> None:
    events = Events("there")
    assert events.feed(b"data: 1\n\ndata: 2\n") == b"data: 1\n\n"
    assert events.rest() == b"data: 2"


@pytest.mark.parametrize("pieces", [1, 9])
def test_an_event_without_end_is_refused(pieces: int) -> None:
    events = Events("there")
    piece = b"x" * (MAX_EVENT_BYTES // pieces + 1)
    for _ in range(pieces - 1):
        assert events.feed(piece) == b""
    with pytest.raises(UpstreamBroken, match="an event of more than 8 MiB") as caught:
        events.feed(piece)
    assert caught.value.code == "line_too_long"


def test_errors_that_are_no_events() -> None:
    assert list(payloads(b'error: {"message": "no"}\n\n{"error": 1}\n\n')) == [
        b'{"error":{"message": "no"}}',
        b'{"error": 1}',
    ]


def test_plain_events_become_lines() -> None:
    assert plain_lines(b'data: {"a":1}\n\ndata: {"b":2}\n\n') == b'{"a":1}\n{"b":2}\n\n'
    assert plain_lines(b": ping\n\n") is None
