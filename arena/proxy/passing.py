"""One host's answer handed on as it is, for the routes that choose their host themselves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import msgspec

from arena.exchange import Headers, Inbound
from arena.fleet import Endpoint
from arena.ollama.failures import refusal
from arena.proxy.failures import RETRY_AFTER
from arena.proxy.headers import header_value
from arena.proxy.progress import beginning, changed
from arena.proxy.reply import Reply
from arena.upstream import believed_wait_s
from arena.wire import Headers as WireHeaders
from arena.wire import Stream, Timeouts

log = logging.getLogger(__name__)

QUIET_S = 600.0
"""How long a host may say nothing in the middle of its work: it checks what it has loaded."""
WHOLE_S = 4 * 3600.0
"""How long it may take over the whole, where no progress is wanted."""
OUR_CREDENTIALS = (401, 403)
"""Refusals that are meant for us, not for the caller."""


class Passed:
    """The rest of a host's answer. Closing it hangs up; in the end what is known of the host's models is renewed."""

    def __init__(self, endpoint: Endpoint, stream: Stream, opened: AsyncExitStack) -> None:
        self._endpoint = endpoint
        self._stream = stream
        self._opened: AsyncExitStack | None = opened

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._stream)
        except StopAsyncIteration:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Let go of the host; once."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()
            changed(self._endpoint)


async def passed(endpoint: Endpoint, method: str, path: str, body: bytes) -> Reply:
    """Ask one host and hand on its lines as they come."""
    async with AsyncExitStack() as stack:
        opened = endpoint.pool.stream(method, path, body, resend=False, timeouts=patient(endpoint))
        stream = await stack.enter_async_context(opened)
        if stream.status == 200:
            return Reply(200, content_type(stream.headers), Passed(endpoint, stream, stack.pop_all()))
        return _refused(endpoint, stream.status, stream.headers, await beginning(stream))


async def fetched(endpoint: Endpoint, method: str, path: str, body: bytes) -> Reply:
    """Ask one host and hand on its whole answer."""
    try:
        answer = await endpoint.pool.fetch(method, path, body, resend=False, timeouts=patient(endpoint, WHOLE_S))
    finally:
        changed(endpoint)
    return _refused(endpoint, *answer)


def _refused(endpoint: Endpoint, status: int, headers: WireHeaders, body: bytes) -> Reply:
    """A whole answer, whatever it says, unless it is about our own credentials."""
    if status in OUR_CREDENTIALS:
        raise refusal(status, headers, body, endpoint.name)
    wait_s = believed_wait_s(dict(headers).get("retry-after", ""))
    return Reply(status, [*content_type(headers), *([] if wait_s is None else [(RETRY_AFTER, b"%d" % wait_s)])], body)


def patient(endpoint: Endpoint, first_byte_s: float | None = None) -> Timeouts:
    """The limits for work that takes as long as it takes, as long as it moves."""
    limits = endpoint.spec.timeouts
    return msgspec.structs.replace(
        limits,
        first_byte_s=first_byte_s or limits.first_byte_s,
        idle_s=max(limits.idle_s, QUIET_S),
        total_s=None,
    )


def api_path(inbound: Inbound) -> str:
    """The part of the path that the host knows."""
    return inbound.path[inbound.path.index("/api/") :]


def content_type(headers: WireHeaders) -> Headers:
    """The host's own content type; what has none has no body."""
    return [(b"content-type", header_value(value)) for name, value in headers if name == "content-type"][:1]


def headed(reply: Reply, endpoints: Sequence[Endpoint], model: str = "") -> Reply:
    """`reply` with headers that name the hosts and the model."""
    names = ",".join(endpoint.name for endpoint in endpoints)
    headers = [*reply.headers, (b"x-olla-endpoint", header_value(names)), (b"x-olla-backend-type", b"ollama")]
    if model:
        headers.append((b"x-olla-model", header_value(model)))
    return msgspec.structs.replace(reply, headers=headers)


def noted(inbound: Inbound, model: str, endpoints: Sequence[Endpoint]) -> None:
    """One line in the log: who changes which models where."""
    caller = inbound.caller
    who = f"the key {caller.key}" if caller.key else caller.address
    fields = {"model": model, "endpoint": ",".join(one.name for one in endpoints)}
    log.info("%s %s, asked by %s", inbound.method, api_path(inbound), who, extra=fields)
