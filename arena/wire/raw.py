"""Answers for somebody else: headers as they came, any content coding, and every turn of events told by a plain call.

Nothing here is awaited and no task is made for a call on a connection that is open: a proxy lives on that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from arena.wire.answer import FRAMING, Answer, Plain, RawHeaders
from arena.wire.call import Call, Timeouts


class Receiver(Protocol):
    """Who gets the answer. After `on_end`, and after the call was cancelled, nothing more is told."""

    def on_head(self, status: int, headers: RawHeaders) -> None:
        """The head of the final answer; interim ones are left out."""

    def on_data(self, data: bytes) -> None:
        """Some of the body, without its framing."""

    def on_end(self, error: BaseException | None) -> None:
        """The answer is complete, or has failed with an UpstreamError or its kin (anything else is a bug of ours)."""


class RawAnswer(Answer):
    """An answer whose headers stay bytes, and whose content may be coded."""

    __slots__ = ("_raw",)

    def __init__(self, method: str) -> None:
        super().__init__(method, self._keep)
        self._raw: RawHeaders = []

    def _keep(self, name: bytes, value: bytes) -> None:
        """A header as it came; trailers are dropped."""
        if not self.status:
            self._raw.append((name.lower(), value.strip(b" \t")))

    def _begun(self) -> None:
        self.raw_headers, self._raw = self._raw, []
        coding = length = None
        for name, value in self.raw_headers:
            if name == b"transfer-encoding":
                coding = value
            elif name == b"content-length":
                length = value
        if coding is not None and coding.strip().lower() != b"chunked":
            self.error = "unknown transfer coding"
        self.until_eof = coding is None and length is None and not self._bodyless

    def _interim(self) -> None:
        self._raw.clear()


class RawCall(Call):
    """A call whose events go to a receiver. `done` ends as for any call, but nobody needs to wait for it."""

    __slots__ = ("_receiver",)

    unless = FRAMING

    def __init__(
        self,
        endpoint: str,
        method: str,
        request: tuple[bytes, bytes],
        receiver: Receiver,
        *,
        resend: bool,
        timeouts: Timeouts,
        may_wait: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(endpoint, method, request, receiver.on_data, resend=resend, timeouts=timeouts)
        self._receiver: Receiver | None = receiver
        self.may_wait = may_wait

    def answer(self) -> Answer:
        """A parser for the answer."""
        return RawAnswer(self.method)

    def began(self, answer: Answer, *, has_body: bool) -> None:
        """The head is complete, and maybe some of the body is there."""
        super().began(answer, has_body=has_body)
        if self._receiver is not None:
            self._receiver.on_head(answer.status, answer.raw_headers)

    def told(self, plain: Plain) -> None:
        """The whole answer is there."""
        self.heading(plain.status, ())
        if self._receiver is not None:
            self._receiver.on_head(plain.status, plain.fields)

    def completed(self) -> None:
        """The answer is complete."""
        receiver, self._receiver = self._receiver, None
        super().completed()
        if receiver is not None:
            receiver.on_end(None)

    def fail(self, error: BaseException) -> None:
        """Hang up at once and end with `error`."""
        receiver, self._receiver = self._receiver, None
        super().fail(error)
        if receiver is not None:
            receiver.on_end(error)

    def cancel(self) -> None:
        """Hang up at once; the receiver knows, since nobody else can do this."""
        self._receiver = None
        super().cancel()

    def release(self) -> None:
        """The receiver wants no more of the answer; the connection is kept if it ends very soon."""
        self._receiver = None
        super().release()
