"""Ends that are waited for: tasks and processes that must be over before their owner goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any


async def finished(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait for tasks whatever becomes of them, even while being cancelled."""
    if waited := set(tasks):
        waiting = asyncio.ensure_future(asyncio.wait(waited))
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await waiting
            raise


async def complaints(process: asyncio.subprocess.Process) -> str:
    """What the process says on standard error until it ends; cancelling kills it and waits for that."""
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
    return said.decode("utf-8", "replace")
