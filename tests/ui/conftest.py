"""A started arena on a fake Ollama, without server and without browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from arena.arena import Arena
from arena.settings import load
from arena.ui.conversation import Conversations
from tests.fake_ollama import FakeOllama


@pytest.fixture
async def arena(fake: FakeOllama) -> AsyncIterator[Arena]:
    """The arena, with the fake as its only endpoint."""
    arena = Arena(load(endpoints=(f"fake={fake.url}",), engine="off"))
    async with arena.running():
        await arena.started()
        yield arena


@pytest.fixture
def conversations(arena: Arena) -> Conversations:
    """The compare tab's work on that arena."""
    return Conversations(arena)
