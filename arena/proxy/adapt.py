"""What may stand between a request that is handed on and its endpoint: other words, or a look at what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from arena.exchange import Inbound
from arena.fleet import Lease
from arena.proxy.counters import Tail
from arena.proxy.headers import header
from arena.wire import Receiver


class Asking(Receiver, Protocol):
    """The request, as whoever stands between it and its endpoint sees it: told the answer, or to ask once more."""

    def again(self) -> None:
        """Ask the same endpoint anew, by which it is decided anew how: what it refused was no word of the client's."""


class Adapted(Struct, frozen=True):
    """How a request goes out, where it does not go as it came, and who gets the answer before the request does."""

    target: bytes
    inbound: Inbound
    body: bytes
    receiver: Receiver


Adapt = Callable[[Asking, Tail, Lease, Inbound, bytes], Adapted | None]
"""Says how a body goes to the endpoint of a lease; None: as it came. Raises BadRequest for what has no such form."""


def readable(inbound: Inbound) -> Inbound:
    """`inbound` without the wish for an answer that is packed."""
    if header(inbound.headers, b"accept-encoding") is None:
        return inbound
    headers = [pair for pair in inbound.headers if pair[0] != b"accept-encoding"]
    return Inbound(inbound.method, inbound.path, inbound.query, headers, inbound.caller)
