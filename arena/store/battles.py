"""A battle as it is kept with its vote: the prompts, and what each side said."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from arena.types import Configuration


class Side(Struct, frozen=True):
    """One side of a kept battle; a text, its metrics and its manifest (as plain values) for each turn."""

    configuration: Configuration
    answers: tuple[str, ...]
    metrics: tuple[dict[str, Any], ...] = ()
    manifests: tuple[dict[str, Any], ...] = ()


class StoredBattle(Struct, frozen=True):
    """A battle that was voted on. `mode` tells how its pair came about; `sides` by the letters of the vote."""

    id: str
    at: str
    mode: str
    prompts: tuple[str, ...]
    sides: dict[str, Side]
