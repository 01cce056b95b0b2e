"""A request's head, judged as bytes before any parser sees it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from arena.server.limits import Limits

END: Final = b"\r\n\r\n"
PLAIN_BYTES: Final = 2048
PLAIN_HEADERS: Final = 32
# what nearly every head is: nothing to look for in it
_PLAIN = re.compile(
    rb"[A-Z]+ /[!-~]* HTTP/1\.1\r\n(?:[!#-'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n){1,%d}\r\n" % PLAIN_HEADERS
)
# scheme and authority before a path, as proxies are asked; https is none of ours without a gateway, which leaves it out
_ABSOLUTE = re.compile(rb"([!-~]+ )[Hh][Tt][Tt][Pp]://(?!:)([!-\"$-.0->@-~]+)(?=[/? ])/?")
_HOSTLESS = re.compile(_ABSOLUTE.pattern + rb"[!-~]* HTTP/1\.0\r\n")  # which knew no Host yet
_VERSIONS = (b" HTTP/1.1", b" HTTP/1.0")
_HOST = re.compile(rb"\r\nhost:[^\r]*", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*", re.IGNORECASE)


class Flaw(Struct, frozen=True):
    """Why a head is refused."""

    status: int
    message: str
    code: str = "bad_request"


LINE_TOO_LONG: Final = Flaw(HTTPStatus.REQUEST_URI_TOO_LONG, "The request line is too long", "uri_too_long")
HEAD_TOO_LARGE: Final = Flaw(431, "The request head is too large", "head_too_large")
TOO_MANY_HEADERS: Final = Flaw(431, "The request has too many headers", "head_too_large")
BAD_LINES: Final = Flaw(400, "The lines of the request head are not valid HTTP")
BAD_TARGET: Final = Flaw(400, "The request line must name a method, a path and the HTTP version")
BAD_HOST: Final = Flaw(400, "A request must have exactly one Host header")
NO_FLAW: Final = Flaw(HTTPStatus.NO_CONTENT, "", "")
"""What is asked is of no application, but of the server as a whole: which methods it knows (RFC 9110, 9.3.7)."""
_OF_THE_SERVER: Final = tuple(b"OPTIONS *%b\r\n" % version for version in _VERSIONS)


def partial_flaw(head: bytes | bytearray, limits: Limits) -> Flaw | None:
    """What is wrong with a head of which the end has not arrived, if that is already certain."""
    if len(head) > limits.request_line_bytes and head.find(b"\r\n", 0, limits.request_line_bytes + 2) < 0:
        return LINE_TOO_LONG
    if len(head) > limits.head_bytes:
        return HEAD_TOO_LARGE
    return BAD_LINES if head.count(b"\n") != head.count(b"\r\n") else None


def flaw(head: bytes, limits: Limits) -> Flaw | None:
    """What is wrong with a complete head: its size, its lines, its target or its Host. NO_FLAW asks no application.

    Bare CR or LF and folded headers are read differently by different servers: that is how requests are smuggled.
    """
    plain = len(head) <= PLAIN_BYTES <= limits.request_line_bytes and limits.headers >= PLAIN_HEADERS
    if not (plain and _PLAIN.fullmatch(head)):
        wrong = _careful_flaw(head, limits)
        if wrong is not None:
            return wrong
    hosts = head.lower().count(b"\r\nhost:")
    if hosts != 1 and (hosts or not _HOSTLESS.match(head)):
        return BAD_HOST
    return NO_FLAW if head.startswith(_OF_THE_SERVER) else None


def _careful_flaw(head: bytes, limits: Limits) -> Flaw | None:
    line = head[: head.find(b"\r\n")]
    if len(line) > limits.request_line_bytes:
        return LINE_TOO_LONG
    if len(head) > limits.head_bytes:
        return HEAD_TOO_LARGE
    lines = head.count(b"\r\n")
    if lines - 2 > limits.headers:
        return TOO_MANY_HEADERS
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\r\n " in head or b"\r\n\t" in head:
        return BAD_LINES
    if b"\0" in head:
        return BAD_LINES
    target = line.partition(b" ")[2].startswith(b"/") or head.startswith(_OF_THE_SERVER) or _ABSOLUTE.match(line)
    return None if target and line.endswith(_VERSIONS) else BAD_TARGET  # the parser takes any version, and none


def in_origin_form(head: bytes) -> bytes:
    """A sound head with its target as a path, of which the authority, if the target names one, is the Host.

    So RFC 9112 wants it (3.2.2), and whoever judges the Host judges what the target says.
    """
    if head.startswith(b"/", head.find(b" ") + 1) or (absolute := _ABSOLUTE.match(head)) is None:
        return head
    method, authority = absolute.groups()
    line, _, headers = head[absolute.end() :].partition(b"\r\n")
    return b"%b/%b\r\nHost: %b%b" % (method, line, authority, _HOST.sub(b"", b"\r\n" + headers))


def without_upgrade(head: bytes) -> bytes:
    """The head without an offer to change the protocol: we decline by answering in the one it came in."""
    return _UPGRADE.sub(b"", head) if b"\r\nupgrade:" in head.lower() else head
