"""Newline-delimited JSON as Ollama writes it: cut at byte 0x0A and nothing else, then read with care."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from arena.errors import UpstreamBroken
from arena.upstream import any_json

MAX_LINE_BYTES = 8 * 1024 * 1024
NOT_OLLAMA = "is not an Ollama server: it answered with a web page"


class Lines(Struct, eq=False):
    """Hands on whole lines and keeps the half one. U+0085 and U+2028 are text, not line ends."""

    __repr__ = object.__repr__  # what a request holds is not for the log

    endpoint: str
    _tail: list[bytes] = []
    _size_bytes: int = 0

    def feed(self, data: bytes) -> bytes:
        """Everything up to the last line end so far, or nothing. Raises UpstreamBroken for a line over 8 MiB."""
        cut = data.rfind(b"\n") + 1
        if cut and not self._tail:
            whole = data if cut == len(data) else data[:cut]
        else:
            self._check(data.find(b"\n") if cut else len(data))
            if not cut:
                self._keep(data)
                return b""
            whole = b"".join([*self._tail, data[:cut]])
            self._tail.clear()
            self._size_bytes = 0
        if cut < len(data):
            self._keep(data[cut:])
        return whole

    def rest(self) -> bytes:
        """The half line at the end."""
        return b"".join(self._tail).strip()

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._size_bytes += len(data)

    def _check(self, more_bytes: int) -> None:
        if self._size_bytes + more_bytes > MAX_LINE_BYTES:
            self._tail.clear()
            text = f"{self.endpoint} sent a line of more than {MAX_LINE_BYTES // 1024 // 1024} MiB"
            raise UpstreamBroken(text, endpoint=self.endpoint, code="line_too_long")


def read_object(line: bytes, endpoint: str) -> dict[str, Any]:
    """The JSON object in `line`, as `any_json` reads it. Raises UpstreamBroken "malformed", or for a web page."""
    value = any_json(line)
    if isinstance(value, dict):
        return value
    if line.lstrip()[:1] == b"<":
        raise UpstreamBroken(f"{endpoint} {NOT_OLLAMA}", endpoint=endpoint, code="not_ollama")
    raise UpstreamBroken(f"{endpoint} sent something that is not Ollama's JSON", endpoint=endpoint, code="malformed")
