"""A chat's lines turned into events, as they come off the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from arena.errors import BudgetExceeded, UpstreamBroken, UpstreamTimeout
from arena.ollama.failures import ERROR_BYTES, error_line, refusal
from arena.ollama.lines import Lines, clean, read_object
from arena.streaming import Outlet
from arena.types import Batch, Delta, Finished, Metrics
from arena.wire import Call

RELIABLE_TOKENS = 16
RELIABLE_S = 0.001


class Budget(Struct, frozen=True):
    """What one answer may cost: pieces of text, and bytes on the wire."""

    deltas: int
    size_bytes: int


class _Message(Struct, gc=False):
    content: str = ""
    thinking: str = ""


class _Line(Struct, gc=False):
    """A plain line. Anything else, an error above all, does not fit and is read with care."""

    message: _Message
    done: bool = False
    error: None = None


_decode_lines = msgspec.json.Decoder(_Line).decode_lines


class Stopwatch(Struct, eq=False):
    """Our own clock's part of the metrics, in seconds since the request was sent."""

    __repr__ = object.__repr__  # what a request holds is not for the log

    _clock: Callable[[], float]
    _start_s: float
    first_s: float | None = None
    visible_s: float | None = None

    def mark(self, deltas: list[Delta]) -> None:
        """Note when the first token, and the first of the answer itself, came."""
        now_s = self._clock() - self._start_s
        if self.first_s is None:
            self.first_s = now_s
        for delta in deltas:
            if delta.text:
                self.visible_s = now_s
                return

    def metrics(self) -> Metrics:
        """What is known without the server's counters."""
        return Metrics(ttft_s=self.first_s, first_visible_s=self.visible_s, total_s=self._clock() - self._start_s)


class ChatAnswer(Struct, eq=False):
    """Takes the body's bytes and pushes events into an outlet: one decode and one `put` a read.

    Reads with the answer's end, an error, or anything unusual are read again line by line, with care.
    """

    __repr__ = object.__repr__  # what a request holds is not for the log

    _lines: Lines
    _outlet: Outlet
    _watch: Stopwatch
    _budget: Budget
    _contended: Callable[[], bool] | None
    call: Call | None = None
    finished: bool = False
    _bytes: int = 0
    _deltas: int = 0
    _error_body: bytes = b""

    def on_data(self, data: bytes) -> None:
        """Bytes of the body. Raises the ArenaError that ends the answer; what came before it is put first."""
        assert self.call is not None
        if self.call.status != 200:
            self._keep_error(data)
            return
        self._bytes += len(data)
        if whole := self._lines.feed(data):
            self._read(whole, len(data))
        if self._bytes > self._budget.size_bytes and not self.finished:
            self._over(f"{self._budget.size_bytes} bytes")

    async def result(self) -> None:
        """Wait until the answer is complete. Raises what else its end was, BudgetExceeded included."""
        assert self.call is not None
        try:
            await self.call.done
            self.ended()
        except UpstreamTimeout as error:
            if error.code == "total_timeout":
                raise BudgetExceeded(f"The answer was cut: {error.message}.", endpoint=self._lines.endpoint) from error
            self.ended(error)
        except UpstreamBroken as error:
            self.ended(error)

    def close(self) -> None:
        """Hang up at once, unless the answer is complete."""
        if self.call is not None:
            self.call.cancel()

    def ended(self, error: UpstreamBroken | UpstreamTimeout | None = None) -> None:
        """The call has ended. Only `done:true` is success: raises what else it was."""
        if self.finished:
            return
        assert self.call is not None
        endpoint = self._lines.endpoint
        if self.call.status not in (0, 200):
            raise refusal(self.call.status, self.call.headers, self._error_body, endpoint)
        if error is not None and error.code != "upstream_eof":
            raise error
        rest = self._lines.rest()
        if not rest:
            text = f"{endpoint} ended its answer without saying that it is complete"
            raise error or UpstreamBroken(text, endpoint=endpoint, code="upstream_eof")
        try:
            self._read(rest, len(rest))  # a last line may lack its line end
        except UpstreamBroken as broken:
            if broken.code != "malformed":
                raise
        if not self.finished:
            text = f"{endpoint} ended its answer in the middle of a line"
            raise UpstreamBroken(text, endpoint=endpoint, code="upstream_truncated")

    def _read(self, lines: bytes, size_bytes: int) -> None:
        events: Batch = []
        try:
            plain = self._plain(lines)
            if plain is not None:
                self._add(events, plain)
            else:
                self._read_with_care(lines, events)
        finally:
            self._outlet.put(events, size_bytes)
        if self.finished:
            assert self.call is not None
            self.call.release()
        elif self._deltas > self._budget.deltas:
            self._over(f"{self._budget.deltas} pieces of text")

    def _plain(self, lines: bytes) -> list[Delta] | None:
        """The text of plain lines, all in one decode; None if there is anything else among them."""
        try:
            items = _decode_lines(lines)
        except (ValueError, RecursionError):
            return None
        name = self._outlet.instance_id
        deltas = []
        for item in items:
            if item.done:
                return None
            message = item.message
            if message.content or message.thinking:
                deltas.append(Delta(name, message.content, message.thinking))
        return deltas

    def _add(self, events: Batch, deltas: list[Delta]) -> None:
        """Take `deltas` in, as far as the budget goes."""
        if self._watch.visible_s is None and deltas:
            self._watch.mark(deltas)
        events += deltas
        self._deltas += len(deltas)
        if self._deltas > self._budget.deltas:
            del events[self._budget.deltas - self._deltas :]

    def _read_with_care(self, lines: bytes, events: Batch) -> None:
        """Line by line; the first `done:true` ends the answer, whatever follows. Mostly that is the last line only."""
        cut = lines.rfind(b"\n", 0, -1) + 1
        if cut and (plain := self._plain(lines[:cut])) is not None:
            self._add(events, plain)
            if self._deltas > self._budget.deltas:
                return
            lines = lines[cut:]
        for line in lines.split(b"\n"):
            if (plain := self._plain(line)) is not None:
                self._add(events, plain)
            else:
                self._read_one(line, events)
            if self.finished or self._deltas > self._budget.deltas:
                return

    def _read_one(self, line: bytes, events: Batch) -> None:
        if not line.strip():
            return
        item = read_object(line, self._lines.endpoint)
        if item.get("error") is not None:
            raise error_line(item["error"], self._lines.endpoint)
        if delta := self._delta(item):
            self._add(events, [delta])
        if item.get("done") and self._deltas <= self._budget.deltas:
            events.append(Finished(self._outlet.instance_id, self._metrics(item)))
            self.finished = True

    def _delta(self, item: dict[str, Any]) -> Delta | None:
        message = item.get("message") or {}
        done = item.get("done", False)
        if not isinstance(message, dict) or not isinstance(done, bool) or not ("message" in item or done):
            raise self._malformed()
        text, thinking = message.get("content") or "", message.get("thinking") or ""
        if not isinstance(text, str) or not isinstance(thinking, str):
            raise self._malformed()
        return Delta(self._outlet.instance_id, clean(text), clean(thinking)) if text or thinking else None

    def _metrics(self, item: dict[str, Any]) -> Metrics:
        contended = self._contended() if self._contended is not None else False
        return counted(item, self._watch.metrics(), contended)

    def _malformed(self) -> UpstreamBroken:
        endpoint = self._lines.endpoint
        return UpstreamBroken(f"{endpoint} sent a line that Ollama would not send", endpoint=endpoint, code="malformed")

    def _over(self, limit: str) -> None:
        raise BudgetExceeded(f"The answer was cut at {limit}.", endpoint=self._lines.endpoint)

    def _keep_error(self, data: bytes) -> None:
        self._error_body += data
        if len(self._error_body) >= ERROR_BYTES and self.call is not None:
            self.call.release()


def counted(item: dict[str, Any], ours: Metrics, contended: bool = False) -> Metrics:
    """Metrics from the last line's counters (nanoseconds there, seconds here) and our own clock's part.

    Ollama leaves out what is zero, and old versions leave out more; a counter that is missing or absurd is None.
    """
    tokens = _count(item, "eval_count")
    duration_s = _seconds(item, "eval_duration")
    total_s, load_s, prompt_s = (_seconds(item, f"{part}_duration") for part in ("total", "load", "prompt_eval"))
    cached = _count(item, "prompt_eval_cached_count")
    reason = item.get("done_reason")
    measurable = bool(tokens) and duration_s is not None and duration_s >= RELIABLE_S
    prompt_tokens = _count(item, "prompt_eval_count")
    # a prompt of no tokens costs nothing; any other cost that is not told is unknown, and so is the rest
    parts = [load_s, prompt_s if prompt_tokens else prompt_s or 0.0, duration_s]
    told = [part for part in parts if part is not None]
    queue_s = max(0.0, total_s - sum(told)) if total_s is not None and len(told) == len(parts) else None
    return Metrics(
        tokens=tokens,
        duration_s=duration_s,
        tokens_per_sec=tokens / duration_s if measurable and tokens and duration_s else None,
        rate_reliable=measurable and (tokens or 0) >= RELIABLE_TOKENS and not contended,
        ttft_s=ours.ttft_s,
        first_visible_s=ours.first_visible_s,
        total_s=ours.total_s,
        server_total_s=total_s,
        load_s=load_s,
        queue_s=queue_s,
        prompt_tokens=prompt_tokens,
        prompt_s=prompt_s,
        prompt_cached=None if cached is None else cached > 0,
        done_reason=reason if isinstance(reason, str) else None,
        cut_by_limit=reason == "length",
        contended=contended,
    )


def _count(item: dict[str, Any], key: str) -> int | None:
    value = item.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _seconds(item: dict[str, Any], key: str) -> float | None:
    value = _count(item, key)
    return None if value is None else value / 1e9
