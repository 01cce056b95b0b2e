"""Names: which models a request's name may stand for, and which endpoints are asked when nobody seems to have one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from arena.errors import ArenaError
from arena.fleet.endpoint import Endpoint
from arena.names import canonical
from arena.types import ModelInfo

T = TypeVar("T")

ASK_S = 2.0
"""How long a missed name keeps its caller waiting while the endpoints are asked."""
FIRST_ASK_S = 10.0
"""The same while there are endpoints that have never answered."""

MAX_SPELLINGS = 4096
"""Spellings of names that are remembered."""

Chain = tuple[tuple[str, str], ...]
"""Models to try in order, each as (canonical name, name as written)."""


class Catalogue:
    """Resolves names: implied `:latest`, any case, aliases."""

    def __init__(self, aliases: Mapping[str, Sequence[str]]) -> None:
        self.aliases = dict(aliases)
        self._chains: dict[str, Chain] = {
            canonical(alias): tuple((canonical(model), model) for model in models) for alias, models in aliases.items()
        }
        self._spelled: dict[str, Chain] = {}

    def chain(self, model: str) -> Chain:
        """What `model` stands for: the models of an alias in order, or itself."""
        chain = self._spelled.get(model)
        if chain is None:
            key = canonical(model)
            chain = self._chains.get(key) or ((key, model),)
            if len(self._spelled) >= MAX_SPELLINGS:
                self._spelled.clear()
            self._spelled[model] = chain
        return chain

    def is_alias(self, model: str | None) -> bool:
        """Is it the name of an alias?"""
        return bool(self._chains) and model is not None and canonical(model) in self._chains

    def listed(self, models: Iterable[ModelInfo]) -> dict[str, ModelInfo]:
        """`models` of all endpoints merged by name, with every alias that stands for one of them; ordered by name."""
        merged: dict[str, ModelInfo] = {}
        for info in models:
            key = canonical(info.name)
            merged[key] = info if (first := merged.get(key)) is None else _both(first, info)
        for alias, names in self.aliases.items():
            real = [merged[canonical(name)] for name in names if canonical(name) in merged]
            if real:
                merged[canonical(alias)] = msgspec.structs.replace(real[0], name=alias)
        return {key: merged[key] for key in sorted(merged)}


def _both(first: ModelInfo, other: ModelInfo) -> ModelInfo:
    return msgspec.structs.replace(
        first, endpoints=first.endpoints + other.endpoints, loaded_on=first.loaded_on + other.loaded_on
    )


async def ask(endpoints: Sequence[Endpoint]) -> list[ArenaError]:
    """Have all `endpoints` asked which models they have, for ASK_S at most; returns the errors of those that failed.

    However many callers miss a name at once, each endpoint is asked once. Late answers are taken in when they come.
    """
    limit_s = ASK_S if all(endpoint.heard for endpoint in endpoints) else FIRST_ASK_S
    _, errors = await settled((endpoint.models(0.0) for endpoint in endpoints), limit_s)
    return errors


async def settled(
    asking: Iterable[Coroutine[Any, Any, T]], limit_s: float | None = None
) -> tuple[list[T], list[ArenaError]]:
    """Run all at once, for `limit_s` seconds at most; returns what came of those that ended, answers and errors."""
    tasks = [asyncio.create_task(one) for one in asking]
    if not tasks:
        return [], []
    try:
        await asyncio.wait(tasks, timeout=limit_s)
    finally:
        for task in tasks:
            task.cancel()
    answers: list[T] = []
    errors: list[ArenaError] = []
    for task in tasks:
        if not task.done():
            continue
        error = task.exception()
        if error is None:
            answers.append(task.result())
        elif isinstance(error, ArenaError):
            errors.append(error)
        else:
            raise error
    return answers, errors
