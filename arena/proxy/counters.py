"""What a stream's end tells of its cost, and whether it was an end at all. The stream itself is not parsed.

Only the last few KiB are kept while it passes: the counters stand at the end in every dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from arena.fleet import Usage
from arena.proxy.dialect import EVENTS, NDJSON, Dialect
from arena.upstream import MOST

KEPT_BYTES: Final = 2048
HELD_BYTES: Final = 4096
"""The last KEPT_BYTES at least and HELD_BYTES at most are kept; of one that came at once, all."""
HEAD_BYTES: Final = 1024
"""So much of the beginning is kept: Anthropic tells the prompt's tokens there."""
CLOSING_EVENTS: Final = 2
NANOSECONDS: Final = 1e9

_COUNT: Final = re.compile(
    rb'"(prompt_eval_count|eval_count|load_duration|prompt_eval_duration|eval_duration|prompt_n|predicted_n'
    rb'|prompt_tokens|completion_tokens|input_tokens|output_tokens|cache_read_input_tokens)"\s*:\s*(\d{1,15})(?![\d.eE])'
)
_DONE_EVENT: Final = (b"\ndata: [DONE]", b"\ndata:[DONE]")
_LAST: Final[dict[Dialect, tuple[bytes, ...]]] = {
    "native": _DONE_EVENT,
    "openai": _DONE_EVENT,
    "anthropic": (b"\nevent: message_stop", b'"message_stop"'),
    "responses": (
        b"\nevent: response.completed", b'"response.completed"', b"\nevent: response.incomplete",
        b'"response.incomplete"', b"\nevent: response.failed", b'"response.failed"',
    ),
}  # fmt: skip
"""What ends a stream well; each is either the beginning of a line or has quotation marks that are not escaped."""
_DONE: Final = re.compile(rb'"done"\s*:\s*true')


class Last(Struct):
    """Ollama's last line, or its whole answer."""

    done: bool | None = None
    error: Any = None
    prompt_eval_count: int = 0
    eval_count: int = 0
    load_duration: int = 0
    prompt_eval_duration: int = 0
    eval_duration: int = 0


_decode_last: Final = msgspec.json.Decoder(Last).decode


class End(Struct, frozen=True):
    """What the end told. `whole` False: the stream has stopped without saying that it is done. `error`: it said why."""

    usage: Usage
    whole: bool = True
    error: bool = False


class Tail:
    """Keeps the end of a body that passes.

    `aside` is what the client is not told, `events` how many events were counted on the way, and `estimated` is set
    where a figure in the body itself is only that count.
    """

    __slots__ = ("_end", "_only", "aside", "estimated", "events", "head", "received_bytes")

    def __init__(self) -> None:
        self.aside = self.head = self._only = b""
        self._end: bytearray | None = None
        self.received_bytes = self.events = 0
        self.estimated = False

    @property
    def end(self) -> bytes:
        """What is kept of the end."""
        return self._only if self._end is None else bytes(self._end)

    def feed(self, data: bytes) -> None:
        """A piece of the body has passed."""
        if self.received_bytes < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - self.received_bytes]
        self.received_bytes += len(data)
        end = self._end
        if end is None:
            if not self._only:
                self._only = data
                return
            self._end = end = bytearray(self._only)
            self._only = b""
        if len(data) > KEPT_BYTES:
            end[:] = data[-KEPT_BYTES:]
            return
        end += data
        if len(end) > HELD_BYTES:
            del end[:-KEPT_BYTES]

    def read(self, dialect: Dialect, media_type: bytes) -> End:
        """What the body told, now that it is over."""
        if media_type.startswith(NDJSON):
            return self._lines()
        if media_type.startswith(EVENTS):
            return self._events(dialect)
        end = self.end
        if dialect == "native" and len(end) == self.received_bytes:
            last = _last(end)
            if last is not None:
                return End(_usage_of(last))
        return End(self._counted())

    def so_far(self, media_type: bytes) -> Usage:
        """About what a stream has cost that will not come to its end: a token a piece, as long as the last ones are."""
        end, pieces = self.end, self.events
        if not pieces and end:
            gaps = end.count(b"\n\n") + end.count(b"\n\r\n") if media_type.startswith(EVENTS) else end.count(b"\n")
            pieces = gaps * self.received_bytes // len(end)
        prompt = _usage_in(self.head).prompt_tokens if media_type.startswith(EVENTS) else 0
        return Usage(prompt, pieces, received_bytes=self.received_bytes, estimated=True)

    def _lines(self) -> End:
        """NDJSON: the last line that says done; a few servers have something to say even after that."""
        unread = False
        for line in reversed(self.end.split(b"\n")):
            if not line.strip():
                continue
            last = _last(line)
            if last is None:
                if not line.rstrip().endswith(b"}"):
                    continue  # cut
                if _DONE.search(line) or b'"eval_count"' in line:
                    return End(_usage_in(line))
                unread = unread or self.received_bytes > len(self.end)
            elif last.done:
                return End(_usage_of(last), error=last.error is not None)
            elif last.error is not None:
                return End(_usage_of(last), error=True)
        return End(Usage(), whole=unread and b"\n" not in self.end.rstrip(b"\n"))

    def _events(self, dialect: Dialect) -> End:
        """Server-sent events: the counters wherever they stand, and each dialect's own last word.

        That a line begins, or a bare quotation mark, is no part of what a model says: there it would be escaped.
        """
        end = self.end
        if len(end) == self.received_bytes:
            end = b"\n" + end
        error = b"\nevent: error" in end or b'data: {"error"' in end
        whole = dialect == "responses" and self.received_bytes > HELD_BYTES  # the last event repeats the whole answer
        for word in () if whole else _LAST[dialect]:
            if word in end:
                whole = True
                break
        return End(self._counted(), whole or error, error)

    def _counted(self) -> Usage:
        """The counters of events; where there are none, every event but the last two had a token in it, or about that.

        Those two tell why it has ended, and that it has.
        """
        usage = _usage_in(b"\n".join((self.head, self.end, self.aside)))
        if not usage.completion_tokens and self.events > CLOSING_EVENTS:
            return msgspec.structs.replace(usage, completion_tokens=self.events - CLOSING_EVENTS, estimated=True)
        return msgspec.structs.replace(usage, estimated=True) if self.estimated else usage


def _last(line: bytes) -> Last | None:
    try:
        return _decode_last(line)
    except (ValueError, RecursionError):
        return None


def _usage_of(last: Last) -> Usage:
    prompt, completion = last.prompt_eval_count, last.eval_count
    load_ns, prompt_ns, eval_ns = last.load_duration, last.prompt_eval_duration, last.eval_duration
    return Usage(
        prompt if 0 < prompt < MOST else 0,
        completion if 0 < completion < MOST else 0,
        load_ns / NANOSECONDS if 0 < load_ns < MOST else None,
        prompt_ns / NANOSECONDS if 0 < prompt_ns < MOST else None,
        eval_ns / NANOSECONDS if 0 < eval_ns < MOST else None,
    )


def _usage_in(text: bytes) -> Usage:
    """The counters in a piece of JSON that may be cut; the last one of a name counts.

    A quotation mark inside of a string is escaped there, so no text of a model can look like one of these.
    """
    found = dict(_counts(text))
    cached = found.get(b"cache_read_input_tokens", 0)  # which Anthropic counts beside the others
    return Usage(
        _first(found, b"prompt_eval_count", b"prompt_tokens", b"input_tokens", b"prompt_n") + cached,
        _first(found, b"eval_count", b"completion_tokens", b"output_tokens", b"predicted_n"),
        _seconds(found.get(b"load_duration", 0)),
        _seconds(found.get(b"prompt_eval_duration", 0)),
        _seconds(found.get(b"eval_duration", 0)),
    )


def _counts(text: bytes) -> Iterator[tuple[bytes, int]]:
    """Every counter that is not zero: some servers put zeros into all events but the last."""
    for match in _COUNT.finditer(text):
        value = int(match[2])
        if value:
            yield match[1], value


def _first(found: dict[bytes, int], *names: bytes) -> int:
    return next((found[name] for name in names if name in found), 0)


def _seconds(nanoseconds: int) -> float | None:
    return nanoseconds / NANOSECONDS if 0 < nanoseconds < MOST else None
