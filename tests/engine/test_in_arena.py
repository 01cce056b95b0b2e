"""The engine's troubles as the arena tells them: one column's error, and the engine comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from arena.arena import Arena
from arena.engine.process import EngineProcess
from arena.settings import Settings
from arena.streaming import Reply, Transcript
from arena.types import ChatMessage, ChatRequest, Delta, ModelInstance, Options
from tests.engine.conftest import children, until
from tests.engine.test_process import environment, settings_for

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

IDLE_S = 2.0
"""Of an engine that stands still; whoever only waits for a core is not taken for one elsewhere."""
LONG = Options(num_predict=100_000, num_ctx=512)
SHORT = Options(num_predict=4, num_ctx=512)


@pytest.fixture
async def arena(tiny_data: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Arena, EngineProcess]]:
    """An arena on an engine of its own, which may be silent for as long as the test says."""
    engine = EngineProcess(settings_for(tiny_data), environment(OLLAMA_NUM_PARALLEL="1"), fetch=False)
    values: dict[str, Any] = {"engine": "on", "idle_timeout_s": getattr(request, "param", 60.0)}
    async with Arena(Settings(**values), engine=engine).running() as arena:
        await arena.started()
        yield arena, engine


def asking(*models: str, options: Options = LONG) -> list[ChatRequest]:
    """The same prompt to each model, under its own name."""
    return [ChatRequest(ModelInstance(model, model, options), (ChatMessage("user", "Hello"),)) for model in models]


async def answered(arena: Arena, model: str) -> Reply:
    """A short answer."""
    return (await arena.compare.start(asking(model, options=SHORT)).transcript()).replies[model]


async def hit(arena: Arena, kill: Callable[[], object], *models: str) -> Transcript:
    """Answers that are under way when `kill()` strikes, to their end.

    Those of random weights may be short, and on a busy machine over before: then all is done once more.
    """
    async with asyncio.timeout(60):
        while True:
            for model in models:  # all are loaded, so that none has ended when another begins
                while (await answered(arena, model)).metrics is None:
                    await until(lambda: arena.engine_state == "running")
            transcript = await struck(arena, kill, *models)
            if any(reply.error for reply in transcript.replies.values()):
                return transcript


async def struck(arena: Arena, kill: Callable[[], object], *models: str) -> Transcript:
    """Answers to their end, of which each had begun when `kill()` was called."""
    transcript, talking = Transcript(models), set[str]()
    async with aclosing(arena.compare.start(asking(*models)).events()) as events:
        async for batch in events:
            transcript.apply(batch)
            before = len(talking)
            talking |= {event.instance_id for event in batch if isinstance(event, Delta)}
            if before < len(models) == len(talking):
                kill()
    return transcript


async def test_a_killed_runner_is_its_own_columns_error(arena: tuple[Arena, EngineProcess]) -> None:
    house, engine = arena

    def kill() -> None:
        (runner,) = children(engine.pid)
        os.kill(runner, signal.SIGKILL)

    told = await hit(house, kill, "tiny:one")
    error = told.replies["tiny:one"].error
    assert error is not None
    assert error.code == "upstream_error"
    assert "SIGKILL" in error.message
    assert told.replies["tiny:one"].text
    assert (await answered(house, "tiny:one")).metrics is not None
    assert engine.running


async def test_a_killed_engine_comes_back(arena: tuple[Arena, EngineProcess]) -> None:
    house, engine = arena
    killed: list[int] = []

    def kill() -> None:
        assert engine.pid is not None
        killed.append(engine.pid)
        os.kill(engine.pid, signal.SIGKILL)

    told = await hit(house, kill, "tiny:one", "tiny:two")
    assert all(reply.ended for reply in told.replies.values())
    codes = {reply.error.code for reply in told.replies.values() if reply.error}  # one may have been at its end
    assert codes
    assert codes <= {"upstream_reset", "upstream_eof"}
    await until(lambda: engine.restarts == len(killed))
    assert (await answered(house, "tiny:one")).metrics is not None


@pytest.mark.parametrize("arena", [IDLE_S], indirect=True)
async def test_an_engine_that_stands_still_is_told_and_goes_on(arena: tuple[Arena, EngineProcess]) -> None:
    house, engine = arena
    pid = engine.pid
    assert pid is not None
    try:
        told = await hit(house, lambda: os.kill(pid, signal.SIGSTOP), "tiny:one")
    finally:
        os.kill(pid, signal.SIGCONT)
    error = told.replies["tiny:one"].error
    assert error is not None
    assert error.code == "timeout"
    async with asyncio.timeout(60):
        while (await answered(house, "tiny:one")).metrics is None:
            pass
