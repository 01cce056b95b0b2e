"""Who fights whom: drawn by the system's secure generator, so that nobody can foresee or choose it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from secrets import SystemRandom
from typing import Final

from msgspec import Struct

from arena.errors import BadRequest
from arena.names import canonical
from arena.ratings import PRELIMINARY
from arena.types import ModelInfo, ModelInstance

Drawing = Callable[[Sequence[ModelInstance], int], tuple[int, ...]]
"""Chooses so many of the contestants by their places; who of them is which side is drawn afterwards."""

TOP: Final = 5
"""So many of the best are a newcomer's rivals."""

_NOT_FOR_CHAT = ("bert", "embed")
_NUMBERS: Final = {2: "two", 3: "three", 4: "four"}


class Standing(Struct, frozen=True):
    """Where a model stands on the leaderboard, and what the votes on it weigh."""

    rating: float
    weight: float


def drawn(contestants: Sequence[ModelInstance], sides: int = 2) -> tuple[int, ...]:
    """Any of them, each line-up as likely as any other."""
    return tuple(SystemRandom().sample(range(len(contestants)), sides))


def joined(first: Sequence[int], contestants: Sequence[ModelInstance], sides: int) -> tuple[int, ...]:
    """The `first` ones, and as many others, drawn, as are still wanted."""
    others = [place for place in range(len(contestants)) if place not in first]
    return (*first, *SystemRandom().sample(others, sides - len(first)))


def newcomer(contestants: Sequence[ModelInstance], sides: int, standings: Mapping[str, Standing]) -> tuple[int, ...]:
    """A preliminary contestant, or one with about the fewest votes, and rivals drawn from the best of the others.

    `standings` go by canonical names.
    """
    draw, nobody = SystemRandom(), Standing(0.0, 0.0)
    held = [standings.get(canonical(contestant.model), nobody) for contestant in contestants]
    few = max(PRELIMINARY, min(each.weight for each in held) + 1)
    new = draw.choice([place for place, each in enumerate(held) if each.weight < few])
    known = [place for place, each in enumerate(held) if each.weight >= PRELIMINARY and place != new]
    best = sorted(known, key=lambda place: -held[place].rating)[: max(TOP, sides - 1)]
    rivals = draw.sample(best, min(len(best), sides - 1))
    return joined([new, *rivals], contestants, sides)


def lineup(contestants: Sequence[ModelInstance], sides: int, choose: Drawing) -> tuple[ModelInstance, ...]:
    """The sides, from "a" on. Raises BadRequest where there are fewer contestants than sides."""
    if len(contestants) < sides:
        of_one = ", or two settings of one" if sides == 2 else ", or settings of them"
        raise BadRequest(f"A battle needs at least {_NUMBERS[sides]} models{of_one}", code="too_few_contestants")
    chosen = [contestants[place] for place in choose(contestants, sides)]
    SystemRandom().shuffle(chosen)
    return tuple(chosen)


def can_chat(model: ModelInfo) -> bool:
    """Does a model answer, as far as is known? Embedding models do not."""
    if model.capabilities is not None:
        return "completion" in model.capabilities
    return not any(word in f"{model.family} {model.name}".lower() for word in _NOT_FOR_CHAT)
