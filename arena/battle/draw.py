"""Who fights whom: drawn by the system's secure generator, so that nobody can foresee or choose it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import SystemRandom

from arena.errors import BadRequest
from arena.types import ModelInfo, ModelInstance

Pairing = Callable[[Sequence[ModelInstance]], tuple[int, int]]
"""Chooses two of the contestants by their places; which of them is "a" is drawn afterwards."""

_NOT_FOR_CHAT = ("bert", "embed")


def drawn(contestants: Sequence[ModelInstance]) -> tuple[int, int]:
    """Any two, each pair as likely as any other."""
    first, second = SystemRandom().sample(range(len(contestants)), 2)
    return first, second


def pair(contestants: Sequence[ModelInstance], choose: Pairing) -> tuple[ModelInstance, ModelInstance]:
    """The sides "a" and "b". Raises BadRequest for fewer than two contestants."""
    if len(contestants) < 2:
        raise BadRequest("A battle needs at least two models, or two settings of one", code="too_few_contestants")
    sides = [contestants[place] for place in choose(contestants)]
    SystemRandom().shuffle(sides)
    a, b = sides
    return a, b


def can_chat(model: ModelInfo) -> bool:
    """Does a model answer, as far as is known? Embedding models do not."""
    if model.capabilities is not None:
        return "completion" in model.capabilities
    return not any(word in f"{model.family} {model.name}".lower() for word in _NOT_FOR_CHAT)
