"""The tables that turn a scenario's name into behaviour.

A good answer may be bent (`body_style`, `head_style`); a turn may be told badly (`TELL`); a request may be answered
without any turn (`REFUSE`, on every route); and something may happen on the connection afterwards (`AFTER`).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tests.fake_ollama.dialects import Json, encoded
from tests.fake_ollama.exchange import Exchange, HeadStyle
from tests.fake_ollama.plan import Plan
from tests.fake_ollama.turn import BodyStyle, Turn

MEGABYTE = 1024 * 1024
CRASH = "an error was encountered while running the model: unexpected EOF"
BUSY = "server busy, please try again.  maximum pending requests exceeded"
NESTED = '{"error":{"code":400,"message":"MESSAGE","type":"invalid_request_error"}}'
OVERFLOW = NESTED.replace("MESSAGE", "the request (9000 tokens) exceeds the available context size (4096 tokens)")
WEATHER: Json = {
    "id": "call_1",
    "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Zürich", "days": 2}},
}


# good answers, bent


def _reversed(value: Json) -> Json:
    return {key: _reversed(item) if isinstance(item, dict) else item for key, item in reversed(value.items())}


def _extra(value: Json) -> Json:
    message = value.get("message")
    nested = {"message": {**message, "unknown": [1, {"x": None}]}} if isinstance(message, dict) else {}
    return {"x_unknown": {"deep": [True, None, 1.5]}, **value, **nested, "zz": "later"}


def _without(*names: str) -> Callable[[Json], Json]:
    def edit(value: Json) -> Json:
        return {name: item for name, item in value.items() if name not in names}

    return edit


def _nan(value: Json) -> Json:
    return {**value, "eval_count": float("nan"), "eval_duration": float("inf"), "load_duration": -5}


def _cached(value: Json) -> Json:
    return {**value, "prompt_eval_cached_count": value.get("prompt_eval_count", 1) - 1, "prompt_eval_duration": 1000}


_COUNTERS = (
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
)  # fmt: skip

_BODIES: dict[str, BodyStyle] = {
    "slow": BodyStyle(gap_ms=100),
    "jitter": BodyStyle(gap_ms=20, jitter=True),
    "load": BodyStyle(load_ms=200),
    "think": BodyStyle(think=5),
    "tools": BodyStyle(tools=(WEATHER,)),
    "split": BodyStyle(chunk=1),
    "crlf": BodyStyle(newline=b"\r\n"),
    "keyorder": BodyStyle(edit=_reversed),
    "extra": BodyStyle(edit=_extra),
    "nocl": BodyStyle(framing="eof"),
    "nan": BodyStyle(edit_final=_nan),
    "cached": BodyStyle(edit_final=_cached),
    "nometrics": BodyStyle(edit_final=_without(*_COUNTERS)),
    "noeval": BodyStyle(edit_final=_without("eval_duration")),
    "noprompt": BodyStyle(edit_final=_without("prompt_eval_count", "prompt_eval_duration")),
}


def body_style(plan: Plan, *, native: bool) -> BodyStyle:
    """How the stream of a good answer is bent."""
    style = _BODIES.get(plan.scenario, BodyStyle())
    if plan.scenario == "slicer":
        return replace(style, segment=plan.number("k", 7))
    if plan.scenario == "bandwidth":
        return replace(style, kbytes_per_s=plan.number("kbs", 16))
    if plan.scenario == "blank" and native:
        return replace(style, between=b"\n \n")
    return style


EVIL_HEADERS = (
    ("Set-Cookie", "session=stolen; Path=/"), ("X-Olla-Endpoint", "forged"), ("X-Olla-Model", "forged"),
    ("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Credentials", "true"),
    ("Location", "http://evil.example/"), ("Clear-Site-Data", '"*"'), ("Strict-Transport-Security", "max-age=1"),
    ("Connection", "x-hop"), ("X-Hop", "for one hop only"), ("Proxy-Authenticate", "Basic"), ("Server", "fake"),
)  # fmt: skip


def head_style(plan: Plan) -> HeadStyle:
    """How the head of a good answer is bent."""
    match plan.scenario:
        case "slowhead":
            return HeadStyle(byte_gap_s=plan.seconds("ms", 1000))
        case "bighead":
            return HeadStyle(headers=(("X-Big", "x" * (plan.number("mb", 1) * MEGABYTE)),))
        case "100":
            return HeadStyle(before=b"HTTP/1.1 100 Continue\r\n\r\n" * plan.number("k", 100))
        case "evil-headers":
            return HeadStyle(headers=EVIL_HEADERS)
    return HeadStyle()


# turns, told well and badly


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


# requests answered without a turn, on every route


def _status_text(status: int, model: str) -> str:
    texts = {
        400: "invalid model name", 401: "unauthorized", 403: "ollama cloud is disabled: remote model is unavailable",
        404: f"model '{model}' not found", 429: "too many requests", 500: CRASH, 503: BUSY,
    }  # fmt: skip
    return texts.get(status, f"the fake answers {status}")


async def _status(exchange: Exchange) -> None:
    status = exchange.plan.number("c", 500)
    retry = (("Retry-After", exchange.plan.word("ra")),) if "ra" in exchange.plan.keys else ()
    match exchange.plan.word("kind"):
        case "nested":
            await exchange.error(status, OVERFLOW, retry)
        case "text":
            await exchange.reply(status, b"404 page not found", "text/plain; charset=utf-8", retry)
        case _:
            await exchange.error(status, _status_text(status, exchange.plan.model), retry)


async def _redirect(exchange: Exchange) -> None:
    target = exchange.fake.canary_url + "/redirected"
    await exchange.reply(exchange.plan.number("c", 302), b"", "", (("Location", target),))


async def _html(exchange: Exchange) -> None:
    page = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Guest network</h1></body></html>\n"
    await exchange.reply(exchange.plan.number("c", 200), page, "text/html; charset=utf-8")


async def _empty200(exchange: Exchange) -> None:
    await exchange.reply(200, b"")


async def _bigerr(exchange: Exchange) -> None:
    await exchange.error(exchange.plan.number("c", 500), "x" * (exchange.plan.number("mb", 10) * MEGABYTE))


async def _hang(exchange: Exchange) -> None:
    await exchange.hang()


async def _eof0(exchange: Exchange) -> None:
    exchange.finish()


async def _rst0(exchange: Exchange) -> None:
    exchange.reset()


async def _rst_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    exchange.reset()


async def _halfhead(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: applicat")
    await exchange.hang()


async def _http09(exchange: Exchange) -> None:
    await exchange.send(b"\x16\x03\x01 this is no HTTP at all\n\xff\xfe")
    exchange.finish()


Refuse = Callable[[Exchange], Awaitable[None]]

REFUSE: dict[str, Refuse] = {
    "status": _status, "redirect": _redirect, "html": _html, "empty200": _empty200, "bigerr": _bigerr,
    "hang": _hang, "eof0": _eof0, "rst0": _rst0, "rst-head": _rst_head, "halfhead": _halfhead, "http09": _http09,
}  # fmt: skip


# what happens on the kept-alive connection afterwards


async def _staleka(exchange: Exchange) -> None:
    if "ms" in exchange.plan.keys:
        await exchange.pause(exchange.plan.seconds("ms"))
    else:
        await exchange.connection.any_bytes()  # the race itself: closed on the reuse's first bytes
    exchange.keep_alive = False
    exchange.connection.close()


async def _pipeline(exchange: Exchange) -> None:
    body = encoded({"model": "pushed", "message": {"role": "assistant", "content": "PUSHED"}, "done": True})
    length = ("Content-Length", str(len(body)))
    await exchange.connection.send(exchange.head(200, (("Content-Type", "application/json"), length)) + body)


AFTER: dict[str, Refuse] = {"staleka": _staleka, "pipeline": _pipeline}

GOOD = frozenset((
    "ok", "gate", "unicode", "longline", "vision", "blank", "slicer", "bandwidth", "manytokens", "flaky", "xss",
    "exfil", "ident", "ansi", "empty", "slowhead", "bighead", "100", "evil-headers",
))  # fmt: skip
PULLS = frozenset(("pull", "pull-err", "pull-stall", "pull-disk"))
SCENARIOS: frozenset[str] = GOOD | PULLS | frozenset(_BODIES) | frozenset(TELL) | frozenset(REFUSE) | frozenset(AFTER)
