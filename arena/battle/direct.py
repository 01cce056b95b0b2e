"""Votes with the names in sight: which of some columns was the best. Kept apart from what blind battles say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from string import ascii_lowercase
from typing import Final

import msgspec
from msgspec import Struct, to_builtins

from arena.battle.ballot import Cast, votes_on
from arena.battle.reveal import configuration_of
from arena.errors import Conflict
from arena.store import Side, StoredBattle
from arena.streaming import Reply
from arena.types import ModelInstance, Verdict, Vote

MOST_COLUMNS: Final = len(ascii_lowercase)


class Column(Struct, frozen=True):
    """A column that was looked at: who answered, and what, once for each prompt."""

    instance: ModelInstance
    replies: tuple[Reply, ...]


def preferred(
    prompts: Sequence[str], columns: Sequence[Column], best: int, cast: Cast
) -> tuple[list[Vote], StoredBattle]:
    """A vote for each whole answer that the best one was better than; columns are lettered from the left.

    The battle's id follows from its content. Raises Conflict unless the best answer and another one are whole.
    """
    sides = {letter: side for letter, each in zip(ascii_lowercase, columns, strict=False) if (side := _side(each))}
    won = ascii_lowercase[best] if 0 <= best < min(len(columns), MOST_COLUMNS) else ""
    if won not in sides or len(sides) < 2:
        raise Conflict("Only a whole answer beside another one can be voted for", code="not_comparable")
    told: dict[str, Verdict] = {}
    for other in sides:
        if other != won:
            left, right = sorted((won, other))
            told[left + right] = "a" if won == left else "b"
    battle = StoredBattle(_identity(prompts, sides), cast.at, "direct", tuple(prompts), sides)
    return votes_on(battle, told, cast), battle


def _identity(prompts: Sequence[str], sides: Mapping[str, Side]) -> str:
    return sha256(msgspec.json.encode((prompts, sides), order="deterministic")).hexdigest()[:32]


def _side(column: Column) -> Side | None:
    """What is kept of a column, if its answers are whole."""
    metrics = [reply.metrics for reply in column.replies if reply.metrics is not None]
    manifests = [reply.manifest for reply in column.replies if reply.manifest is not None]
    if not column.replies or not len(metrics) == len(manifests) == len(column.replies):
        return None
    return Side(
        configuration_of(column.instance, manifests[-1]),
        tuple(reply.text for reply in column.replies),
        tuple(to_builtins(each) for each in metrics),
        tuple(to_builtins(each) for each in manifests),
    )
