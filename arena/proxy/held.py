"""Answers that are not handed on before it is known what to make of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from arena.fleet import Lease
from arena.proxy.adapt import Asking
from arena.wire import RawHeaders

KEPT_BYTES: Final = 64 * 1024
"""Refusals longer than this are handed on without being understood."""


class Held(ABC):
    """Hands an answer on as it comes; one whose head is to be kept waits until it is whole, and is then looked at.

    What was kept goes on as it came, unless `decided()` has had something else done.
    """

    def __init__(self, asking: Asking, lease: Lease) -> None:
        self.asking = asking
        self.lease = lease
        self.status = 0
        self.headers: RawHeaders = []
        self._body: bytearray | None = None

    @abstractmethod
    def keeps(self) -> bool:
        """Is an answer with this `status` and these `headers` to be kept?"""

    @abstractmethod
    def decided(self, body: bytes) -> bool:
        """What is to be done with an answer that was kept? False: it goes on as it came."""

    def on_head(self, status: int, headers: RawHeaders) -> None:
        """The endpoint answers."""
        self.status, self.headers = status, headers
        if self.keeps():
            self._body = bytearray()
        else:
            self.asking.on_head(status, headers)

    def on_data(self, data: bytes) -> None:
        """A piece of the answer."""
        if self._body is None:
            self.passes(data)
            return
        self._body += data
        if len(self._body) > KEPT_BYTES:
            self._let_go()

    def on_end(self, error: BaseException | None) -> None:
        """The answer is complete, or the endpoint has failed."""
        body = self._body
        if body is not None:
            if error is None and self.decided(bytes(body)):
                return
            self._let_go()
        if not self.lease.closed:
            self.asking.on_end(error)

    def passes(self, data: bytes) -> None:
        """A piece of an answer that is not kept."""
        self.asking.on_data(data)

    def _let_go(self) -> None:
        body, self._body = self._body, None
        self.asking.on_head(self.status, self.headers)
        if body and not self.lease.closed:  # or another endpoint is being asked by now
            self.asking.on_data(bytes(body))
