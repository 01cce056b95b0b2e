"""What tests of battles share: voters, contestants, a clock moved by hand, and battles without a pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from arena.arena import Arena
from arena.battle import Battles, Contest, Shown, Voter
from arena.battle.pace import SIDES
from arena.types import ModelInstance
from tests.api.conftest import settings_for
from tests.fake_ollama import FakeOllama

ANN, BEN = Voter("ann", "192.0.2.1"), Voter("ben")
NAMES = ("m1", "m2", "m3", "m4", "m5")
TWO, THREE = SIDES[:2], SIDES[:3]
CONTESTANTS = tuple(ModelInstance(name, name) for name in NAMES)


class Clock:
    """Seconds moved by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def arena(fake: FakeOllama, tmp_path: Path) -> AsyncIterator[Arena]:
    arena = Arena(settings_for(fake.url, data=tmp_path))
    async with arena.running():
        await arena.started()
        yield arena


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def battles(arena: Arena, clock: Clock) -> Battles:
    """Battles without a pace."""
    return Battles(arena.compare, arena.fleet, arena.store, clock=clock, tick=at_once)


async def at_once() -> None:
    """The next step, with no time between."""
    await asyncio.sleep(0)


def between(*models: str) -> Contest:
    return Contest(tuple(ModelInstance(str(i), model) for i, model in enumerate(models)))


async def shown_of(battles: Battles, battle_id: str, message: str = "Hello!") -> list[list[Shown]]:
    async with aclosing(battles.turn(battle_id, ANN, message)) as steps:
        return [step async for step in steps]
