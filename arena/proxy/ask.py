"""Asking several hosts the same at once: each answers for itself, and a silent one costs no more than the limit.

What they say about themselves can be remembered for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import TypeVar

import msgspec

from arena.errors import ArenaError, NoEndpoint, UpstreamBroken
from arena.exchange import Headers, Inbound
from arena.fleet import FRESH_S, Endpoint
from arena.ollama.failures import refusal
from arena.proxy.headers import header, header_value
from arena.proxy.reply import Action, Reply, Surroundings
from arena.wire import Fetched, Timeouts

ASK_S = 5.0
"""Limit in seconds for a question that a host answers from memory."""
LIST_BYTES = 64 * 1024 * 1024

UNAVAILABLE = b"x-olla-unavailable"
"""The header that names the hosts which were asked and gave no answer."""

T = TypeVar("T")
Told = list[tuple[Endpoint, T]]


async def each(
    endpoints: Iterable[Endpoint], ask: Callable[[Endpoint], Awaitable[T]]
) -> tuple[Told[T], Told[ArenaError]]:
    """(answers, errors) in the order of `endpoints`. Being cancelled cancels every question and waits for its end."""

    async def one(endpoint: Endpoint) -> T | ArenaError:
        try:
            return await ask(endpoint)
        except ArenaError as error:
            return error

    asked = tuple(endpoints)
    if len(asked) == 1:
        results = [await one(asked[0])]
    else:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(endpoint)) for endpoint in asked]
        results = [task.result() for task in tasks]
    answers: Told[T] = []
    errors: Told[ArenaError] = []
    for endpoint, result in zip(asked, results, strict=True):
        if isinstance(result, ArenaError):
            errors.append((endpoint, result))
        else:
            answers.append((endpoint, result))
    return answers, errors


async def some(endpoints: Iterable[Endpoint], ask: Callable[[Endpoint], Awaitable[T]]) -> tuple[Told[T], Headers]:
    """The answers, and headers that name who gave them and who gave none.

    Raises NoEndpoint if there are endpoints, but none that answers: an empty list means that there really is nothing.
    """
    answers, errors = await each(endpoints, ask)
    if errors and not answers:
        raise NoEndpoint("No host answers", details="; ".join(error.message for _, error in errors))
    headers: Headers = []
    for name, told in ((b"x-olla-endpoint", answers), (UNAVAILABLE, errors)):
        if told:
            headers.append((name, header_value(",".join(endpoint.name for endpoint, _ in told))))
    return answers, headers


async def fetch(endpoint: Endpoint, path: str, kind: type[T], body: object = None) -> T:
    """What `endpoint` answers from memory to a GET of `path` (a POST of `body`, if there is one), as `kind`.

    Raises UpstreamError and its kin, and what the host's refusal says (ModelNotFound, Busy).
    """
    method, sent = ("GET", None) if body is None else ("POST", msgspec.json.encode(body))
    fetched = await endpoint.pool.fetch(method, path, sent, limit_bytes=LIST_BYTES, timeouts=quick(endpoint))
    if fetched.status != 200:
        raise refusal(*fetched, endpoint.name)
    return decoded(endpoint, fetched, kind)


def decoded(endpoint: Endpoint, fetched: Fetched, kind: type[T]) -> T:
    """The answer's JSON as `kind`; raises UpstreamBroken."""
    try:
        return msgspec.json.decode(fetched.body, type=kind)
    except (ValueError, RecursionError):
        text = f"{endpoint.name} did not answer as expected"
        raise UpstreamBroken(text, endpoint=endpoint.name, code="malformed") from None


def quick(endpoint: Endpoint) -> Timeouts:
    """The limits for a question that is answered from memory."""
    connect_s = min(endpoint.spec.timeouts.connect_s, ASK_S)
    return Timeouts(connect_s=connect_s, first_byte_s=ASK_S, idle_s=ASK_S, total_s=ASK_S)


class Remembered:
    """What all hosts say, the same to every caller: told from memory for FRESH_S seconds, as their models are.

    Then it is asked once for all who want to know at that moment. What is not remembered: an answer that a host which
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
        self._asking: asyncio.Future[Reply] | None = None

    def known(self, proxy: Surroundings, inbound: Inbound) -> Reply | None:
        """The answer, if it is remembered."""
        if self._reply is None or self._clock() >= self._until_s or names_hosts(inbound):
            return None
        return self._reply if self._hosts == _marks(proxy) else None

    async def asked(self, proxy: Surroundings, inbound: Inbound, body: bytes) -> Reply:
        """The answer that hosts give now. Raises what `ask` raises."""
        if names_hosts(inbound):
            return await self._ask(proxy, inbound, body)
        while (asking := self._asking) is not None:
            await asyncio.wait([asking])
            if not asking.cancelled():  # else whoever asked has left: the next one asks
                return asking.result()
        if (remembered := self.known(proxy, inbound)) is not None:
            return remembered  # it came while this request waited for its turn
        asking = self._asking = asyncio.get_running_loop().create_future()
        hosts = _marks(proxy)
        try:
            reply = await self._ask(proxy, inbound, body)
        except ArenaError as error:
            asking.set_exception(error)
            asking.exception()  # which nobody may be waiting for
            raise
        else:
            asking.set_result(reply)
        finally:
            self._asking = None
            asking.cancel()
        if header(reply.headers, UNAVAILABLE) is None:
            self._reply, self._hosts, self._until_s = reply, hosts, self._clock() + FRESH_S
        return reply


def names_hosts(inbound: Inbound) -> bool:
    """May a request be about some hosts only?"""
    return bool(inbound.query) or header(inbound.headers, b"x-olla-endpoint") is not None


def _marks(proxy: Surroundings) -> list[tuple[Endpoint, bool, str | None]]:
    """What changes when a host has come, gone, fallen silent, come back, or become another."""
    return [(one, one.health.up, one.version) for one in proxy.fleet.endpoints]
