"""A host whose process stands still: its system goes on taking requests, which nobody will answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from arena.errors import ArenaError, Unreachable, UpstreamTimeout

if TYPE_CHECKING:
    from arena.fleet.endpoint import Endpoint


async def give_up(endpoint: Endpoint, since_s: float) -> None:
    """A probe has found it silent and down: what waits for a first byte since `since_s` (the loop's) goes elsewhere.

    What nobody else could take now waits on: the host may but swap while it loads.

    Ollama tells its version whatever it loads. A server of another kind may do one thing at a time: its silence tells
    nothing.
    """
    if not endpoint.native or not endpoint.pool.unheard(since_s) or await _speaks(endpoint):
        return
    for call in endpoint.pool.unheard(since_s):
        asyncio.get_running_loop().call_soon(call.give_up, since_s)  # the log's request id is not for the probe


async def _speaks(endpoint: Endpoint) -> bool:
    """Does it say anything at all, when it is asked for its version?"""
    try:
        async with asyncio.timeout(endpoint.spec.check_timeout_s):
            await endpoint.client.version()
    except (TimeoutError, Unreachable, UpstreamTimeout):
        return False
    except ArenaError:
        pass
    return True
