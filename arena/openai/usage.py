"""What an answer cost, as far as such a server tells: OpenAI's usage, and llama.cpp's own timings where they come."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from arena.types import Metrics
from arena.upstream import count, measured


class Told(Struct):
    """What has been told of the cost so far; each part comes in one of the last events, or never."""

    finish_reason: str | None = None
    usage: dict[str, Any] = {}
    timings: dict[str, Any] = {}


def counted(told: Told, ours: Metrics, contended: bool = False) -> Metrics:
    """Metrics from what was told and our own clock's part. What nobody measured is None."""
    usage, timings = told.usage, told.timings
    tokens = _first(count(usage.get("completion_tokens")), count(timings.get("predicted_n")))
    duration_s, prompt_s = _seconds(timings.get("predicted_ms")), _seconds(timings.get("prompt_ms"))
    cached = _cached(usage, timings)
    return replace(
        measured(ours, tokens, duration_s, contended),
        prompt_tokens=_first(count(usage.get("prompt_tokens")), _prompt(timings)),
        prompt_s=prompt_s,
        prompt_cached=None if cached is None else cached > 0,
        done_reason=told.finish_reason,
        cut_by_limit=told.finish_reason == "length",
    )


def _cached(usage: dict[str, Any], timings: dict[str, Any]) -> int | None:
    details = usage.get("prompt_tokens_details")
    told = count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return _first(told, count(timings.get("cache_n")))


def _prompt(timings: dict[str, Any]) -> int | None:
    """llama.cpp counts apart what it computed and what its cache held."""
    computed, cached = count(timings.get("prompt_n")), count(timings.get("cache_n"))
    return None if computed is None else computed + (cached or 0)


def _first(value: int | None, other: int | None) -> int | None:
    return other if value is None else value


def _seconds(value: Any) -> float | None:
    """Milliseconds of theirs, seconds of ours."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return value / 1000 if good else None
