"""Votes with the names in sight: which of some columns was the best. Kept apart from what blind battles say."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, to_builtins

from arena.battle.battle import moment
from arena.battle.reveal import configuration_of
from arena.errors import Conflict
from arena.store import Side, StoredBattle
from arena.streaming import Reply
from arena.style import counted
from arena.types import ModelInstance, Vote


class Column(Struct, frozen=True):
    """A column that was looked at: who answered, and what."""

    instance: ModelInstance
    reply: Reply


def preferred(
    turn_id: str, prompt: str, columns: Sequence[Column], best: int, voter: str, address: str
) -> list[tuple[Vote, StoredBattle]]:
    """A vote for each whole answer that the best one was better than; the column further left is a.

    Raises Conflict unless the best answer and another one are whole.
    """
    sides = {place: side for place, column in enumerate(columns) if (side := _side(column)) is not None}
    if best not in sides or len(sides) < 2:
        raise Conflict("Only a whole answer beside another one can be voted for", code="not_comparable")
    at = moment()
    found = []
    for other in sorted(sides.keys() - {best}):
        left, right = sorted((best, other))
        battle_id = f"{turn_id}.{left}.{right}"
        a, b = sides[left], sides[right]
        vote = Vote(
            battle_id=battle_id,
            at=at,
            configuration_a=a.configuration.id,
            configuration_b=b.configuration.id,
            model_a=a.configuration.model,
            model_b=b.configuration.model,
            verdict="a" if best == left else "b",
            blind=False,
            rated=False,
            voter=voter,
            address=address,
            style_a=counted(a.answers),
            style_b=counted(b.answers),
        )
        found.append((vote, StoredBattle(battle_id, at, "direct", (prompt,), {"a": a, "b": b})))
    return found


def _side(column: Column) -> Side | None:
    """What is kept of a column, if its answer is whole."""
    reply = column.reply
    if reply.metrics is None or reply.manifest is None:
        return None
    of = configuration_of(column.instance, reply.manifest)
    return Side(of, (reply.text,), (to_builtins(reply.metrics),), (to_builtins(reply.manifest),))
