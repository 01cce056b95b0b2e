"""Votes from elsewhere: battles as LMArena publishes them, and as this arena exports them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import msgspec

from arena.errors import BadRequest
from arena.leaderboard.export import STYLES, WINNERS
from arena.store import Store
from arena.types import Configuration, Style, Vote

MOST_VOTES: Final = 2_000_000
MOST_NAME: Final = 200  # characters
_VERDICTS: Final = {winner: verdict for verdict, winner in WINNERS.items()} | {"both_bad": "both_bad"}
_BATCH: Final = 5000


def import_lmarena(store: Store, lines: Iterable[bytes], rated: bool = True) -> int:
    """Keep the battles in `lines` (JSON objects, one a line) and return how many were new.

    `rated`: do they count for the ratings? Everything is read before anything is kept. Raises BadRequest with the
    number of the line for what is no battle.
    """
    votes = list(_read(lines, rated))
    models = {name for vote in votes for name in (vote.model_a, vote.model_b)}
    return store.add_votes(votes, [Configuration(id=_configuration(name), model=name) for name in sorted(models)])


def _read(lines: Iterable[bytes], rated: bool) -> Iterator[Vote]:
    for number, line in enumerate(lines, 1):
        if number > MOST_VOTES:
            raise BadRequest(f"more than {MOST_VOTES:,} lines: split the file")
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            yield _vote(row, rated)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadRequest(f"line {number} is not a JSON object") from None
        except BadRequest as error:
            raise BadRequest(f"line {number}: {error.message}") from None


def _vote(row: dict[str, Any], rated: bool) -> Vote:
    model_a, model_b = _name(row, "model_a"), _name(row, "model_b")
    verdict = _VERDICTS.get(str(row.get("winner")))
    if verdict is None:
        raise BadRequest(f"winner must be one of {', '.join(_VERDICTS)}")
    found = row.get("question_id", row.get("id"))
    identity = str(found) if found else sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:32]
    counted = row if not isinstance(row.get("conv_metadata"), dict) else row["conv_metadata"]
    blind, kept, turns = row.get("anony", True), row.get("rated", True), row.get("turn", 1)
    return Vote(
        battle_id=f"lmarena:{identity}"[:MOST_NAME],
        at=_moment(row.get("tstamp", row.get("timestamp"))),
        configuration_a=_configuration(model_a),
        configuration_b=_configuration(model_b),
        model_a=model_a,
        model_b=model_b,
        verdict=verdict,
        blind=blind is True,
        rated=rated and kept is not False,
        voter=str(row.get("judge") or row.get("evaluation_session_id") or "")[:MOST_NAME],
        turns=turns if isinstance(turns, int) else 1,
        style_a=_style(counted, "a"),
        style_b=_style(counted, "b"),
    )


def _name(row: dict[str, Any], key: str) -> str:
    name = row.get(key)
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME or not name.isprintable():
        raise BadRequest(f"{key} must be the name of a model, at most {MOST_NAME} characters")
    return name


def _moment(given: Any) -> str:
    """Seconds since 1970, or ISO 8601, as the store has it."""
    try:
        if isinstance(given, int | float):
            moment = datetime.fromtimestamp(given, UTC)
        else:
            moment = datetime.fromisoformat(given)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        raise BadRequest("tstamp must be seconds since 1970, or timestamp a moment in ISO 8601") from None
    return moment.isoformat(timespec="milliseconds")


def _style(counted: dict[str, Any], side: str) -> Style | None:
    """What was counted; a count may be split by level, and is then the sum. None where tokens were not counted."""
    figures = {field: _figure(counted.get(name.format(side))) for name, field in STYLES}
    if figures["tokens"] is None:
        return None
    return Style(**{field: figure or 0 for field, figure in figures.items()})


def _figure(counted: Any) -> int | None:
    if isinstance(counted, dict):
        return sum(each for each in counted.values() if isinstance(each, int))
    return int(counted) if isinstance(counted, int | float) else None


def _configuration(model: str) -> str:
    """The settings are not known: one configuration for each model."""
    return f"imported-{sha256(model.encode()).hexdigest()[:16]}"
