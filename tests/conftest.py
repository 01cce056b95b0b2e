"""What every test gets: a fake Ollama, settings that depend on nothing around, and no way to the outside."""

from __future__ import annotations

from tests.tracing import measured, untraced  # isort: skip  before any of ours imports a package

import logging
import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from arena.settings import Settings
from tests.fake_ollama import FakeOllama, RunningFake, running_fake
from tests.order import UnitScheduling, turn
from tests.outside import closed_to_the_outside

PREFIXES = ("ARENA_", "OLLAMA_", "WEB_", "GRADIO_SERVER_", "GRADIO_ROOT_PATH", "SPACE_ID", "LOG_LEVEL")

# a busy machine is no fault of the code; without $CI every run tries other examples
settings.register_profile("arena", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arena")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: turn(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> UnitScheduling | None:
    """With --dist loadfile, files that share something dear run in one process."""
    return UnitScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Some tests run at their own pace."""
    with nullcontext() if measured(item.nodeid) else untraced():
        return (yield)


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


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Logging is the process's, and the command line sets it up: leave it as it was."""
    names = (None, "arena", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in map(logging.getLogger, names)]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
