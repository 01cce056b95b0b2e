"""Votes with the names in sight: which of some columns was the best. Kept apart from what blind battles say."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from msgspec import Struct, to_builtins

from arena.battle.ballot import Cast, votes_on
from arena.battle.reveal import configuration_of
from arena.errors import Conflict
from arena.store import Side, StoredBattle
from arena.streaming import Reply
from arena.types import ModelInstance, Verdict, Vote


class Column(Struct, frozen=True):
    """A column that was looked at: who answered, and what."""

    instance: ModelInstance
    reply: Reply


def preferred(
    turn_id: str, prompt: str, columns: Sequence[Column], best: int, cast: Cast
) -> tuple[list[Vote], StoredBattle]:
    """A vote for each whole answer that the best one was better than; columns are lettered from the left.

    Raises Conflict unless the best answer and another one are whole.
    """
    sides = {letter: side for letter, each in zip(ascii_lowercase, columns, strict=False) if (side := _side(each))}
    won = ascii_lowercase[best] if 0 <= best < len(columns) else ""
    if won not in sides or len(sides) < 2:
        raise Conflict("Only a whole answer beside another one can be voted for", code="not_comparable")
    told: dict[str, Verdict] = {}
    for other in sides.keys() - {won}:
        left, right = sorted((won, other))
        told[left + right] = "a" if won == left else "b"
    battle = StoredBattle(turn_id, cast.at, "direct", (prompt,), sides)
    return votes_on(battle, dict(sorted(told.items())), cast), battle


def _side(column: Column) -> Side | None:
    """What is kept of a column, if its answer is whole."""
    reply = column.reply
    if reply.metrics is None or reply.manifest is None:
        return None
    of = configuration_of(column.instance, reply.manifest)
    return Side(of, (reply.text,), (to_builtins(reply.metrics),), (to_builtins(reply.manifest),))
