"""Go's durations, as Ollama's keep_alive uses them, and timestamps as Ollama writes them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from arena.errors import BadRequest

# 292 years: the longest time Go can hold, and what Ollama shows for "forever"
FOREVER_S = float(2**63 - 1) / 1e9

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(value: object) -> float:
    """Seconds of a number (seconds) or a Go duration ("1h30m"); negative means forever. Raises BadRequest."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadRequest("keep_alive must be a number of seconds or a duration such as 5m")
    if not isinstance(value, str):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadRequest("keep_alive must be a finite number of seconds")
        return FOREVER_S if value < 0 else min(float(value), FOREVER_S)
    return _parse_text(value)


def _parse_text(text: str) -> float:
    body = text.lstrip("+-")
    if body == "0":
        return 0.0
    if not body or len(text) > 64 or len(text) - len(body) > 1:
        raise BadRequest(f'time: invalid duration "{text[:64]}"')
    parts = list(_PART.finditer(body))
    if "".join(part.group() for part in parts) != body:
        problem = "missing unit in duration" if re.fullmatch(r"[0-9.]+", body) else "invalid duration"
        raise BadRequest(f'time: {problem} "{text}"')
    seconds = sum(float(part.group(1)) * _UNITS[part.group(2)] for part in parts)
    return FOREVER_S if text.startswith("-") else min(seconds, FOREVER_S)


def rfc3339(moment: datetime) -> str:
    """`moment` in UTC, such as 2026-11-22T03:07:44.680000Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def now() -> str:
    """This moment as RFC 3339."""
    return rfc3339(datetime.now(UTC))


def from_now(seconds: float) -> str:
    """The moment `seconds` from now as RFC 3339."""
    return rfc3339(datetime.now(UTC) + timedelta(seconds=seconds))
