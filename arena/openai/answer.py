"""A chat's events turned into ours, as they come off the wire."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from arena.errors import ArenaError, UpstreamBroken
from arena.openai.body import REFUSING
from arena.openai.events import DONE, payloads, plain_lines
from arena.openai.failures import failed, read_object, refusal
from arena.openai.usage import Told, counted
from arena.types import Batch, Delta, Finished
from arena.upstream import StreamedAnswer, clean
from arena.wire import Headers


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None  # llama.cpp, vLLM, LM Studio
    reasoning: str | None = None  # Ollama, OpenRouter, newer vLLM


class _Choice(Struct, gc=False):
    delta: _Delta
    finish_reason: None = None


class _Chunk(Struct, gc=False):
    """A plain event. Anything else, the end and errors above all, does not fit and is read with care."""

    choices: tuple[_Choice]
    error: None = None
    usage: None = None
    timings: None = None


_decode_lines = msgspec.json.Decoder(_Chunk).decode_lines


class ChatAnswer(StreamedAnswer, eq=False):
    """An answer in events, complete when a finish_reason was seen; what it cost may come after it, until [DONE].

    `ask_again` gets the body of a refusal and sends the request anew (True) if it was refused for what can be left out.
    """

    PIECE = "an event"

    ask_again: Callable[[bytes], bool] | None = None
    _told: Told = msgspec.field(default_factory=Told)

    def _refusal(self, status: int, headers: Headers, body: bytes) -> ArenaError:
        return refusal(status, headers, body, self._framing.endpoint)

    def _asked_again(self) -> bool:
        assert self.call is not None
        if self.call.status not in REFUSING or self.ask_again is None or not self.ask_again(self._error_body):
            return False
        self._error_body = b""
        return True

    def _complete(self) -> bool:
        """Then the server only did not say how much it cost."""
        if self._told.finish_reason is None:
            return False
        self._outlet.put([self._finish(partial(counted, self._told))])
        return True

    def _plain(self, whole: bytes) -> list[Delta] | None:
        """The text of plain events, all in one decode; None if there is anything else among them."""
        lines = plain_lines(whole)
        if lines is None:
            return None
        try:
            items = _decode_lines(lines)
        except (ValueError, RecursionError):
            return None
        name = self._outlet.instance_id
        deltas = []
        for item in items:
            delta = item.choices[0].delta
            thinking = delta.reasoning_content or delta.reasoning
            if delta.content or thinking:
                deltas.append(Delta(name, delta.content or "", thinking or ""))
        return deltas

    def _read_with_care(self, whole: bytes, events: Batch) -> None:
        """Event by event; [DONE] ends the answer, whatever follows."""
        for data in payloads(whole):
            if data == DONE:
                events.append(self._done())
            elif (plain := self._plain(b"data: " + data)) is not None:
                self._add(events, plain)
            else:
                self._read_one(data, events)
            if self.finished or self._deltas > self._budget.deltas:
                return

    def _done(self) -> Finished:
        if self._told.finish_reason is None:
            raise self._broken("upstream_eof", "ended its answer without saying why it ended")
        return self._finish(partial(counted, self._told))

    def _read_one(self, data: bytes, events: Batch) -> None:
        item = read_object(data, self._framing.endpoint)
        if item.get("error") is not None:
            raise failed(item["error"], self._framing.endpoint)
        self._note_cost(item)
        choices = item.get("choices")
        if not isinstance(choices, list):
            if item.get("object") == "error":  # vLLM before 0.11
                raise failed(item, self._framing.endpoint)
            raise self._malformed()
        for choice in choices:
            if not isinstance(choice, dict):
                raise self._malformed()
            if choice.get("index", 0) == 0:
                self._read_choice(choice, events)

    def _note_cost(self, item: dict[str, Any]) -> None:
        for part in ("usage", "timings"):
            if isinstance(value := item.get(part), dict):
                setattr(self._told, part, value)

    def _read_choice(self, choice: dict[str, Any], events: Batch) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        reason = choice.get("finish_reason")
        if not isinstance(delta, dict) or not isinstance(reason, str | None):
            raise self._malformed()
        text = delta.get("content") or ""
        thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if not isinstance(text, str) or not isinstance(thinking, str):
            raise self._malformed()
        if text or thinking:
            self._add(events, [Delta(self._outlet.instance_id, clean(text), clean(thinking))])
        if reason == "error":
            raise failed(None, self._framing.endpoint)
        self._told.finish_reason = reason or self._told.finish_reason

    def _malformed(self) -> UpstreamBroken:
        return self._broken("malformed", "sent an event that OpenAI's API does not know")
