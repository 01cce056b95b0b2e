"""What comes from elsewhere, checked: every complaint names the key. Comparisons become votes on pairs of answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import combinations
from string import ascii_lowercase
from typing import Any, Final

import msgspec
from msgspec import Struct

from arena.errors import BadRequest
from arena.style import counted
from arena.types import Configuration, Verdict, Vote

MOST_NAME: Final = 200  # characters
MOST_PATH: Final = 4096
MOST_SIDES: Final = len(ascii_lowercase)
MOST_NUMBER: Final = 10**15
END_S: Final = 4_102_444_800
"""The year 2100 begins, in seconds since 1970: nobody has voted later."""


class Judged(Struct, frozen=True):
    """One answer, by whom, and how it was found: the higher the score the better, below zero bad."""

    by: Configuration
    texts: tuple[str, ...]
    score: float


class Comparison(Struct, frozen=True):
    """Answers to the same prompts that somebody judged. Scores no further apart than `near` are a tie."""

    source: str
    at: str
    prompts: tuple[str, ...]
    sides: tuple[Judged, ...]
    blind: bool = False
    voter: str = ""
    tags: tuple[str, ...] = ()
    near: float = 0.0


def votes_of(comparison: Comparison, rated: bool) -> Iterator[Vote]:
    """A vote for each pair of answers. The same comparison always has the same id."""
    told = (comparison.prompts, comparison.voter, [(side.by.id, side.texts) for side in comparison.sides])
    identity = sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]
    styles = [counted(side.texts) for side in comparison.sides]
    for one, other in combinations(range(len(comparison.sides)), 2):
        a, b = comparison.sides[one], comparison.sides[other]
        yield Vote(
            battle_id=f"{comparison.source}:{identity}",
            at=comparison.at,
            configuration_a=a.by.id,
            configuration_b=b.by.id,
            model_a=a.by.model,
            model_b=b.by.model,
            verdict=_verdict(a.score, b.score, comparison.near),
            blind=comparison.blind,
            rated=rated and a.by.id != b.by.id,
            voter=comparison.voter,
            tags=comparison.tags,
            turns=len(comparison.prompts),
            style_a=styles[one],
            style_b=styles[other],
            pair=ascii_lowercase[one] + ascii_lowercase[other],
            sides=len(comparison.sides),
            source=comparison.source,
        )


def _verdict(a: float, b: float, near: float) -> Verdict:
    if abs(a - b) > near:
        return "a" if a > b else "b"
    return "both_bad" if a < 0 and b < 0 else "tie"


def configuration(model: str, options: dict[str, Any] | None = None) -> Configuration:
    """A contestant of which only the name is known, and maybe what was sent."""
    told = model if not options else msgspec.json.encode((model, options), order="deterministic").decode()
    label = ", ".join([model, *(f"{name} {value}" for name, value in sorted((options or {}).items()))])
    identity = f"imported-{sha256(told.encode()).hexdigest()[:16]}"
    return Configuration(identity, model, options=options or {}, label=label if options else "")


# ---- checks of single values; `key` is where they stand


def name(value: Any, key: str) -> str:
    """The name of a model. Raises BadRequest."""
    if not isinstance(value, str) or not 0 < len(value) <= MOST_NAME or not value.isprintable():
        raise BadRequest(f"{key} must be the name of a model, at most {MOST_NAME} characters")
    return value


def word(value: Any, key: str, most: int = MOST_NAME) -> str:
    """A word or an identity, "" where there is none; numbers are taken as they are written. Raises BadRequest."""
    told = "" if value is None else str(value)
    if not isinstance(value, str | int | None) or len(told) > most or not told.isprintable():
        raise BadRequest(f"{key} must be a text of at most {most} characters in one line")
    return told


def whole(value: Any, key: str, low: int, high: int) -> int:
    """A whole number. Raises BadRequest."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest(f"{key} must be a whole number from {low} to {high}")
    return value


def text(value: Any, key: str) -> str:
    """A text. Raises BadRequest."""
    if not isinstance(value, str):
        raise BadRequest(f"{key} must be a text")
    return value


def number(value: Any, key: str, low: int = -MOST_NUMBER, high: int = MOST_NUMBER) -> float:
    """A number. Raises BadRequest."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest(f"{key} must be a number from {low:,} to {high:,}")
    return float(value)


def rows(value: Any, key: str, most: int | None = None) -> Sequence[dict[str, Any]]:
    """A list of objects, no longer than `most`. Raises BadRequest."""
    if not isinstance(value, list) or (most is not None and len(value) > most):
        limit = f" of at most {most}" if most is not None else ""
        raise BadRequest(f"{key} must be a list{limit}")
    return [row(each, f"{key}[{place}]") for place, each in enumerate(value)]


def row(value: Any, key: str) -> dict[str, Any]:
    """An object. Raises BadRequest."""
    if not isinstance(value, dict):
        raise BadRequest(f"{key} must be an object")
    return value


def tags(value: Any) -> tuple[str, ...]:
    """The words among what is given as tags; what is no short word is left out."""
    words = value if isinstance(value, list) else []
    short = (word for word in words if isinstance(word, str) and 0 < len(word) <= 40 and word.isprintable())
    return tuple(dict.fromkeys(short))[:8]


def moment(given: Any, key: str) -> str:
    """Seconds since 1970, or ISO 8601 (UTC where no zone is given), as the store has it. Raises BadRequest."""
    try:
        if isinstance(given, int | float) and not isinstance(given, bool):
            found = datetime.fromtimestamp(given, UTC)
        else:
            found = datetime.fromisoformat(given)
            found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        sound = 0 <= found.timestamp() < END_S
    except (ValueError, TypeError, OverflowError, OSError):
        sound = False
    if not sound:
        raise BadRequest(f"{key} must be seconds since 1970, or a moment in ISO 8601, before the year 2100")
    return found.isoformat(timespec="milliseconds")
