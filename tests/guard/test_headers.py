"""Headers that are remembered in lines: each answer has those of its own place, and no other's."""

from __future__ import annotations

from itertools import product

import pytest

from arena.exchange import Headers, header_lines
from arena.guard import headers as module
from arena.guard.headers import SafetyHeaders
from arena.guard.request import Request

ANSWERS: tuple[Headers, ...] = (
    [(b"content-type", b"application/json"), (b"content-length", b"2"), (b"x-frame-options", b"ALLOW")],
    [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"max-age=9"), (b"set-cookie", b"a=1")],
)


def request(number: int, path: str, origin: bytes | None) -> Request:
    return Request(f"id{number}", path, "GET", b"", False, {}, allowed_origin=origin)


def test_lines_are_the_headers_of_the_same_answer_to_the_same_place() -> None:
    safety = SafetyHeaders(on_a_space=False)
    for _ in range(2):
        places = product(("/api/chat", "/"), (None, b"https://a.example", b"https://b.example"), ANSWERS)
        for number, (path, origin, answer) in enumerate(places):
            asked = request(number, path, origin)
            assert safety.dress_lines(asked, answer) == header_lines(safety.dress(asked, answer))


def test_no_more_than_some_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Headers] = []

    def write(headers: Headers) -> bytes:
        written.append(headers)
        return header_lines(headers)

    monkeypatch.setattr(module, "MAX_DRESSED", 4)
    monkeypatch.setattr(module, "header_lines", write)
    safety = SafetyHeaders(on_a_space=False)
    for length, times in (("1", 1), ("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5), ("1", 6)):
        safety.dress_lines(request(0, "/api/chat", None), [(b"content-length", length.encode())])
        assert len(written) == times
