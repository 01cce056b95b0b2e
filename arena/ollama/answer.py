"""A chat's lines turned into events, as they come off the wire."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from arena.errors import ArenaError, UpstreamBroken
from arena.ollama.failures import error_line, refusal
from arena.ollama.lines import read_object
from arena.types import Batch, Delta, Metrics
from arena.upstream import StreamedAnswer, clean, count, measured
from arena.wire import Headers


class _Message(Struct, gc=False):
    content: str = ""
    thinking: str = ""


class _Line(Struct, gc=False):
    """A plain line. Anything else, an error above all, does not fit and is read with care."""

    message: _Message
    done: bool = False
    error: None = None


_decode_lines = msgspec.json.Decoder(_Line).decode_lines


class ChatAnswer(StreamedAnswer, eq=False):
    """An answer in lines of JSON; the first `done:true` ends it, and nothing else does."""

    PIECE = "a line"

    def _refusal(self, status: int, headers: Headers, body: bytes) -> ArenaError:
        return refusal(status, headers, body, self._framing.endpoint)

    def _plain(self, whole: bytes) -> list[Delta] | None:
        """The text of plain lines, all in one decode; None if there is anything else among them."""
        try:
            items = _decode_lines(whole)
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

    def _read_with_care(self, whole: bytes, events: Batch) -> None:
        """Line by line; the first `done:true` ends the answer, whatever follows. Mostly that is the last line only."""
        cut = whole.rfind(b"\n", 0, -1) + 1
        if cut and (plain := self._plain(whole[:cut])) is not None:
            self._add(events, plain)
            if self._deltas > self._budget.deltas:
                return
            whole = whole[cut:]
        for line in whole.split(b"\n"):
            if (plain := self._plain(line)) is not None:
                self._add(events, plain)
            else:
                self._read_one(line, events)
            if self.finished or self._deltas > self._budget.deltas:
                return

    def _read_one(self, line: bytes, events: Batch) -> None:
        if not line.strip():
            return
        item = read_object(line, self._framing.endpoint)
        if item.get("error") is not None:
            raise error_line(item["error"], self._framing.endpoint)
        if delta := self._delta(item):
            self._add(events, [delta])
        if item.get("done") and self._deltas <= self._budget.deltas:
            events.append(self._finish(partial(counted, item)))

    def _delta(self, item: dict[str, Any]) -> Delta | None:
        message = item.get("message") or {}
        done = item.get("done", False)
        if not isinstance(message, dict) or not isinstance(done, bool) or not ("message" in item or done):
            raise self._malformed()
        text, thinking = message.get("content") or "", message.get("thinking") or ""
        if not isinstance(text, str) or not isinstance(thinking, str):
            raise self._malformed()
        return Delta(self._outlet.instance_id, clean(text), clean(thinking)) if text or thinking else None

    def _malformed(self) -> UpstreamBroken:
        return self._broken("malformed", "sent a line that Ollama would not send")


def counted(item: dict[str, Any], ours: Metrics, contended: bool = False) -> Metrics:
    """Metrics from the last line's counters (nanoseconds there, seconds here) and our own clock's part.

    Ollama leaves out what is zero, and old versions leave out more; a counter that is missing or absurd is None.
    """
    tokens = count(item.get("eval_count"))
    duration_s = _seconds(item, "eval_duration")
    total_s, load_s, prompt_s = (_seconds(item, f"{part}_duration") for part in ("total", "load", "prompt_eval"))
    cached = count(item.get("prompt_eval_cached_count"))
    reason = item.get("done_reason")
    prompt_tokens = count(item.get("prompt_eval_count"))
    # a prompt of no tokens costs nothing; any other cost that is not told is unknown, and so is the rest
    parts = [load_s, prompt_s if prompt_tokens else prompt_s or 0.0, duration_s]
    told = [part for part in parts if part is not None]
    queue_s = max(0.0, total_s - sum(told)) if total_s is not None and len(told) == len(parts) else None
    return replace(
        measured(ours, tokens, duration_s, contended),
        server_total_s=total_s,
        load_s=load_s,
        queue_s=queue_s,
        prompt_tokens=prompt_tokens,
        prompt_s=prompt_s,
        prompt_cached=None if cached is None else cached > 0,
        done_reason=reason if isinstance(reason, str) else None,
        cut_by_limit=reason == "length",
    )


def _seconds(item: dict[str, Any], key: str) -> float | None:
    value = count(item.get(key))
    return None if value is None else value / 1e9
