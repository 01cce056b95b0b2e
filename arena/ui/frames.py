"""The pace of the page: many answers arrive as they please, the browser gets calm, even frames.

One frame carries all that is new since the last. The longer the texts on the page, the longer the pause, because the
browser lays every text out again; a frame comes at least every quarter of a second, so that clocks tick and a closed
page is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from arena.streaming import Transcript
from arena.types import Failed
from arena.ui.sessions import Turn

if TYPE_CHECKING:
    from arena.compare import Run

log = logging.getLogger(__name__)

BASE_TICK_S = 0.05
COLUMN_TICK_S = 0.015
"""What each writing column adds to the tick, in seconds: the browser's work for a frame grows with their number."""
MOST_TICK_S = 0.6
CHARACTERS_A_SECOND = 1_000_000
"""Characters on the page that lengthen the tick by one second."""
HEARTBEAT_S = 0.25
"""Longest time between two frames when nothing is new, in seconds."""


def tick_s(characters: int, columns: int) -> float:
    """The pause between two frames, in seconds, for `characters` of text in the `columns` that write."""
    return min(MOST_TICK_S, BASE_TICK_S + columns * COLUMN_TICK_S + characters / CHARACTERS_A_SECOND)


async def pause(event: asyncio.Event, at_most_s: float) -> None:
    """Wait for `event`, but no longer than `at_most_s` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()


async def frames(
    run: Run, turns: Mapping[str, Turn], clock: Callable[[], float] = time.monotonic
) -> AsyncGenerator[frozenset[str], None]:
    """Carry out `run`, folding it into `turns`; yields the columns to draw again, each once more when it has ended.

    Closing this stops the run and waits until the endpoints are free. Every turn has ended afterwards.
    """
    transcript = Transcript(run.instance_ids)
    for letter in run.instance_ids:
        turns[letter].reply = transcript.replies[letter]
    new, ended = asyncio.Event(), asyncio.Event()
    pump = asyncio.create_task(_pump(run, transcript, turns, new, ended, clock), name="page frames")
    live = set(run.instance_ids)
    try:
        while live:
            new.clear()
            ended.clear()
            done = {letter for letter in live if turns[letter].reply.ended}
            yield frozenset(live)
            live -= done
            if live:
                tick = tick_s(sum(_characters(turns[letter]) for letter in live), len(live))
                await pause(ended, tick)
                if tick < HEARTBEAT_S:
                    await pause(new, HEARTBEAT_S - tick)
    finally:
        pump.cancel()
        await asyncio.shield(asyncio.wait([pump]))
        for letter in run.instance_ids:
            _close(turns[letter], letter, clock())  # the pump may have been cancelled before its first step
        if not pump.cancelled() and (error := pump.exception()) is not None:
            log.error("a run's events broke off", exc_info=error)


async def _pump(
    run: Run,
    transcript: Transcript,
    turns: Mapping[str, Turn],
    new: asyncio.Event,
    ended: asyncio.Event,
    clock: Callable[[], float],
) -> None:
    """Fold the run's batches as they come; never waits for the browser."""
    try:
        async with aclosing(run.events()) as batches:
            async for batch in batches:
                now_s = clock()
                for letter in transcript.apply(batch, now_s):
                    turns[letter].heard_s = now_s
                    if turns[letter].reply.ended:
                        ended.set()
                new.set()
    finally:
        for letter in run.instance_ids:
            _close(turns[letter], letter, clock())
        ended.set()


def _close(turn: Turn, letter: str, now_s: float) -> None:
    if not turn.reply.ended:
        turn.reply.error, turn.reply.ended_s = Failed(letter, "stopped", "Stopped."), now_s


def _characters(turn: Turn) -> int:
    return len(turn.reply.text) + len(turn.reply.thinking)
