"""A chat's events turned into ours, as they come off the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from arena.errors import BudgetExceeded, UpstreamBroken, UpstreamTimeout
from arena.ollama.answer import Budget, Stopwatch
from arena.ollama.failures import ERROR_BYTES
from arena.ollama.lines import clean
from arena.openai.body import REFUSING
from arena.openai.events import DONE, Events, payloads, plain_lines
from arena.openai.failures import failed, read_object, refusal
from arena.openai.usage import Told, counted
from arena.streaming import Outlet
from arena.types import Batch, Delta, Finished
from arena.wire import Call


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


class ChatAnswer:
    """Takes the body's bytes and pushes events into an outlet: one decode and one `put` a read.

    The answer is complete when a finish_reason was seen; what it cost may come after it, until [DONE].
    `ask_again` gets the body of a refusal and sends the request anew (True) if it was refused for what can be left out.
    """

    __slots__ = (
        "_budget",
        "_bytes",
        "_contended",
        "_deltas",
        "_error_body",
        "_events",
        "_outlet",
        "_told",
        "_watch",
        "ask_again",
        "call",
        "finished",
    )

    def __init__(
        self, endpoint: str, outlet: Outlet, watch: Stopwatch, budget: Budget, contended: Callable[[], bool] | None
    ) -> None:
        self.call: Call | None = None
        self.ask_again: Callable[[bytes], bool] = lambda refusal: False
        self.finished = False
        self._error_body = b""
        self._outlet = outlet
        self._watch = watch
        self._budget = budget
        self._contended = contended
        self._events = Events(endpoint)
        self._told = Told()
        self._bytes = 0
        self._deltas = 0

    def on_data(self, data: bytes) -> None:
        """Bytes of the body. Raises the ArenaError that ends the answer; what came before it is put first."""
        assert self.call is not None
        if self.call.status != 200:
            self._keep_error(data)
            return
        self._bytes += len(data)
        if whole := self._events.feed(data):
            self._read(whole, len(data))
        if self._bytes > self._budget.size_bytes and not self.finished:
            self._over(f"{self._budget.size_bytes} bytes")

    async def result(self) -> None:
        """Wait until the answer is complete. Raises what else its end was, BudgetExceeded included."""
        assert self.call is not None
        try:
            await self.call.done
            while self.call.status in REFUSING and self.ask_again(self._error_body):
                self._error_body = b""
                await self.call.done
            self.ended()
        except UpstreamTimeout as error:
            if error.code == "total_timeout":
                raise BudgetExceeded(f"The answer was cut: {error.message}.", endpoint=self._events.endpoint) from error
            self.ended(error)
        except UpstreamBroken as error:
            self.ended(error)

    def close(self) -> None:
        """Hang up at once, unless the answer is complete."""
        if self.call is not None:
            self.call.cancel()

    def ended(self, error: UpstreamBroken | UpstreamTimeout | None = None) -> None:
        """The call has ended. Raises what else it was than a complete answer."""
        if self.finished:
            return
        assert self.call is not None
        endpoint = self._events.endpoint
        if self.call.status not in (0, 200):
            raise refusal(self.call.status, self.call.headers, self._error_body, endpoint)
        truncated = self._read_rest() if error is None or error.code == "upstream_eof" else False
        if self.finished:
            return
        if self._told.finish_reason is not None:  # complete, though the server did not say how much it cost
            self._outlet.put([self._finish()])
        elif truncated:
            text = f"{endpoint} ended its answer in the middle of an event"
            raise UpstreamBroken(text, endpoint=endpoint, code="upstream_truncated")
        else:
            text = f"{endpoint} ended its answer without saying that it is complete"
            raise error or UpstreamBroken(text, endpoint=endpoint, code="upstream_eof")

    def _read_rest(self) -> bool:
        """What came after the last empty line: an event that lacks it, or half of one (then True is returned).

        A server that does not stream sends its whole answer, or its error, as one document.
        """
        rest = self._events.rest()
        if not rest:
            return False
        try:
            self._read(rest if rest[:1] not in (b"{", b"<") else b"data: " + rest, len(rest))
        except UpstreamBroken as broken:
            if broken.code != "malformed":
                raise
            return True
        return True

    def _read(self, whole: bytes, size_bytes: int) -> None:
        events: Batch = []
        try:
            plain = self._plain(whole)
            if plain is not None:
                self._add(events, plain)
            else:
                self._read_with_care(whole, events)
        finally:
            self._outlet.put(events, size_bytes)
        if self.finished:
            assert self.call is not None
            self.call.release()
        elif self._deltas > self._budget.deltas:
            self._over(f"{self._budget.deltas} pieces of text")

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

    def _add(self, events: Batch, deltas: list[Delta]) -> None:
        """Take `deltas` in, as far as the budget goes."""
        if self._watch.visible_s is None and deltas:
            self._watch.mark(deltas)
        events += deltas
        self._deltas += len(deltas)
        if self._deltas > self._budget.deltas:
            del events[self._budget.deltas - self._deltas :]

    def _read_with_care(self, whole: bytes, events: Batch) -> None:
        """Event by event; [DONE] ends the answer, whatever follows."""
        for data in payloads(whole):
            if data == DONE:
                self._done(events)
            elif (plain := self._plain(b"data: " + data)) is not None:
                self._add(events, plain)
            else:
                self._read_one(data, events)
            if self.finished or self._deltas > self._budget.deltas:
                return

    def _done(self, events: Batch) -> None:
        if self._told.finish_reason is None:
            endpoint = self._events.endpoint
            text = f"{endpoint} ended its answer without saying why it ended"
            raise UpstreamBroken(text, endpoint=endpoint, code="upstream_eof")
        events.append(self._finish())

    def _read_one(self, data: bytes, events: Batch) -> None:
        item = read_object(data, self._events.endpoint)
        if item.get("error") is not None:
            raise failed(item["error"], self._events.endpoint)
        self._note_cost(item)
        choices = item.get("choices")
        if not isinstance(choices, list):
            if item.get("object") == "error":  # vLLM before 0.11
                raise failed(item, self._events.endpoint)
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
            raise failed(None, self._events.endpoint)
        self._told.finish_reason = reason or self._told.finish_reason

    def _finish(self) -> Finished:
        self.finished = True
        contended = self._contended() if self._contended is not None else False
        return Finished(self._outlet.instance_id, counted(self._told, self._watch.metrics(), contended))

    def _malformed(self) -> UpstreamBroken:
        endpoint = self._events.endpoint
        text = f"{endpoint} sent an event that OpenAI's API does not know"
        return UpstreamBroken(text, endpoint=endpoint, code="malformed")

    def _over(self, limit: str) -> None:
        raise BudgetExceeded(f"The answer was cut at {limit}.", endpoint=self._events.endpoint)

    def _keep_error(self, data: bytes) -> None:
        self._error_body += data
        if len(self._error_body) >= ERROR_BYTES and self.call is not None:
            self.call.release()
