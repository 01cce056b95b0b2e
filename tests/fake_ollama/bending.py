"""Good answers, bent: other line ends, other framing, odd counters, hostile headers. The content stays right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.fake_ollama.dialects import Json
from tests.fake_ollama.exchange import HeadStyle
from tests.fake_ollama.plan import Plan
from tests.fake_ollama.turn import BodyStyle

MEGABYTE = 1024 * 1024
WEATHER: Json = {
    "id": "call_1",
    "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Zürich", "days": 2}},
}


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

BODIES: dict[str, BodyStyle] = {
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
    style = BODIES.get(plan.scenario, BodyStyle())
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
