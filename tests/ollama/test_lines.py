"""Lines to events, and counters to figures: no I/O."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arena.errors import ArenaError, UpstreamBroken
from arena.ollama.answer import ChatAnswer, counted
from arena.ollama.lines import MAX_LINE_BYTES, Lines
from arena.streaming import Mailbox, Outlet
from arena.types import (
    Batch,
    Delta,
    Finished,
    Metrics,
)
from arena.upstream import Budget, Stopwatch, clean, error_text
from arena.wire import Call

# lines to events


def line(text: str | None = None, *, done: bool = False, **more: Any) -> bytes:
    """One line as Ollama writes it."""
    thinking = {key: more.pop(key) for key in ("thinking",) if key in more}
    message = {"role": "assistant", "content": text or "", **thinking}
    return json.dumps({"model": "m", "message": message, "done": done, **more}, ensure_ascii=False).encode() + b"\n"


class Stub:
    """The part of a call that an answer needs."""

    def __init__(self, code: int = 200) -> None:
        self.status = code
        self.headers = ()
        self.released = False

    def release(self) -> None:
        self.released = True


def told(*reads: bytes, deltas: int = 1000) -> tuple[Batch, tuple[str, str] | None]:
    """The events of an answer that comes in these reads and then ends, and the error (code, message) it ends with."""
    mailbox = Mailbox(1)
    answer = ChatAnswer(Lines("e"), Outlet("a", mailbox), Stopwatch(lambda: 0.0, 0.0), Budget(deltas, 10**9), None)
    stub = Stub()
    answer.call = cast(Call, stub)
    error = None
    try:
        for data in reads:
            answer.on_data(data)
            if stub.released:
                break
        answer.ended()
    except ArenaError as raised:
        error = (raised.code, raised.message)
    return mailbox.take(), error


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["\u0085", "\u2028", "🙂", '"\\']
)
PIECES = st.one_of(
    TEXTS.map(line),
    TEXTS.map(lambda text: line(thinking=text)),
    st.just(line("x", done=True, eval_count=3)),
    st.sampled_from([
        b"\n", b" \r\n", line("x").replace(b"x", b"\xff\xfe"), line("x").replace(b"x", b"\\ud800"),
        line("x").replace(b"\n", b"\r\n"),
        b'{"error":"boom"}\n', line("x", error="boom"), b'{"message":null,"done":false}\n',
        b'{"done":true}\n', b'{"message":{"content":7},"done":false}\n', b"not json\n", b"<html>\n", b"[]\n",
        line("x", extra=[1, {"a": None}]), line("x", tool_calls=[]), b'{"message":{"content":null},"done":false}\n',
        b'{"message":{"content":"a"},"x":NaN}\n', b'{"message":{"content":"a"},"done":"yes"}\n',
    ]),
)  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(1, 60), max_size=40), st.booleans(), st.integers(1, 6))
@example([line("a"), line("b", done=True)], [1] * 40, True, 5)
def test_any_split_of_the_stream_gives_the_same_events(
    pieces: list[bytes], sizes: list[int], cut_end: bool, deltas: int
) -> None:
    whole = b"".join(pieces)
    if cut_end:
        whole = whole[:-1]
    reads, rest = [], whole
    for size in sizes:
        reads.append(rest[:size])
        rest = rest[size:]
    split = [read for read in [*reads, rest] if read]
    assert told(*split, deltas=deltas) == told(whole, deltas=deltas) if whole else told()


def texts(*reads: bytes) -> tuple[str, str | None]:
    """The text of an answer, and the code of the error it ends with."""
    events, error = told(*reads)
    return "".join(event.text for event in events if isinstance(event, Delta)), error[0] if error else None


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ((), ("", "upstream_eof")),
        ((line("a"), line("b")), ("ab", "upstream_eof")),
        ((line("a"), line("b", done=True)), ("ab", None)),
        ((line("a") + line("b", done=True) + line("c") + line("d", done=True),), ("ab", None)),
        ((line("a"), line("b", done=True)[:-1]), ("ab", None)),
        ((line("a"), line("b")[:-1]), ("ab", "upstream_truncated")),
        ((line("a"), line("b", done=True)[:-2]), ("a", "upstream_truncated")),
        ((line("a\u0085b\u2028c\x00"), line(done=True)), ("a\u0085b\u2028c\x00", None)),
        ((line("a") + b'{"error":"boom"}\n',), ("a", "upstream_error")),
        ((line("a") + line("b", error="boom"),), ("a", "upstream_error")),
        ((line("a", error=None), line(done=True)), ("a", None)),
        ((b'{"error":"boom"}',), ("", "upstream_error")),
        ((line("a") + b"[]\n",), ("a", "malformed")),
        ((b'{"foo":1}\n',), ("", "malformed")),
        ((b'{"message":[],"done":false}\n',), ("", None)),
        ((b'{"message":[1],"done":false}\n',), ("", "malformed")),
        ((b'{"message":{"content":"a","thinking":1},"done":false}\n',), ("", "malformed")),
        ((b"<html>",), ("", "not_ollama")),
        ((b"9" * 5000 + b"\n",), ("", "malformed")),
        ((b'{"message":{"content":"a"},"n":' + b"9" * 5000 + b"}\n",), ("a", "upstream_eof")),
        ((b'{"message":{"content":"a"},"n":' + b"[" * 200_000 + b"\n",), ("", "malformed")),
    ],
)
def test_what_becomes_of_lines(reads: tuple[bytes, ...], expected: tuple[str, str | None]) -> None:
    text, code = expected
    assert texts(*reads) == (text, code if code or b"[]" not in b"".join(reads) else "upstream_eof")


def test_empty_lines_of_text_are_no_events() -> None:
    events, _ = told(line(""), line("a"), line(""), line(done=True))
    assert [type(event) for event in events] == [Delta, Finished]


def test_a_line_may_be_long_but_not_endless() -> None:
    assert texts(line("x" * 600_000), line(done=True)) == ("x" * 600_000, None)
    lines = Lines("e")
    block = b"x" * 65536
    for _ in range(MAX_LINE_BYTES // 65536):
        assert lines.feed(block) == b""
    with pytest.raises(UpstreamBroken) as error:
        lines.feed(b"x")
    assert (error.value.code, lines.rest()) == ("line_too_long", b"")
    lines = Lines("e")
    for _ in range(MAX_LINE_BYTES // 65536):
        lines.feed(block)
    assert len(lines.feed(b"\nnext")) == MAX_LINE_BYTES + 1
    assert lines.rest() == b"next"
    for _ in range(MAX_LINE_BYTES // 65536 - 1):
        lines.feed(block)
    with pytest.raises(UpstreamBroken):
        lines.feed(block + b"\n")


def test_half_characters_become_marks() -> None:
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean("\ud83d\ude00") == "😀"


# counters


FULL = {
    "total_duration": 1_000_000_000, "load_duration": 100_000_000, "prompt_eval_count": 9,
    "prompt_eval_duration": 200_000_000, "eval_count": 32, "eval_duration": 640_000_000, "done_reason": "stop",
}  # fmt: skip


def without(*names: str, **changes: Any) -> Metrics:
    return counted({key: value for key, value in {**FULL, **changes}.items() if key not in names}, Metrics())


def test_counters_become_seconds() -> None:
    figures = counted({**FULL, "total_duration": 1_003_000_000}, Metrics(ttft_s=0.3, first_visible_s=0.4, total_s=1.1))
    assert round(figures.queue_s or 0, 9) == 0.063
    assert msgspec.structs.replace(figures, queue_s=None) == Metrics(
        tokens=32,
        duration_s=0.64,
        tokens_per_sec=50.0,
        rate_reliable=True,
        ttft_s=0.3,
        first_visible_s=0.4,
        total_s=1.1,
        server_total_s=1.003,
        load_s=0.1,
        prompt_tokens=9,
        prompt_s=0.2,
        done_reason="stop",
    )


@pytest.mark.parametrize(
    ("figures", "rate", "reliable"),
    [
        (without(), 50.0, True),
        (without(eval_count=15, eval_duration=300_000_000), 50.0, False),
        (without(eval_count=16, eval_duration=320_000_000), 50.0, True),
        (without(eval_count=1, eval_duration=1000), None, False),
        (without(eval_duration=999_999), None, False),
        (without("eval_duration"), None, False),
        (without("eval_count"), None, False),
        (without(eval_count=0), None, False),
        (without(eval_count=float("nan"), eval_duration=float("inf")), None, False),
        (without(eval_count=True), None, False),
        (without(eval_count=-3), None, False),
        (without(eval_duration=2**63), None, False),
        (without(eval_count="32"), None, False),
    ],
)
def test_a_rate_is_given_only_where_it_was_measured(figures: Metrics, rate: float | None, reliable: bool) -> None:
    assert (figures.tokens_per_sec, figures.rate_reliable) == (pytest.approx(rate) if rate else None, reliable)


def test_what_is_missing_stays_unknown() -> None:
    assert counted({}, Metrics()) == Metrics()
    assert without("load_duration").queue_s is None
    assert without("total_duration").queue_s is None
    assert without("eval_duration").queue_s is None
    assert without("prompt_eval_duration").queue_s is None
    assert without("prompt_eval_duration", "prompt_eval_count").queue_s == pytest.approx(0.26)  # nothing to read
    assert without(total_duration=5).queue_s == 0.0
    assert without(done_reason=7).done_reason is None


def test_cache_and_limit_are_flagged() -> None:
    assert without().prompt_cached is None
    assert without(prompt_eval_cached_count=0).prompt_cached is False
    assert without(prompt_eval_cached_count=8).prompt_cached is True
    assert without(done_reason="length").cut_by_limit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": "plain"}, "plain"),
        ({"error": '{"error":{"code":400,"message":"too long","type":"x"}}'}, "too long"),
        ({"error": {"message": "as OpenAI"}}, "as OpenAI"),
        ({"error": '{"foo":1}'}, '{"foo":1}'),
        ({"error": "{broken"}, "{broken"),
        ({"error": ""}, None),
        ({"error": 7}, None),
        ({"foo": 1}, None),
        ([], None),
        (None, None),
        ({"error": "a\ud800"}, "a\ufffd"),
    ],
)
def test_errors_in_the_endpoints_own_words(value: Any, text: str | None) -> None:
    assert error_text(value) == text
