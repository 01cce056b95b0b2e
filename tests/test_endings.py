"""Tasks that are waited for: whatever becomes of them, and however often whoever waits is cancelled."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from arena.endings import finished

pytestmark = pytest.mark.anyio


class Work:
    """A task that cleans up until its gate is opened."""

    def __init__(self) -> None:
        self.cleaning, self.gate, self.cleaned = asyncio.Event(), asyncio.Event(), False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaning.set()
            await self.gate.wait()
            self.cleaned = True

    async def end(self) -> None:
        self.task.cancel()
        await finished([self.task])


async def begun() -> Work:
    work = Work()
    await asyncio.sleep(0)
    return work


async def test_nothing_to_wait_for_is_no_wait() -> None:
    await finished([])
    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await finished([done])


async def test_failures_and_cancellations_are_ends() -> None:
    async def fail() -> None:
        raise ValueError("told to whoever asks the task")

    failing, work = asyncio.create_task(fail()), await begun()
    work.gate.set()
    work.task.cancel()
    await finished([failing, work.task])
    assert (type(failing.exception()), work.task.cancelled()) == (ValueError, True)


async def test_the_end_is_waited_for_however_often_the_waiting_is_cancelled() -> None:
    work = await begun()
    waiting = asyncio.create_task(work.end())
    await work.cleaning.wait()
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not waiting.done()
    work.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cleaned


async def test_a_cancelled_scope_waits_too_and_knows_its_own_cancellation() -> None:
    work = await begun()
    with anyio.CancelScope() as scope:  # which cancels at every turn of the loop, until its body has ended
        scope.cancel()
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(work.gate.set))
        await work.end()
    assert scope.cancelled_caught
    assert work.cleaned
