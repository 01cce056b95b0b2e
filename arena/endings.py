"""Tasks that must be over before their owner goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


async def finished(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait for tasks whatever becomes of them, however often this is cancelled meanwhile; it cancels none of them."""
    waited, cancelled = set(tasks), None
    try:
        while not all(task.done() for task in waited):
            try:
                await asyncio.wait(waited)
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        if cancelled is not None:
            raise cancelled
    finally:
        cancelled = None  # its traceback knows this frame: nothing is left to the collector
