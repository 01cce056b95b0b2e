"""What every test gets: a fake Ollama, settings that depend on nothing around, and no way to the outside."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from arena.settings import Settings
from tests.fake_ollama import FakeOllama, RunningFake, running_fake
from tests.outside import closed_to_the_outside

PREFIXES = ("ARENA_", "OLLAMA_", "WEB_", "GRADIO_SERVER_", "GRADIO_ROOT_PATH", "SPACE_ID", "LOG_LEVEL")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Plain asyncio for every asynchronous test."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def hermetic() -> Iterator[None]:
    """No variable or `.env` file of the surroundings reaches a test, and no connection leaves this machine.

    ARENA_TEST_ variables stay: they are how a developer speaks to the tests.
    """
    with pytest.MonkeyPatch.context() as patch, closed_to_the_outside():
        for name in tuple(os.environ):
            if name.startswith(PREFIXES) and not name.startswith("ARENA_TEST_"):
                patch.delenv(name)
        patch.setitem(Settings.model_config, "env_file", None)
        yield


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    """A fake Ollama in the test's own event loop."""
    async with FakeOllama() as server:
        yield server


@pytest.fixture
def fake_thread() -> Iterator[RunningFake]:
    """A fake Ollama in a thread of its own, fresh for each test."""
    with running_fake() as server:
        yield server


@pytest.fixture(scope="session")
def fake_session() -> Iterator[RunningFake]:
    """One fake Ollama in a thread for servers that are started once; whoever uses it resets it."""
    with running_fake() as server:
        yield server
