"""How an answer is read as it comes off the wire, whichever dialect its bytes are in; and how it is measured."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from msgspec import Struct
from msgspec.structs import replace

from arena.errors import ArenaError, BudgetExceeded, UpstreamBroken, UpstreamTimeout
from arena.streaming import Outlet
from arena.types import Batch, Delta, Finished, Metrics
from arena.wire import Call, Headers

ERROR_BYTES = 64 * 1024
"""How much of a refusal's body is read."""
RELIABLE_TOKENS = 16
RELIABLE_S = 0.001
MOST = 10**15
"""What a server counts, be it tokens, bytes or nanoseconds, is less; all later sums of it stay finite."""


class Budget(Struct, frozen=True):
    """What one answer may cost: pieces of text, and bytes on the wire."""

    deltas: int
    size_bytes: int


class Stopwatch(Struct, eq=False):
    """Our own clock's part of the metrics, in seconds since the request was sent."""

    __repr__ = object.__repr__  # what a request holds is not for the log

    _clock: Callable[[], float]
    _start_s: float
    first_s: float | None = None
    visible_s: float | None = None

    def mark(self, deltas: list[Delta]) -> None:
        """Note when the first token, and the first of the answer itself, came."""
        now_s = self._clock() - self._start_s
        if self.first_s is None:
            self.first_s = now_s
        for delta in deltas:
            if delta.text:
                self.visible_s = now_s
                return

    def metrics(self) -> Metrics:
        """What is known without the server's counters."""
        return Metrics(ttft_s=self.first_s, first_visible_s=self.visible_s, total_s=self._clock() - self._start_s)


class Framing(Protocol):
    """Cuts a body into whole pieces and keeps the half one. Raises UpstreamBroken for one that is too long."""

    endpoint: str

    def feed(self, data: bytes) -> bytes: ...
    def rest(self) -> bytes: ...


class StreamedAnswer(Struct, eq=False):
    """Takes the body's bytes and pushes events into an outlet: one decode and one `put` a read.

    Reads with the answer's end, an error, or anything unusual are read again piece by piece, with care.
    """

    __repr__ = object.__repr__  # what a request holds is not for the log

    PIECE: ClassVar[str]
    """What the body is made of: "a line"."""

    _framing: Framing
    _outlet: Outlet
    _watch: Stopwatch
    _budget: Budget
    _contended: Callable[[], bool] | None
    call: Call | None = None
    finished: bool = False
    _bytes: int = 0
    _deltas: int = 0
    _error_body: bytes = b""

    @abstractmethod
    def _plain(self, whole: bytes) -> list[Delta] | None:
        """The text of plain pieces, all in one decode; None if there is anything else among them."""

    @abstractmethod
    def _read_with_care(self, whole: bytes, events: Batch) -> None:
        """Piece by piece, as far as the answer or the budget goes; raises the ArenaError that ends the answer."""

    @abstractmethod
    def _refusal(self, status: int, headers: Headers, body: bytes) -> ArenaError:
        """The error for a status other than 200."""

    def _asked_again(self) -> bool:
        """After an answer's end: was it a refusal, and has the request been sent anew, as another `call`?"""
        return False

    def _complete(self) -> bool:
        """After an answer's end that said nothing of the kind: is it complete all the same? Puts its Finished."""
        return False

    @property
    def pieces(self) -> int:
        """How many pieces of text have come so far."""
        return self._deltas

    def on_data(self, data: bytes) -> None:
        """Bytes of the body. Raises the ArenaError that ends the answer; what came before it is put first."""
        assert self.call is not None
        if self.call.status != 200:
            self._keep_error(data)
            return
        self._bytes += len(data)
        if whole := self._framing.feed(data):
            self._read(whole, len(data))
        if self._bytes > self._budget.size_bytes and not self.finished:
            self._over(f"{self._budget.size_bytes} bytes")

    async def result(self) -> None:
        """Wait until the answer is complete. Raises what else its end was, BudgetExceeded included."""
        assert self.call is not None
        try:
            await self.call.done
            while self._asked_again():
                await self.call.done
            self.ended()
        except UpstreamTimeout as error:
            if error.code == "total_timeout":
                raise BudgetExceeded(
                    f"The answer was cut: {error.message}.", endpoint=self._framing.endpoint
                ) from error
            self.ended(error)
        except UpstreamBroken as error:
            self.ended(error)

    def close(self) -> None:
        """Hang up at once, unless the answer is complete."""
        if self.call is not None:
            self.call.cancel()

    def ended(self, error: UpstreamBroken | UpstreamTimeout | None = None) -> None:
        """The call has ended. Raises what else it was than a complete answer."""
        if self.finished:
            return
        assert self.call is not None
        if self.call.status not in (0, 200):
            raise self._refusal(self.call.status, self.call.headers, self._error_body)
        cut = self._read_rest() if error is None or error.code == "upstream_eof" else False
        if self.finished or self._complete():
            return
        if cut:
            raise self._broken("upstream_truncated", f"ended its answer in the middle of {self.PIECE}")
        raise error or self._broken("upstream_eof", "ended its answer without saying that it is complete")

    def _read_rest(self) -> bool:
        """Was anything left at the end? A last piece may lack its end; half of one is no matter here."""
        rest = self._framing.rest()
        if rest:
            try:
                self._read(rest, len(rest))
            except UpstreamBroken as broken:
                if broken.code != "malformed":
                    raise
        return bool(rest)

    def _read(self, whole: bytes, size_bytes: int) -> None:
        events: Batch = []
        try:
            plain = self._plain(whole)
            if plain is not None:
                self._add(events, plain)
            else:
                self._read_with_care(whole, events)
        finally:
            self._outlet.put(events, size_bytes)
        if self.finished:
            assert self.call is not None
            self.call.release()
        elif self._deltas > self._budget.deltas:
            self._over(f"{self._budget.deltas} pieces of text")

    def _add(self, events: Batch, deltas: list[Delta]) -> None:
        """Take `deltas` in, as far as the budget goes."""
        if self._watch.visible_s is None and deltas:
            self._watch.mark(deltas)
        events += deltas
        self._deltas += len(deltas)
        if self._deltas > self._budget.deltas:
            del events[self._budget.deltas - self._deltas :]

    def _finish(self, counted: Callable[[Metrics, bool], Metrics]) -> Finished:
        """The end of a complete answer; `counted` adds the server's counters to our clock's part."""
        self.finished = True
        contended = self._contended() if self._contended is not None else False
        return Finished(self._outlet.instance_id, counted(self._watch.metrics(), contended))

    def _broken(self, code: str, text: str) -> UpstreamBroken:
        endpoint = self._framing.endpoint
        return UpstreamBroken(f"{endpoint} {text}", endpoint=endpoint, code=code)

    def _over(self, limit: str) -> None:
        raise BudgetExceeded(f"The answer was cut at {limit}.", endpoint=self._framing.endpoint)

    def _keep_error(self, data: bytes) -> None:
        self._error_body += data
        if len(self._error_body) >= ERROR_BYTES and self.call is not None:
            self.call.release()


def measured(ours: Metrics, tokens: int | None, duration_s: float | None, contended: bool) -> Metrics:
    """`ours` with the server's count of tokens and its seconds for them, and what rate that is, if it is one."""
    per_s, enough = None, False
    if tokens and duration_s and duration_s >= RELIABLE_S:
        per_s, enough = tokens / duration_s, tokens >= RELIABLE_TOKENS
    reliable = enough and not contended
    return replace(
        ours,
        tokens=tokens,
        duration_s=duration_s,
        tokens_per_sec=per_s,
        rate_reliable=reliable,
        contended=contended,
    )


def count(value: Any) -> int | None:
    """A counter as a server told it; None where it is missing or absurd."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST else None
