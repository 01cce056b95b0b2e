"""A client on raw sockets that breaks every rule: leaves at any stage, dawdles, never reads, sends nonsense.

All sockets block with a time limit, so it is used from a thread (`asyncio.to_thread`) or against another process.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

Parting = Literal["fin", "rst"]


class Stage(StrEnum):
    """Where in a request a client can leave, as far as it can steer that itself.

    Waiting in a queue, for a connection, or for the first byte differ by what upstream does (`fx-hang`, `fx-load`,
    `blackhole`); the client has sent its whole request in all of them, which is REQUEST.
    """

    CONNECTED = "connected"
    IN_HEAD = "in_head"
    IN_BODY = "in_body"
    REQUEST = "request"
    HEAD_READ = "head_read"
    MID_LINE = "mid_line"
    LINES = "lines"
    PAUSED = "paused"
    LAST_TOKEN = "last_token"


class BadClient:
    """One connection to `url`. All sizes are bytes, all times seconds; a late answer raises TimeoutError."""

    def __init__(self, url: str, *, timeout_s: float = 20, receive_buffer: int | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((parts.hostname, parts.port))
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
        """The bytes of a decent request, to be sent whole or in part."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Host": self.host, "Content-Type": "application/json", "Content-Length": str(len(payload))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {**fields, **(headers or {})}.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload

    def read_until(self, mark: bytes) -> bytes:
        """Everything received so far once it holds `mark`; raises EOFError when the answer ends before."""
        while mark not in self.received:
            self._more(mark)
        return self.received

    def _more(self, wanted: bytes) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"no {wanted!r} after {self.received[-200:]!r}")
        self.received += data

    def read_all(self) -> bytes:
        """Everything until the other side closes."""
        while data := self.socket.recv(65536):
            self.received += data
        return self.received

    def closed_by_server(self) -> bool:
        """Wait until the server closes or resets; False when it does not in time."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True

    def leave(self, how: Parting = "fin") -> None:
        """Close with FIN or RST; after FIN the descriptor stays for now, since unread bytes would turn it into RST."""
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def advance_to(self, stage: Stage, request: bytes, *, lines: int = 2, last: bytes = b'"done":true') -> None:
        """Send and read up to `stage` of the request, then stand still there.

        PAUSED reads nothing more once the answer began, so the server's buffers fill; LAST_TOKEN reads up to `last`.
        """
        head_end = request.index(b"\r\n\r\n") + 4
        match stage:
            case Stage.CONNECTED:
                return
            case Stage.IN_HEAD:
                self.send(request[: head_end // 2])
                return
            case Stage.IN_BODY:
                self.send(request[: (head_end + len(request)) // 2])
                return
        self.send(request)
        match stage:
            case Stage.HEAD_READ:
                self.read_until(b"\r\n\r\n")
            case Stage.MID_LINE | Stage.PAUSED:
                self.read_until(b'{"')
            case Stage.LINES:
                while self.received.count(b"}\n") < lines:
                    self._more(b"another line")
            case Stage.LAST_TOKEN:
                self.read_until(last)


def dawdling_shapes(host: str, path: str = "/api/chat") -> dict[str, tuple[bytes, bytes]]:
    """The slow-loris shapes: what is sent at once, and what is then sent a byte at a time for ever (may be empty)."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n".encode()
    return {
        "silent": (b"", b""),
        "half_head": (head, b""),
        "trickled_head": (head, b"X-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        "stalled_body": (head + b"Content-Length: 1000\r\n\r\n{", b""),
        "trickled_body": (head + b"Content-Length: 1000\r\n\r\n", b'{"model":"' + b"x" * 900),
    }


def framing_attacks(host: str, path: str = "/api/chat") -> dict[str, bytes]:
    """Whole requests that a strict server refuses with a 4xx or 501, or closes: by name."""
    start = f"POST {path} HTTP/1.1\r\n".encode()
    named = f"Host: {host}\r\n".encode()
    body = b'{"model":"fx-ok"}'
    length = b"Content-Length: %d\r\n" % len(body)
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return {
        "no_host": start + length + b"\r\n" + body,
        "two_hosts": start + named + b"Host: evil.example\r\n" + length + b"\r\n" + body,
        "length_and_chunked": start + named + length + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        "two_lengths": start + named + length + b"Content-Length: 3\r\n\r\n" + body,
        "negative_length": start + named + b"Content-Length: -1\r\n\r\n" + body,
        "length_is_no_number": start + named + b"Content-Length: +17\r\n\r\n" + body,
        "list_of_codings": start + named + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunks,
        "folded_header": start + named + b"X-Fold: a\r\n b\r\n" + length + b"\r\n" + body,
        "bare_line_feeds": (start + named + length + b"\r\n").replace(b"\r\n", b"\n") + body,
        "bare_carriage_return": start + named + b"X-Bare: a\rb\r\n" + length + b"\r\n" + body,
        "space_before_colon": start + named + b"Content-Length : 17\r\n\r\n" + body,
        "nul_in_header": start + named + b"X-Nul: a\0b\r\n" + length + b"\r\n" + body,
        "bad_chunk_size": start + named + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body,
        "http_0_9": b"GET /\r\n\r\n",
        "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls_hello": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        "33_kib_header": start + named + b"X-Big: " + b"x" * (33 * 1024) + b"\r\n" + length + b"\r\n" + body,
        "101_headers": start + named + b"".join(b"X-%d: 1\r\n" % i for i in range(101)) + length + b"\r\n" + body,
        "9_kib_target": b"GET /" + b"x" * (9 * 1024) + b" HTTP/1.1\r\n" + named + b"\r\n",
    }
