"""A download's lines turned into progress over all layers."""

from __future__ import annotations

import asyncio
from typing import Any

from arena.errors import UpstreamBroken
from arena.ollama.failures import error_line
from arena.ollama.lines import Lines, read_object
from arena.types import PullProgress
from arena.upstream import ERROR_BYTES, clean, count
from arena.wire import Call

MAX_WAITING = 256
MAX_LAYERS = 4096


class PullAnswer:
    """Collects progress until it is asked for. `succeeded` only after the line that says so."""

    def __init__(self, endpoint: str) -> None:
        self.call: Call | None = None
        self.succeeded = False
        self.error_body = b""
        self._lines = Lines(endpoint)
        self._layers: dict[str, tuple[int, int]] = {}
        self._completed = self._total = 0
        self._waiting: list[PullProgress] = []
        self._news = asyncio.Event()

    def on_data(self, data: bytes) -> None:
        """Bytes of the body. Raises the ArenaError that ends the download."""
        assert self.call is not None
        if self.call.status != 200:
            self.error_body += data
            if len(self.error_body) >= ERROR_BYTES:
                self.call.release()
            return
        try:
            for line in self._lines.feed(data).split(b"\n"):
                if line.strip() and not self.succeeded:
                    self._read(line)
        finally:
            self._news.set()
        if self.succeeded:
            self.call.release()
        elif len(self._waiting) > MAX_WAITING:
            self.call.pause()

    def ended(self, _: object = None) -> None:
        """The call has ended: wake the one who waits."""
        self._news.set()

    def last_line(self) -> None:
        """At the end of the answer: a last line may lack its line end."""
        if rest := self._lines.rest():
            self._read(rest)

    async def news(self) -> list[PullProgress]:
        """Wait for progress; empty when the call has ended."""
        assert self.call is not None
        while not self._waiting and not self.call.done.done():
            await self._news.wait()
            self._news.clear()
        waiting, self._waiting = self._waiting, []
        self.call.resume()
        return waiting

    def _read(self, line: bytes) -> None:
        item = read_object(line, self._lines.endpoint)
        if item.get("error") is not None:
            raise error_line(item["error"], self._lines.endpoint)
        status = item.get("status")
        if not isinstance(status, str):
            raise self._malformed()
        if isinstance(digest := item.get("digest"), str):
            self._count(digest, _size(item, "completed"), _size(item, "total"))
        self._waiting.append(PullProgress(clean(status), self._completed, self._total))
        self.succeeded = status == "success"

    def _count(self, digest: str, completed: int, total: int) -> None:
        """A layer tells its own progress, which may also go back; keep the sums over all."""
        before = self._layers.get(digest, (0, 0))
        self._layers[digest] = (completed, total)
        self._completed += completed - before[0]
        self._total += total - before[1]
        if len(self._layers) > MAX_LAYERS:
            raise self._malformed()

    def _malformed(self) -> UpstreamBroken:
        endpoint = self._lines.endpoint
        text = f"{endpoint} sent a line that is no progress of a download"
        return UpstreamBroken(text, endpoint=endpoint, code="malformed")


def _size(item: dict[str, Any], key: str) -> int:
    return count(item.get(key)) or 0
