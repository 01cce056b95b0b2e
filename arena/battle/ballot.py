"""A ballot: one verdict on two sides, or the places of more; kept as one verdict for each pair of sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from msgspec import Struct

from arena.errors import BadRequest
from arena.store import StoredBattle
from arena.style import counted
from arena.types import Verdict, Vote

Ballot = Verdict | Mapping[str, int]
"""A verdict, or the place of each side: 1 is the best, and equal places are ties."""

_OF_ALL: Final[tuple[Verdict, ...]] = ("tie", "both_bad")


def verdicts(sides: Sequence[str], ballot: Ballot) -> dict[str, Verdict]:
    """What the ballot says of each pair of sides, by their letters ("ab"). Raises BadRequest for what does not fit."""
    pairs = list(combinations(sides, 2))
    if not isinstance(ballot, str):
        places = _places(sides, ballot)
        return {one + other: _of_two(places[one], places[other]) for one, other in pairs}
    if ballot not in _OF_ALL and len(pairs) > 1:
        raise BadRequest(f"A battle of {len(sides)} sides takes ranks, or one of the verdicts {' and '.join(_OF_ALL)}")
    return {one + other: ballot for one, other in pairs}


def ranks(told: Mapping[str, Verdict]) -> dict[str, int] | None:
    """The places that verdicts on all pairs came from, without gaps; None where all sides were bad."""
    if "both_bad" in told.values():
        return None
    beaten = {side: 0 for pair in told for side in pair}
    for pair, verdict in told.items():
        if verdict != "tie":
            beaten[pair[1] if verdict == "a" else pair[0]] += 1
    levels = sorted(set(beaten.values()))
    return {side: levels.index(beaten[side]) + 1 for side in sorted(beaten)}


class Cast(Struct, frozen=True):
    """What all votes of one ballot share; see Vote."""

    at: str
    voter: str
    address: str
    prompt: str
    category: str = ""
    tags: tuple[str, ...] = ()
    blind: bool = True
    rated: bool = True
    dwell_s: float | None = None


def votes_on(battle: StoredBattle, told: Mapping[str, Verdict], cast: Cast) -> list[Vote]:
    """A vote for each pair of sides. Two sides that are the same contestant are not rated."""
    styles = {side: counted(kept.answers) for side, kept in battle.sides.items()}
    votes = []
    for pair, verdict in told.items():
        a, b = (battle.sides[side].configuration for side in pair)
        vote = Vote(
            battle_id=battle.id,
            at=cast.at,
            configuration_a=a.id,
            configuration_b=b.id,
            model_a=a.model,
            model_b=b.model,
            verdict=verdict,
            blind=cast.blind,
            rated=cast.rated and a.id != b.id,
            voter=cast.voter,
            address=cast.address,
            category=cast.category,
            tags=cast.tags,
            turns=len(battle.prompts),
            style_a=styles[pair[0]],
            style_b=styles[pair[1]],
            pair=pair,
            sides=len(battle.sides),
            prompt=cast.prompt,
            dwell_s=cast.dwell_s,
        )
        votes.append(vote)
    return votes


def question(prompts: Sequence[str]) -> str:
    """What was asked, such that case and spaces do not make another question of it."""
    return " ".join(["prompt:", *" ".join(prompts).casefold().split()])


def _places(sides: Sequence[str], given: Mapping[str, int]) -> Mapping[str, int]:
    letters = ", ".join(sides)
    if set(given) != set(sides):
        raise BadRequest(f"ranks must give a place to each of {letters}, and to nothing else")
    for side, place in given.items():
        if not isinstance(place, int) or isinstance(place, bool) or not 1 <= place <= len(sides):
            raise BadRequest(f"ranks.{side} must be a place from 1 (the best) to {len(sides)}")
    return given


def _of_two(one: int, other: int) -> Verdict:
    if one == other:
        return "tie"
    return "a" if one < other else "b"
