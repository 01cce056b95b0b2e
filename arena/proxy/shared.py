"""Questions to hosts that many ask: one task asks for all who want to know, and what it hears may be remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic

from arena.exchange import Inbound
from arena.fleet import FRESH_S, Endpoint
from arena.proxy.ask import UNAVAILABLE, names_hosts
from arena.proxy.headers import header
from arena.proxy.reply import Action, Reply, Surroundings

TURN_S = 0.05
"""Longest time in seconds that a question waits for the one before it: whoever comes meanwhile shares it."""


class Question:
    """A task that belongs to nobody: it asks for all who wait, and is cancelled when the last of them has left.

    It begins when the one `before` has ended, or TURN_S later.
    """

    def __init__(self, ask: Callable[[], Awaitable[Reply]], before: Question | None = None) -> None:
        self.begun = False
        """Have the hosts been asked?"""
        self._waiting = 0
        self._task = asyncio.create_task(self._run(ask, before), name="question to hosts")
        self._task.add_done_callback(_heard)

    @property
    def open(self) -> bool:
        """Is there an answer to come?"""
        return not (self._task.done() or self._task.cancelling())

    async def answer(self) -> Reply:
        """The answer, for one more. Raises what the question ends with."""
        self._waiting += 1
        try:
            await asyncio.wait([self._task])
        finally:
            self._waiting -= 1
            if not self._waiting and not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
        return self._task.result()

    async def _run(self, ask: Callable[[], Awaitable[Reply]], before: Question | None) -> Reply:
        if before is not None:
            await asyncio.wait([before._task], timeout=TURN_S)
        self.begun = True
        return await ask()


class Together:
    """What hosts are asked anew each time, but once for all who come before they are asked.

    Nobody is told what was asked before they came. A model may have been pulled or deleted since then, through us or on
    the host itself, and every chat changes what is in memory: whoever knows of it must find it. While a question is
    under way, all who come share the next one; so a host has one at a time, as long as it answers within TURN_S.
    """

    def __init__(self, ask: Action) -> None:
        self._ask = ask
        self._latest: dict[tuple[str, tuple[str, ...] | None], Question] = {}

    async def asked(self, proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        """The answer that hosts give from now on. Raises what `ask` raises."""
        if names_hosts(inbound):
            return await self._ask(proxy, inbound, body)
        key = inbound.path, inbound.caller.models  # and nothing else of a request makes a difference
        question = self._latest.get(key)
        if question is None or question.begun or not question.open:
            question = self._latest[key] = Question(partial(self._ask, proxy, inbound, body), question)
        try:
            return await question.answer()
        finally:
            if not question.open and self._latest.get(key) is question:
                del self._latest[key]


class Remembered:
    """What all hosts say, the same to every caller: told from memory for FRESH_S seconds, as their models are.

    Then it is asked once for all who want to know until it is told. What is not remembered: an answer that a host which
    was asked is missing from, and what is said by hosts that a request names. Once one has come, gone, or changed, all
    are asked.
    """

    def __init__(self, ask: Action, clock: Callable[[], float] = monotonic) -> None:
        """`clock` tells seconds."""
        self._ask = ask
        self._clock = clock
        self._reply: Reply | None = None
        self._until_s = 0.0
        self._hosts: list[tuple[Endpoint, bool, str | None]] = []
        self._question: Question | None = None

    def known(self, proxy: Surroundings, inbound: Inbound) -> Reply | None:
        """The answer, if it is remembered."""
        if self._reply is None or self._clock() >= self._until_s or names_hosts(inbound):
            return None
        return self._reply if self._hosts == _marks(proxy) else None

    async def asked(self, proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        """The answer that hosts give now. Raises what `ask` raises."""
        if names_hosts(inbound):
            return await self._ask(proxy, inbound, body)
        if (remembered := self.known(proxy, inbound)) is not None:
            return remembered  # it came while this request waited for its turn
        question = self._question
        if question is None or not question.open:
            question = self._question = Question(partial(self._renewed, proxy, inbound, body))
        return await question.answer()

    async def _renewed(self, proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        """Ask, and remember what all have said."""
        hosts = _marks(proxy)
        reply = await self._ask(proxy, inbound, body)
        if header(reply.headers, UNAVAILABLE) is None:
            self._reply, self._hosts, self._until_s = reply, hosts, self._clock() + FRESH_S
        return reply


def _heard(task: asyncio.Task[Reply]) -> None:
    """A question may fail when everybody who waited is about to leave: then nobody is left to complain to."""
    if not task.cancelled():
        task.exception()


def _marks(proxy: Surroundings) -> list[tuple[Endpoint, bool, str | None]]:
    """What changes when a host has come, gone, fallen silent, come back, or become another."""
    return [(one, one.health.up, one.version) for one in proxy.fleet.endpoints]
