"""Turns told well and badly, and the list of all scenarios there are.

A good answer may be bent (`bending`); a turn may be told badly (`TELL`); a request may be answered without any turn
(`refusals.REFUSE`), and something may happen on the connection afterwards (`refusals.AFTER`).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Awaitable, Callable

from tests.fake_ollama.bending import BODIES, MEGABYTE
from tests.fake_ollama.dialects import Json, encoded
from tests.fake_ollama.refusals import AFTER, CRASH, REFUSE
from tests.fake_ollama.turn import Turn


async def _ok(turn: Turn) -> None:
    await turn.play()
    await turn.call_tools()
    await turn.final()
    await turn.end()


async def _stall(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    await turn.exchange.hang()


async def _cutline(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    value = turn.dialect.delta(turn.sent, "cut in the middle")
    line = turn.framed(value) if turn.stream else encoded(turn.dialect.whole(turn.answer()))
    await turn.broken(line[: len(line) // 2])
    if not turn.plan.number("clean", 1):
        turn.exchange.finish()
    elif turn.stream:
        await turn.end()


async def _nodone(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    await turn.end(done=False)


async def _errline(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    await turn.error(CRASH)


async def _badjson(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    await turn.broken(b'{"model":"broken","message":{"content":}\n')
    await _rest(turn)


async def _badutf8(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    marked = turn.framed(turn.dialect.delta(turn.sent, "BAD"))
    await turn.broken(marked.replace(b"BAD", b"\xc3\x28"))
    await _rest(turn)


async def _rest(turn: Turn) -> None:
    if turn.stream:
        await turn.play()
        await turn.final()
        await turn.end()


async def _afterdone(turn: Turn) -> None:
    await turn.play()
    await turn.final(close=False)
    if turn.stream:
        for index in range(3):
            await turn.line(turn.dialect.delta(turn.sent + index, " after the end"))
    await turn.end()


async def _twodone(turn: Turn) -> None:
    await turn.play()
    await turn.final(close=False)
    await turn.final()
    await turn.end()


async def _slowclose(turn: Turn) -> None:
    await turn.play()
    await turn.final(close=False)
    await turn.exchange.pause(turn.plan.seconds("ms", 5000))
    await turn.end()


async def _eof(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    turn.exchange.finish()


async def _rst(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    turn.exchange.reset()


WRONG_TYPES: tuple[Json, ...] = (
    {"done": "yes"},
    {"message": None, "response": None},
    {"message": {"role": "assistant", "content": 7}, "response": 7},
)


async def _wrongtype(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    value = {**turn.dialect.delta(turn.sent, "x"), **WRONG_TYPES[turn.plan.number("k", 0) % len(WRONG_TYPES)]}
    await turn.broken(turn.framed(value))
    await _rest(turn)


async def _badchunk(turn: Turn) -> None:
    await turn.play(turn.plan.at)
    await turn.exchange.send(b"zz\r\nthis is no chunk size\r\n" if turn.stream else b"")
    turn.exchange.finish()


async def _with_lengths(turn: Turn, *differences: int) -> bytes:
    body = turn.rendered()
    lengths = tuple(("Content-Length", str(len(body) + extra)) for extra in differences)
    head = turn.exchange.head(200, (("Content-Type", turn.content_type), *lengths))
    await turn.exchange.send(head + body)
    return body


async def _badframe(turn: Turn) -> None:
    await _with_lengths(turn, 0, -10)


async def _shortcl(turn: Turn) -> None:
    await _with_lengths(turn, 100)
    turn.exchange.finish()


async def _longcl(turn: Turn) -> None:
    await _with_lengths(turn, -20)


async def _endless(turn: Turn) -> None:
    await turn.play()
    index = 0
    while True:
        await turn.token(turn.tokens[index % len(turn.tokens)] if turn.tokens else "x")
        index += 1


async def _bigline(turn: Turn) -> None:
    await turn.raw(b'{"model":"big","message":{"role":"assistant","content":"')
    for _ in range(turn.plan.number("mb", 100) * 16):
        await turn.raw(b"x" * (MEGABYTE // 16))
        await turn.exchange.connection.breathe()
    await turn.raw(b'"},"done":false}\n')
    await _rest(turn)


async def _deep(turn: Turn) -> None:
    depth = turn.plan.number("depth", 100_000)
    await turn.broken(b'{"message":' + b"[" * depth + b"]" * depth + b',"done":false}\n')
    await _rest(turn)


async def _gzip(turn: Turn) -> None:
    body = gzip.compress(turn.rendered(), mtime=0)
    await turn.exchange.reply(200, body, turn.content_type, (("Content-Encoding", "gzip"),))


async def _gzip_bomb(turn: Turn) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b'{"model":"') + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b"x" * MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    body = start + block * turn.plan.number("mb", 1024)  # a full flush forgets the past, so blocks may be repeated
    await turn.exchange.reply(200, body, turn.content_type, (("Content-Encoding", "gzip"),))


Tell = Callable[[Turn], Awaitable[None]]

TELL: dict[str, Tell] = {
    "stall": _stall, "cutline": _cutline, "nodone": _nodone, "errline": _errline, "badjson": _badjson,
    "badutf8": _badutf8, "afterdone": _afterdone, "twodone": _twodone, "eof": _eof, "rst": _rst,
    "slowclose": _slowclose, "wrongtype": _wrongtype, "badchunk": _badchunk, "badframe": _badframe,
    "shortcl": _shortcl, "longcl": _longcl, "endless": _endless, "bigline": _bigline, "deep": _deep,
    "gzip": _gzip, "gzip-bomb": _gzip_bomb,
}  # fmt: skip


async def tell(turn: Turn) -> None:
    """Tell the turn as its scenario says."""
    await TELL.get(turn.plan.scenario, _ok)(turn)


GOOD = frozenset((
    "ok", "gate", "unicode", "longline", "vision", "blank", "slicer", "bandwidth", "manytokens", "flaky", "xss",
    "exfil", "ident", "ansi", "empty", "slowhead", "bighead", "100", "evil-headers",
))  # fmt: skip
PULLS = frozenset(("pull", "pull-err", "pull-stall", "pull-disk"))
SCENARIOS: frozenset[str] = GOOD | PULLS | frozenset(BODIES) | frozenset(TELL) | frozenset(REFUSE) | frozenset(AFTER)
