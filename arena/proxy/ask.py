"""Asking several hosts the same at once: each answers for itself, and a silent one costs no more than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

from arena.errors import ArenaError, NoEndpoint, UpstreamBroken
from arena.exchange import Headers, Inbound
from arena.fleet import Endpoint
from arena.ollama.failures import refusal
from arena.proxy.headers import header, header_value
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


def names_hosts(inbound: Inbound) -> bool:
    """May a request be about some hosts only?"""
    return bool(inbound.query) or header(inbound.headers, b"x-olla-endpoint") is not None
