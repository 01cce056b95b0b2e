"""The model's name chooses the behaviour: `fx-<scenario>[:<key>-<value>[_<key>-<value>...]]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = re.compile(r"(?:[\w.-]+(?::\d{1,5})?/)?(?:[\w.-]+/)?\w[\w.-]{0,79}(?::\w[\w.-]{0,79})?", re.ASCII)
NUMBERS = frozenset((
    "n", "ms", "ttft", "seed", "load", "queue", "size", "think", "prompt", "p", "at", "c", "ra",
    "k", "kb", "mb", "kbs", "cut", "clean", "depth",
))  # fmt: skip
WORDS = frozenset(("id", "kind", "on"))


class UnknownScenario(ValueError):
    """The name begins with fx- but means nothing: most likely a slip in the test."""


@dataclass(frozen=True)
class Plan:
    """One request's script. `model` is the name as sent; `scenario` is the word after fx-."""

    model: str
    scenario: str = "ok"
    keys: Mapping[str, str] = field(default_factory=dict)

    def number(self, key: str, default: int) -> int:
        """The whole number of `key`, or `default` where the name does not carry it."""
        return int(self.keys.get(key, default))

    def word(self, key: str, default: str = "") -> str:
        """The word of `key`, or `default`."""
        return self.keys.get(key, default)

    def seconds(self, key: str, default_ms: int = 0) -> float:
        """The milliseconds of `key`, in seconds."""
        return self.number(key, default_ms) / 1000

    @property
    def at(self) -> int:
        """The number of tokens before a fault in mid-stream: key `at`, else `n`, else 5."""
        return self.number("at", self.number("n", 5))


def parse(model: str, known: frozenset[str]) -> Plan:
    """Read a model's name. Ordinary names play fx-ok; raises UnknownScenario for a slip in an fx- name."""
    lower = model.lower()
    if not lower.startswith("fx-"):
        return Plan(model)
    scenario, _, tag = lower.removeprefix("fx-").partition(":")
    if scenario not in known:
        raise UnknownScenario(f"the fake has no scenario fx-{scenario}")
    return Plan(model, scenario, {} if tag in ("", "latest") else _keys(tag))


def _keys(tag: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for pair in tag.split("_"):
        key, _, value = pair.partition("-")
        if key in NUMBERS and not value.isdigit():
            raise UnknownScenario(f"the fake wants a number after {key}-")
        if key not in NUMBERS | WORDS or not value:
            raise UnknownScenario(f"the fake has no key {key!r}")
        keys[key] = value
    return keys
