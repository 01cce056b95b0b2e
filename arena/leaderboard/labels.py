"""What configurations are called by people: no two alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from arena.types import Configuration

_SHOWN: Final = 12  # digits of a digest, as many as `ollama list` shows


def labels(configurations: Iterable[Configuration]) -> dict[str, str]:
    """The label of each, by id. Where several have the same one it tells their weights too, or at last their id."""
    every = tuple(configurations)
    told = {each.id: each.label or each.model for each in every}
    for more in (_weights, _identity):
        told = _apart(told, every, more)
    return told


def _apart(
    told: dict[str, str], every: Iterable[Configuration], more: Callable[[Configuration], str]
) -> dict[str, str]:
    often = Counter(told.values())
    return {each.id: f"{label}, {more(each)}" if often[label := told[each.id]] > 1 else label for each in every}


def _weights(configuration: Configuration) -> str:
    digest = (configuration.digest or "").removeprefix("sha256:")
    return f"weights {digest[:_SHOWN]}" if digest else "weights unknown"


def _identity(configuration: Configuration) -> str:
    return f"id {configuration.id}"
