"""What the server says in the application's place, to a request that never became one."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Final, Protocol, runtime_checkable

from arena.exchange import Headers, header_lines
from arena.server.head import NO_FLAW, Flaw

NOT_HTTP: Final = Flaw(400, "The request is not valid HTTP")
TOO_SLOW: Final = Flaw(HTTPStatus.REQUEST_TIMEOUT, "The request took too long to arrive", "timeout")
CROWDED: Final = Flaw(HTTPStatus.SERVICE_UNAVAILABLE, "The server has too many connections; try again", "busy")
BUG: Final = Flaw(HTTPStatus.INTERNAL_SERVER_ERROR, "An unexpected error occurred", "internal")

MAX_PATH_BYTES: Final = 1024
_PATH: Final = re.compile(rb"[A-Z]+ (?:[Hh][Tt][Tt][Pp]://[^/? ]*)?(/[!->@-~]{0,%d})" % MAX_PATH_BYTES)
_METHODS: Final = (
    b"HTTP/1.1 204 No Content\r\nallow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\nconnection: close\r\n\r\n"
)


@runtime_checkable
class Wording(Protocol):
    """An application that says how clients of a path are told that they are refused."""

    def refusal(self, path: str, status: int, message: str, code: str) -> tuple[Headers, bytes]:
        """Headers (the type of the body among them) and body; `path` is "" where none was read."""


class Plain:
    """The words where the application has none of its own."""

    def refusal(self, path: str, status: int, message: str, code: str) -> tuple[Headers, bytes]:
        """JSON, as it is told everywhere."""
        body = json.dumps({"error": message, "code": code}).encode()
        kind = (b"content-type", b"application/json")
        return [kind, (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")], body


def path_in(head: bytes | bytearray) -> str:
    """The path that a head, or the beginning of one, asks for, as far as it can be read; else ""."""
    found = _PATH.match(head)
    return "" if found is None else found[1].decode("ascii")


def answer_to(wrong: Flaw, path: str, wording: Wording) -> bytes:
    """The whole answer, after which the connection is closed."""
    if wrong is NO_FLAW:
        return _METHODS
    headers, body = wording.refusal(path, wrong.status, wrong.message, wrong.code)
    headers = [*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    if wrong.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    status = f"HTTP/1.1 {wrong.status} {HTTPStatus(wrong.status).phrase}\r\n".encode("ascii")
    return b"%b%b\r\n%b" % (status, header_lines(headers), body)
