"""How a chat is asked, whichever API the server speaks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Required, TypedDict

import msgspec

from arena.errors import BadRequest
from arena.streaming import Outlet
from arena.types import ChatRequest
from arena.upstream.answer import Budget, StreamedAnswer
from arena.wire import Pool, Timeouts

QUICK_S = 10.0
"""Limit for questions that a server answers from memory."""
LIST_BYTES = 64 * 1024 * 1024


class ClientSettings(TypedDict, total=False):
    """What a ChatClient is built with, for dialects that add to it."""

    name: Required[str]
    timeouts: Timeouts | None
    max_deltas: int
    max_bytes: int
    pool: Pool | None
    clock: Callable[[], float]


class ChatClient(ABC):
    """Talks to the server at `url`; `name` is what errors call it. Safe to build without a running loop."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeouts: Timeouts | None = None,
        max_deltas: int = 32768,
        max_bytes: int = 64 * 1024 * 1024,
        headers: Iterable[tuple[str, str]] = (),
        pool: Pool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A `pool` to the same server takes the place of `headers`, and is closed with the client."""
        self.url = url
        self.name = name
        self._timeouts = timeouts or Timeouts()
        self._quick = self._timeouts.at_most(QUICK_S)
        self._pool = pool or Pool(url, name=name, timeouts=self._timeouts, headers=headers)
        self._budget = Budget(max_deltas, max_bytes)
        self._clock = clock

    @abstractmethod
    def ask(
        self, request: ChatRequest, outlet: Outlet, *, contended: Callable[[], bool] | None = None
    ) -> StreamedAnswer:
        """Send a chat request now; its deltas and its Finished go into `outlet` as they come.

        The answer's `result()` tells how it ended, its `close()` hangs up at once, which stops the generation.
        `contended` is asked at the end whether another one ran meanwhile.
        """

    async def chat(self, request: ChatRequest, outlet: Outlet, *, contended: Callable[[], bool] | None = None) -> None:
        """Ask for an answer and wait until it is complete; anything else raises, text that came before stays put."""
        answer = self.ask(request, outlet, contended=contended)
        try:
            await answer.result()
        finally:
            answer.close()

    async def aclose(self) -> None:
        """End all calls and close all connections."""
        await self._pool.aclose()


def encoded(body: dict[str, Any]) -> bytes:
    """`body` as JSON; raises BadRequest for half a character."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise BadRequest("The text holds half of a character (a lone surrogate), which cannot be sent.") from None
