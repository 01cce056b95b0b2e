"""The pace of the page: what comes is shown soon, nothing is shown too often, and every turn ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest

from arena.types import Batch, ChatRequest, Delta, Finished, Metrics
from arena.ui import frames as pace
from arena.ui.frames import HEARTBEAT_S, MOST_TICK_S, frames, pause, tick_s
from arena.ui.sessions import Turn
from tests.ui.pieces import turn

PATIENCE_S = 20.0


class ScriptedRun:
    """A run whose batches the test puts in by hand."""

    def __init__(self, *letters: str) -> None:
        self.instance_ids = letters
        self.requests: Sequence[ChatRequest] = ()
        self.batches: asyncio.Queue[Batch | BaseException | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def events(self) -> AsyncGenerator[Batch, None]:
        try:
            while (batch := await self.batches.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            self.closed.set()


def following(run: ScriptedRun, turns: dict[str, Turn]) -> AsyncGenerator[frozenset[str], None]:
    return frames(cast(Any, run), turns, lambda: 7.0)


async def until(changes: AsyncGenerator[frozenset[str], None], condition: Any) -> None:
    """Take frames until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await anext(changes)


def test_the_pause_grows_with_the_text_up_to_a_limit() -> None:
    assert tick_s(0, 2) == pytest.approx(0.08)
    assert tick_s(0, 6) == pytest.approx(0.14)
    assert tick_s(100_000, 2) == pytest.approx(0.18)
    assert tick_s(10_000_000, 1) == MOST_TICK_S


@pytest.mark.anyio
async def test_what_comes_is_folded_into_the_turns_and_an_ended_column_is_drawn_once_more() -> None:
    run, turns = ScriptedRun("A", "B"), {"A": turn("A"), "B": turn("B")}
    async with aclosing(following(run, turns)) as changes:
        assert await anext(changes) == {"A", "B"}
        run.batches.put_nowait([Delta("A", "one ")])
        await until(changes, lambda: turns["A"].reply.text == "one ")
        assert turns["A"].heard_s == 7.0
        run.batches.put_nowait([Delta("A", "two"), Finished("A", Metrics())])
        await until(changes, lambda: turns["A"].reply.ended)
        while (last := await anext(changes)) != {"B"}:
            assert last == {"A", "B"}
        run.batches.put_nowait([Finished("B", Metrics())])
        run.batches.put_nowait(None)
        assert [frame async for frame in changes][-1] == {"B"}
    assert turns["A"].reply.text == "one two"


@pytest.mark.anyio
async def test_a_silent_run_still_gives_frames() -> None:
    run, turns = ScriptedRun("A"), {"A": turn("A")}
    async with asyncio.timeout(PATIENCE_S), aclosing(following(run, turns)) as changes:
        assert [await anext(changes) for _ in range(3)] == [{"A"}] * 3


@pytest.mark.anyio
async def test_leaving_ends_the_run_and_every_turn() -> None:
    run, turns = ScriptedRun("A", "B"), {"A": turn("A"), "B": turn("B")}
    changes = following(run, turns)
    await anext(changes)
    run.batches.put_nowait([Delta("A", "one")])
    await until(changes, lambda: turns["A"].reply.text)
    await changes.aclose()
    assert run.closed.is_set()
    assert [turns[letter].reply.error is not None for letter in "AB"] == [True, True]
    assert turns["A"].reply.text == "one"


@pytest.mark.anyio
async def test_leaving_before_the_run_has_begun_leaves_nothing_behind() -> None:
    run, turns = ScriptedRun("A"), {"A": turn("A")}
    changes = following(run, turns)
    await anext(changes)
    await changes.aclose()
    assert turns["A"].reply.error is not None


@pytest.mark.anyio
async def test_a_run_that_breaks_off_ends_its_turns_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    run, turns = ScriptedRun("A"), {"A": turn("A")}
    run.batches.put_nowait(RuntimeError("no"))
    async with asyncio.timeout(PATIENCE_S):
        assert {frame async for frame in following(run, turns)} == {frozenset("A")}
    assert turns["A"].reply.error is not None
    assert "broke off" in caplog.text


@pytest.mark.anyio
async def test_a_pause_ends_early_when_something_happens() -> None:
    happened = asyncio.Event()
    waiting = asyncio.create_task(pause(happened, 3600))
    happened.set()
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    happened.clear()
    await pause(happened, 0)


@pytest.mark.anyio
async def test_long_texts_are_given_the_longer_pause_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def note(event: asyncio.Event, at_most_s: float) -> None:
        pauses.append(at_most_s)

    monkeypatch.setattr(pace, "pause", note)
    run, turns = ScriptedRun("A"), {"A": turn("A")}
    async with aclosing(following(run, turns)) as changes:
        await anext(changes)
        await anext(changes)
        assert pauses == [tick_s(0, 1), HEARTBEAT_S - tick_s(0, 1)]
        turns["A"].reply.text = "x" * 600_000
        await anext(changes)
    assert pauses[2:] == [MOST_TICK_S]
