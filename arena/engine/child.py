"""A child process that is waited for: it must be over before its owner goes on."""

from __future__ import annotations

import asyncio
import contextlib


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
