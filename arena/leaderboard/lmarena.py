"""Battles as LMArena publishes them, and as this arena exports them: one object for each."""

from __future__ import annotations

from hashlib import sha256
from itertools import combinations
from string import ascii_lowercase
from typing import Any, Final

import msgspec

from arena.errors import BadRequest
from arena.leaderboard import incoming
from arena.leaderboard.export import STYLES, WINNERS
from arena.types import Style, Vote

SOURCE: Final = "lmarena"
MOST_TURNS: Final = 10_000
MOST_REPEATS: Final = 1_000_000
MOST_COUNTED: Final = 1_000_000_000
MOST_DWELL_S: Final = 1_000_000_000
OWN: Final = "arena"
"""The source of votes that an arena of ours has exported; they keep their ids, so that at home they are known."""

_COUNTS: Final = {side: {field: name.format(side) for name, field in STYLES} for side in "ab"}
_VERDICTS: Final = {winner: verdict for verdict, winner in WINNERS.items()} | {"both_bad": "both_bad"}


def is_own(row: dict[str, Any]) -> bool:
    """Was it exported by an arena of ours?"""
    return "configuration_a" in row and "pair" in row


def vote_of(row: dict[str, Any], rated: bool) -> Vote:
    """The vote in a row: blind, and rated, unless it says otherwise. Raises BadRequest naming the key."""
    own = is_own(row)
    model_a, model_b = (incoming.name(row.get(key), key) for key in ("model_a", "model_b"))
    verdict = _VERDICTS.get(str(row.get("winner")))
    if verdict is None:
        raise BadRequest(f"winner must be one of {', '.join(_VERDICTS)}")
    counted = row if not isinstance(row.get("conv_metadata"), dict) else row["conv_metadata"]
    when = "tstamp" if "tstamp" in row else "timestamp"
    voter = "judge" if row.get("judge") else "evaluation_session_id"
    return Vote(
        battle_id=_identity(row) if own else f"{SOURCE}:{_identity(row)}",
        at=incoming.moment(row.get(when), when),
        configuration_a=_contestant(row, "configuration_a", model_a),
        configuration_b=_contestant(row, "configuration_b", model_b),
        model_a=model_a,
        model_b=model_b,
        verdict=verdict,
        blind=row.get("anony", True) is True,
        rated=rated and row.get("rated", True) is True,
        voter=incoming.word(row.get(voter), voter),
        turns=incoming.whole(row.get("turn", 1), "turn", 0, MOST_TURNS),
        style_a=_style(counted, "a"),
        style_b=_style(counted, "b"),
        source=(incoming.word(row.get("source"), "source") or OWN) if own else SOURCE,
        **(_own(row) if own else {}),
    )


def _own(row: dict[str, Any]) -> dict[str, Any]:
    """What only our own exports tell."""
    pair, dwell_s = row["pair"], row.get("dwell_s")
    if pair not in map("".join, combinations(ascii_lowercase, 2)):
        raise BadRequest("pair must be the letters of two sides in their order, such as ab")
    return {
        "pair": pair,
        "sides": incoming.whole(row.get("sides"), "sides", 2, incoming.MOST_SIDES),
        "category": incoming.word(row.get("category"), "category", 40),
        "tags": incoming.tags(incoming.word(row.get("tags"), "tags", 400).split(",")),
        "prompt": incoming.word(row.get("prompt"), "prompt", 40),
        "repeats": incoming.whole(row.get("repeats", 0), "repeats", 0, MOST_REPEATS),
        "dwell_s": None if dwell_s is None else incoming.number(dwell_s, "dwell_s", 0, MOST_DWELL_S),
    }


def _identity(row: dict[str, Any]) -> str:
    key = "question_id" if "question_id" in row else "id"
    if found := incoming.word(row.get(key), key):
        return found
    return sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:32]


def _contestant(row: dict[str, Any], key: str, model: str) -> str:
    """Our own exports tell the settings' id; else they are not known, and a model has one configuration."""
    told = row.get(key)
    return incoming.name(told, key) if told is not None else incoming.configuration(model).id


def _style(counted: dict[str, Any], side: str) -> Style | None:
    """What was counted; a count may be split by level, and is then the sum. None where tokens were not counted."""
    figures = {field: _figure(counted.get(key), key) for field, key in _COUNTS[side].items()}
    if figures["tokens"] is None:
        return None
    return Style(**{field: figure or 0 for field, figure in figures.items()})


def _figure(counted: Any, key: str) -> int | None:
    """A count, None where nobody counted; one that could not be kept or exported again is refused."""
    if counted is None:
        return None
    parts = [each for each in counted.values() if each is not None] if isinstance(counted, dict) else [counted]
    sound = all(isinstance(each, int | float) and not isinstance(each, bool) and each >= 0 for each in parts)
    if not sound or sum(parts) > MOST_COUNTED:
        raise BadRequest(f"{key} must be a count from 0 to {MOST_COUNTED:,}")
    return int(sum(parts))
