"""Figures in the words of the status routes ("24.74 KB", "69.5%", "14ms", "6s ago"), and words as figures."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2s


def size(count: float) -> str:
    """Bytes, in units of 1024."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1024
    return f"{count:.2f} TB"


def share(value: float | None) -> str:
    """A share of 1 in per cent; "N/A" if it is of nothing."""
    return "N/A" if value is None else f"{100 * value:.1f}%"


def latency(seconds: float | None) -> str:
    """A time in milliseconds; "N/A" if nobody measured it."""
    return "N/A" if seconds is None else f"{milliseconds(seconds)}ms"


def milliseconds(seconds: float | None) -> int:
    """Whole milliseconds; 0 if nobody measured."""
    return 0 if seconds is None else round(1000 * seconds)


def ago(seconds: float | None) -> str:
    """How long something is past; "never" if it never was."""
    return "never" if seconds is None else f"{span(max(0.0, seconds))} ago"


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def moment(at: float) -> str:
    """Seconds since 1970 as a timestamp."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def unix_seconds(moment: str) -> int:
    """A timestamp as whole seconds since 1970; 0 if it is none."""
    try:
        return int(datetime.fromisoformat(moment).timestamp())
    except ValueError:
        return 0


def quantity(words: str) -> int:
    """ "3.2B", in units of 1000, as a number; 0 if it is none."""
    unit = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}.get(words[-1:].upper(), 0)
    try:
        return round(float(words[:-1]) * unit)
    except (ValueError, OverflowError):
        return 0


def seen_at(checks_s: Iterable[float | None]) -> str:
    """The latest of some moments on the monotonic clock as a timestamp; "" if there is none."""
    latest_s = max((at_s for at_s in checks_s if at_s is not None), default=None)
    return "" if latest_s is None else moment(time.time() - time.monotonic() + latest_s)


def identity(url: str) -> str:
    """A short name for an address, the same in every process."""
    return blake2s(url.encode(), digest_size=6).hexdigest()
