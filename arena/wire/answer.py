"""One HTTP/1.1 answer, parsed as its bytes come in. No I/O.

llhttp does the framing in C. `on_body` is a list's own `append` and `on_header` a dict's own `__setitem__`: neither a
chunk of the body nor a header costs a Python frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

HEAD_BYTES = 64 * 1024
"""Room for status line and headers, 1xx answers included, and for framing that carries no body."""

Headers = tuple[tuple[str, str], ...]
RawHeaders = list[tuple[bytes, bytes]]
"""Names in lower case, in the order in which they came."""

# what nearly every line of a head is: nothing in it is read in two ways
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [\t -~]*")
_FIELD: Final = re.compile(rb"([!#-'*+.^_`|~0-9A-Za-z-]+):([\t -~]*)")
PLAIN_BYTES: Final = 4096
"""A longer head is no plain one: its lines would be a burden to remember."""
UNREAD: Final = (b"", b"")
FRAMING: Final = frozenset({UNREAD[0], b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade"})
"""Headers with which an answer is not plain."""
_BODYLESS: Final = (204, 304)
_NEVER: Final = (0, *_BODYLESS)


class Plain(Struct, frozen=True):
    """A whole answer with nothing in its head that could be read in two ways."""

    status: int
    fields: RawHeaders
    body: bytes


def plain(data: bytes, method: str, unless: frozenset[bytes] = FRAMING) -> Plain | None:
    """`data` as the answer to `method`, if that is all there in one piece and needs no parser; else None.

    So it is not if it has a header in `unless`, or two that tell of its length.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > PLAIN_BYTES or method == "HEAD":
        return None
    status, fields, length = _plain_head(data[:end], unless)
    body = data[end + 4 :]
    return Plain(status, [*fields], body) if length == len(body) else None


@lru_cache(512)
def _plain_head(head: bytes, unless: frozenset[bytes]) -> tuple[int, RawHeaders, int]:
    """Status and headers of a plain head, and the bytes of the body it announces: -1 for one that is not plain.

    An endpoint under load sends the same one many times in a second.
    """
    first, *lines = head.split(b"\r\n")
    status = _status(first)
    fields = [_field(line) for line in lines]
    length = -1
    for name, value in fields:
        if name == b"content-length" and length < 0 and value.isdigit():
            length = int(value)
        elif name == b"content-length" or name in unless:
            return status, fields, -1
    return status, fields, -1 if status in _NEVER else length


@lru_cache(512)
def _field(line: bytes) -> tuple[bytes, bytes]:
    """A header line as (name in lower case, value); `UNREAD` for one that is not plain.

    An endpoint sends the same ones again and again.
    """
    found = _FIELD.fullmatch(line)
    return UNREAD if found is None else (found[1].lower(), found[2].strip(b" \t"))


@lru_cache(64)
def _status(line: bytes) -> int:
    """The status that a plain status line tells; 0 for one that is not plain."""
    found = _STATUS.fullmatch(line)
    return 0 if found is None else int(found[1])


class Answer:
    """The parser's callbacks and what they found. After the head, `status` is set and `headers` have lower-case names.

    `begun` tells that some of it, beyond interim answers, is there. `error` says why it cannot be trusted; `surplus`
    that bytes came after its end, so that the connection must not serve another; `until_eof` that only the end of the
    connection ends it.
    """

    __slots__ = (
        "_body_parts",
        "_bodyless",
        "_found",
        "_idle_bytes",
        "_is_head_request",
        "_parser",
        "_parts",
        "_room",
        "begun",
        "complete",
        "error",
        "headers",
        "keep_alive",
        "on_body",
        "on_header",
        "raw_headers",
        "status",
        "surplus",
        "until_eof",
    )

    def __init__(self, method: str, on_header: Callable[[bytes, bytes], None] | None = None) -> None:
        """`on_header` gets the headers as they come, trailers too; without it the last one of a name is kept."""
        self.status = 0
        self.headers: Headers = ()
        self.raw_headers: RawHeaders = []
        self.begun = self.complete = self.keep_alive = self.surplus = self.until_eof = False
        self.error: str | None = None
        self._is_head_request = self._bodyless = method == "HEAD"
        self._found: dict[bytes, bytes] = {}
        self._room = HEAD_BYTES
        self._idle_bytes = 0
        self._parts: list[bytes] = []
        self._body_parts = 0
        self.on_body = self._parts.append
        self.on_header = on_header or self._found.__setitem__
        self._parser = HttpResponseParser(self)

    @property
    def untouched(self) -> bool:
        """Has not a single byte come in?"""
        return self._room == HEAD_BYTES

    def feed(self, data: bytes) -> bytes:
        """Parse `data`; returns the bytes of the body in it. Look at `error` and `complete` afterwards."""
        if not self.status:
            data = self._feed_head(data)
            if not data:
                return self._take()
        self._parse(data)
        parts = self._parts
        if parts:
            self._idle_bytes = 0
            if len(parts) == 1 and not self.complete:
                return parts.pop()
        elif not self.complete:
            self._idle_bytes += len(data)
            if self._idle_bytes > HEAD_BYTES:
                self.error = "framing without content"
        return self._take()

    def close(self) -> None:
        """No more will come: answer and parser let go of each other, lest they wait for the collector of garbage."""
        del self._parser, self.on_header

    def _feed_head(self, data: bytes) -> bytes:
        """Parse no more than a head may have; returns what is left of `data`."""
        first = data[: self._room]
        self._room -= len(first)
        self._parse(first)
        if not self.status and not self._room and self.error is None:
            self.error = f"head over {HEAD_BYTES // 1024} KiB"
        return b"" if self.error else data[len(first) :]

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self.complete:
                self.surplus = True
            elif self.error is None:
                self.error = str(error)

    def _take(self) -> bytes:
        """The body in what was parsed last: without anything that followed the answer's end."""
        parts = self._parts
        if self.complete:
            if len(parts) > self._body_parts:
                self.surplus = True
                del parts[self._body_parts :]
            self._body_parts = 0
        body = b"".join(parts)
        parts.clear()
        return body

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of a status line."""
        self.begun = True
        if self.complete:
            self.surplus = True

    def on_headers_complete(self) -> None:
        """Called by the parser at the end of the head. Only here does it know whether the connection may live on."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status < 600 or status == 101:
            self.error = "switched protocols unasked" if status == 101 else "no such status"
            return
        if status < 200:
            self.begun = False
            self._interim()
            return
        self.status = status
        self._bodyless = status in _BODYLESS or self._is_head_request
        self._begun()
        self.keep_alive = self._parser.should_keep_alive()
        if self._is_head_request:
            self._end()

    def on_message_complete(self) -> None:
        """Called by the parser at the end of an answer, interim ones (1xx) included."""
        if self.status:
            self._end()

    def _end(self) -> None:
        if not self.complete:
            self.complete = True
            self._body_parts = len(self._parts)

    def _interim(self) -> None:
        """An interim answer's headers mean nothing."""
        self._found.clear()

    def _begun(self) -> None:
        """The headers of the final answer are all there: keep them, and check what they say of the body."""
        fields = {
            name.lower().decode("latin-1"): value.decode("latin-1").strip(" \t") for name, value in self._found.items()
        }
        self.headers = tuple(fields.items())
        coding = fields.get("transfer-encoding")
        if coding is not None and coding.strip().lower() != "chunked":
            self.error = "unknown transfer coding"
        if fields.get("content-encoding", "").strip().lower() not in ("", "identity"):
            self.error = "compressed, though that was not asked for"
        self.until_eof = coding is None and "content-length" not in fields and not self._bodyless
