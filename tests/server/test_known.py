"""Heads that are remembered: which are, for how long, and what they say of the next request."""

from __future__ import annotations

from typing import Any

import pytest

from arena.exchange import Inbound, Sink
from arena.server.known import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADS, KnownHeads


def begin(inbound: Inbound, body: bytes, sink: Sink) -> None:
    """What answers them all."""


def head(number: int = 0, length: bytes | None = b"5", filler: bytes = b"") -> bytes:
    lines = b"" if length is None else b"Content-Length:%b\r\n" % length
    return b"POST /%d HTTP/1.1\r\nHost: h\r\nX-A: %b\r\n%b\r\n" % (number, filler, lines)


def kept(known: KnownHeads, text: bytes, size: int) -> dict[str, Any]:
    """`known` with one more head; returns the scope it came with."""
    scope = {
        "client": ("1.1.1.1", 1),
        "scheme": "http",
        "headers": [(b"host", b"h"), (b"content-length", b"%d" % size)],
    }
    known.keep(text, begin, scope, size, keep_alive=True)
    return scope


def test_a_head_with_a_body_of_another_length_is_known_too() -> None:
    known = KnownHeads()
    scope = kept(known, head(length=b" 5"), 5)
    assert known.find(head(1)) is None
    same, alike = known.find(head(length=b" 5")), known.find(head(length=b" 70"))
    assert same is not None
    assert alike is not None
    assert (same.size, same.scope) == (5, scope)
    assert (alike.size, alike.scope["headers"]) == (70, [(b"host", b"h"), (b"content-length", b"70")])
    assert alike is known.find(head(length=b" 70"))
    there = alike.scope_of(("2.2.2.2", 2), "https")
    assert (there["client"], there["scheme"], there["headers"]) == (("2.2.2.2", 2), "https", alike.scope["headers"])
    assert alike.scope["client"] == ("1.1.1.1", 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (head(length=b"  5"), 5),
        (head(length=b" 0000000005"), 5),
        (head(filler=b"x" * MAX_HEAD_BYTES), 5),
        (head(length=b" %d" % (MAX_BODY_BYTES + 1)), MAX_BODY_BYTES + 1),
    ],
    ids=["read otherwise", "too many digits", "a long head", "a long body"],
)
def test_what_is_not_remembered(text: bytes, size: int) -> None:
    known = KnownHeads()
    kept(known, text, size)
    assert known.find(text) is None


def test_a_known_head_with_too_long_a_body_is_none() -> None:
    known = KnownHeads()
    kept(known, head(length=b" 5"), 5)
    assert known.find(head(length=b" %d" % MAX_BODY_BYTES)) is not None
    assert known.find(head(length=b" %d" % (MAX_BODY_BYTES + 1))) is None


def test_the_oldest_makes_room() -> None:
    known = KnownHeads()
    for number in range(MAX_HEADS + 1):
        kept(known, head(number, None), 0)
    assert known.find(head(0, None)) is None
    assert known.find(head(1, None)) is not None
