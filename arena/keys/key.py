"""A key and what it has used: values, and the questions that need nothing else. No I/O."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

from arena.errors import Forbidden
from arena.names import matches

Scope = Literal["chat", "embed", "manage", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
DAY_S: Final = 86400

Limit = Annotated[int, Meta(ge=1, le=10**15)]


class Key(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A named key as it is kept. `models` are globs (None: all); limits are None where there is none."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    scopes: tuple[Scope, ...]
    models: tuple[Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z")], ...] | None = None
    per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_day: Limit | None = None
    concurrent: Limit | None = None
    created: str = ""


class Tally(Struct, omit_defaults=True):
    """What one model, or one host, did for a key."""

    answers: int = 0
    tokens: int = 0


class Use(Struct, omit_defaults=True):
    """What a key has used. `day` counts UTC days since 1970; `last_s` is the wall clock of the last request let in."""

    requests: int = 0
    refused: int = 0
    tokens: int = 0
    day: int = 0
    day_tokens: int = 0
    last_s: float | None = None
    models: dict[str, Tally] = {}
    hosts: dict[str, Tally] = {}


def check_scope(key: Key, scope: Scope | None) -> None:
    """Raises Forbidden unless `key` has `scope`, or is an admin's."""
    if scope is not None and scope not in key.scopes and "admin" not in key.scopes:
        has = ", ".join(key.scopes)
        raise Forbidden(f"This key has the scopes: {has}; this needs {scope}. Ask the operator for a key that has it")


def allows(models: tuple[str, ...] | None, name: str) -> bool:
    """May the model `name` be used by whoever has `models` (globs; None: all)?"""
    return models is None or matches(name, models)


def check_model(allowed: tuple[str, ...] | None, model: str | None) -> None:
    """Raises Forbidden unless `allowed` (globs; None: all) lets `model` (None: none was named) be used."""
    if model is not None and not allows(allowed, model):
        text = f"This key may not use that model; it may use: {', '.join(allowed or ()) or 'none'}"
        raise Forbidden(text, code="model_not_allowed")


def tokens_of_day(use: Use, now: float) -> int:
    """The tokens used since the last midnight (UTC)."""
    return use.day_tokens if use.day == day_of(now) else 0


def day_of(now: float) -> int:
    """The UTC day of `now`, counted since 1970."""
    return int(now // DAY_S)
