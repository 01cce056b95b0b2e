"""Votes to store."""

from __future__ import annotations

from typing import Any

from arena.store import Side, StoredBattle
from arena.types import Configuration, Style, Vote

AT = "2026-03-01T10:00:00.000+00:00"
LLAMA = Configuration(
    "c-llama", "llama3.2:3b", "sha256:1", {"temperature": 0.2}, "gpu1", "llama3.2:3b, temperature 0.2"
)
QWEN = Configuration("c-qwen", "qwen2.5:3b")


def vote(battle_id: str, **changes: Any) -> Vote:
    """A vote for a on this battle."""
    values: dict[str, Any] = {
        "at": AT,
        "configuration_a": LLAMA.id,
        "configuration_b": QWEN.id,
        "model_a": LLAMA.model,
        "model_b": QWEN.model,
        "verdict": "a",
        "voter": "ann",
        **changes,
    }
    return Vote(battle_id, **values)


def battle(battle_id: str) -> StoredBattle:
    """The battle that the vote is about."""
    sides = {
        "a": Side(LLAMA, ("Hi.", "Bye. 日本 '\"\\"), ({"tokens": 3}, {}), ({"model": "llama3.2:3b"}, {})),
        "b": Side(QWEN, ("Hello.", ""), ({}, {}), ({}, {})),
    }
    return StoredBattle(battle_id, "2026-03-01T09:59:00.000+00:00", "installed", ("Hi!", "Bye!"), sides)


STYLED = {"style_a": Style(12, 1, 2, 3), "style_b": Style(), "tags": ("go", "c++"), "category": "coding", "turns": 2}
