"""A caller's hold on one answer, with its time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from msgspec import Struct

from arena.errors import ArenaError, Unreachable, UpstreamTimeout
from arena.wire.answer import FRAMING, Answer, Headers, Plain

if TYPE_CHECKING:
    from arena.wire.connection import Connection

Phase = Literal["connect", "head", "body", "rest"]

REST_S = 0.5
"""How long a released answer may take to end before its connection is given up."""
AGAIN_S = 15.0
"""How often it is asked whether an answer that is late may still be waited for."""


class Timeouts(Struct, frozen=True):
    """Seconds a call may take: to connect, until the head is complete, between two reads, in all (None: no limit)."""

    connect_s: float = 3.0
    first_byte_s: float = 300.0
    idle_s: float = 120.0
    total_s: float | None = 1800.0

    def at_most(self, silent_s: float) -> Timeouts:
        """The same for a small question: `silent_s` at a time, and twice that in all once it is connected."""
        return Timeouts(
            self.connect_s,
            min(self.first_byte_s, silent_s),
            min(self.idle_s, silent_s),
            self.connect_s + 2 * silent_s,
        )


class Alarm:
    """One timer for all calls of a connection, one after the other: it is only set where it would fire too late.

    It may fire for nothing. In return, a call that ends in time has neither set nor cancelled anything.
    """

    __slots__ = ("_due_s", "_handle", "_loop", "call")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.call: Call | None = None
        self._loop = loop
        self._due_s = float("inf")
        self._handle: asyncio.TimerHandle | None = None

    def by(self, due_s: float) -> None:
        """Have the call look what is due at `due_s` at the latest, on the loop's clock."""
        if due_s < self._due_s:
            self._set(due_s)

    def _set(self, due_s: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._due_s = due_s
        self._handle = self._loop.call_at(due_s, self._fire)

    def stop(self) -> None:
        """Never fire again."""
        self.call = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._due_s, self._handle = float("inf"), None
        if self.call is not None:
            self.call.look()


class Call:
    """One request and its answer.

    `on_data` gets the body's bytes as they arrive; an ArenaError raised by it ends the call with that error. `status`
    and `headers` are set before the first bytes are handed over. `done` ends with None when the answer is complete,
    with Unreachable, UpstreamTimeout or UpstreamBroken, or cancelled by `cancel()`; after that `on_data` is not called.
    `paused`: nothing is read now. `may_wait` asks of an answer that comes as a whole: is its endpoint at work?
    `elsewhere` asks: could another endpoint take the request now?
    """

    __slots__ = (
        "_alarm",
        "_connection",
        "_dialing",
        "_end_s",
        "_head",
        "_limit_s",
        "_loop",
        "_phase",
        "_since_s",
        "done",
        "elsewhere",
        "endpoint",
        "headers",
        "may_wait",
        "method",
        "on_data",
        "paused",
        "request",
        "resend",
        "status",
        "timeouts",
        "whole",
    )

    def __init__(
        self,
        endpoint: str,
        method: str,
        request: tuple[bytes, bytes],
        on_data: Callable[[bytes], None],
        *,
        resend: bool,
        timeouts: Timeouts,
    ) -> None:
        self.endpoint = endpoint
        self.method = method
        self.request: tuple[bytes, bytes] | None = request
        self.on_data: Callable[[bytes], None] | None = on_data
        self.resend = resend
        self.timeouts = timeouts
        self.may_wait: Callable[[], bool] | None = None
        self.elsewhere: Callable[[], bool] | None = None
        self.whole = True  # the request was sent to its end: only then may its connection serve another
        self.status = 0
        self.headers: Headers = ()
        self._loop = loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        self._head: asyncio.Future[tuple[int, Headers]] | None = None
        self._connection: Connection | None = None
        self._dialing: asyncio.Task[None] | None = None
        self.paused = False
        self._phase: Phase = "connect"
        self._since_s = loop.time()
        self._limit_s = timeouts.connect_s
        self._end_s = float("inf") if timeouts.total_s is None else self._since_s + timeouts.total_s
        self._alarm: Alarm | None = None

    @property
    def head(self) -> asyncio.Future[tuple[int, Headers]]:
        """Ends as soon as the head is complete, with (status, headers), or as `done` does."""
        if self._head is None:
            self._head = self._loop.create_future()
            if self.status:
                self._head.set_result((self.status, self.headers))
            elif self.done.done():
                self._end_head()
        return self._head

    def pause(self) -> None:
        """Read no more until `resume()`; the endpoint feels it when the kernel's buffers are full."""
        if not self.paused and not self.done.done():
            self.paused = True
            if self._connection is not None:
                self._connection.pause_reading()

    def resume(self) -> None:
        """Read on. The time limit between two reads starts anew."""
        if self.paused:
            self.paused = False
            self._since_s = self._loop.time()
            if self._connection is not None:
                self._connection.resume_reading()

    def cancel(self) -> None:
        """Hang up at once. Does nothing once the call has ended, whoever uses its connection now.

        A task that is cancelled while it awaits `done` has cancelled that already, so this belongs into its `finally`.
        """
        self.done.cancel()
        if self.done.cancelled():
            self.hang_up()

    def fail(self, error: BaseException) -> None:
        """Hang up at once and end with `error`."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # whoever has left does not come back to look at it
        self.hang_up()

    def release(self) -> None:
        """The caller has what it wants: end `done` well now, and keep the connection if the answer ends very soon."""
        if not self.done.done():
            self.done.set_result(None)
            self.resume()
            self.on_data = None
            self._end_s = float("inf")
            self.watch("rest", REST_S)

    def heard_since(self, since_s: float) -> bool:
        """Has any of its answer's body come since `since_s`, on the loop's clock?"""
        return self._phase == "body" and self._since_s >= since_s

    def unheard_since(self, since_s: float) -> bool:
        """Has it waited for a first byte since `since_s`, which another endpoint could give now?"""
        waits = self._phase == "head" and self._since_s <= since_s and not self.paused
        return waits and self.elsewhere is not None and self.elsewhere()

    def give_up(self, since_s: float) -> None:
        """Its endpoint is known to have been dead since `since_s`: wait for a first byte no longer."""
        if self.unheard_since(since_s) and not self.done.done():
            text = f"{self.endpoint} did not begin to answer, and answers no checks either"
            self.fail(UpstreamTimeout(text, endpoint=self.endpoint))

    def hang_up(self) -> None:
        """Let go of connection and timer; a connection still in use is aborted."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
        if self._dialing is not None:
            self._dialing.cancel()
        if self._alarm is not None:
            self._alarm.stop()
        self._forget()

    unless: ClassVar[frozenset[bytes]] = FRAMING | {b"content-encoding"}
    """Headers with which an answer is always parsed."""

    def answer(self) -> Answer:
        """A parser for the answer."""
        return Answer(self.method)

    def dialing(self, task: asyncio.Task[None]) -> None:
        """A new connection is on its way."""
        self._dialing = task
        self.watch("connect", self.timeouts.connect_s)

    def attached(self, connection: Connection) -> None:
        """The request goes out on `connection`: from now on the endpoint's time runs."""
        self._dialing = None
        self._connection = connection
        if connection.alarm is None:
            connection.alarm = self._alarm
        else:
            self._alarm = connection.alarm
            self._alarm.call = self
        self.watch("head", self.timeouts.first_byte_s)
        if self.paused:  # not yet: uvloop begins to read only after the connection's own callback
            self._loop.call_soon(self._pause_again)

    def detached(self) -> None:
        """The connection is no longer this call's: it died and another will be tried, or the answer is complete."""
        self._connection = self._alarm = None

    def began(self, answer: Answer, *, has_body: bool) -> None:
        """The head is complete, and maybe some of the body is there."""
        self.heading(answer.status, answer.headers)
        if not answer.complete and (has_body or self.may_wait is None):
            self.watch("body", self.timeouts.idle_s)

    def told(self, plain: Plain) -> None:
        """The whole answer is there: its head now, its body next."""
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in plain.fields}
        self.heading(plain.status, tuple(fields.items()))

    def heading(self, status: int, headers: Headers) -> None:
        """From now on the request is not sent again."""
        self.request = None
        self.status, self.headers = status, headers
        if self._head is not None and not self._head.done():
            self._head.set_result((status, headers))

    def touched(self, now_s: float) -> None:
        """Bytes came in at `now_s` on the loop's clock."""
        if self._phase == "body":
            self._since_s = now_s
        elif self._phase == "head":
            self.watch("body", self.timeouts.idle_s)  # the head came long before

    def completed(self) -> None:
        """The answer is complete."""
        self._connection = None
        if not self.done.done():
            self.done.set_result(None)
        self._forget()

    def watch(self, phase: Phase, limit_s: float) -> None:
        """Enter a phase. The timer is only set anew if it would be late; otherwise it finds out itself what is due."""
        self._phase, self._limit_s = phase, limit_s
        self._since_s = self._loop.time()
        if self._alarm is None:
            self._alarm = Alarm(self._loop)
            self._alarm.call = self
        self._alarm.by(min(self._since_s + limit_s, self._end_s))

    def look(self) -> None:
        """The timer has fired: is it really time? Being paused is the caller's slowness, not the endpoint's."""
        now_s = self._loop.time()
        if self.paused:
            self._since_s = now_s
        elif self._phase == "head" and self._may_wait():
            self._since_s = max(self._since_s, now_s + min(AGAIN_S, self._limit_s) - self._limit_s)
        due_s = min(self._since_s + self._limit_s, self._end_s)
        if due_s > now_s and self._alarm is not None:
            self._alarm.by(max(due_s, now_s + 0.001))
        elif self._phase == "rest":
            self.hang_up()
        else:
            self.fail(self._too_late(now_s))

    def _may_wait(self) -> bool:
        """Is it no fault if nothing has come in time? It is, where a head has begun."""
        begun = not self.status and self._connection is not None and self._connection.answering
        return self.may_wait is not None and not begun and self.may_wait()

    def _pause_again(self) -> None:
        if self.paused and self._connection is not None:
            self._connection.pause_reading()

    def _too_late(self, now_s: float) -> ArenaError:
        name, limits = self.endpoint, self.timeouts
        if now_s >= self._end_s:
            text = f"{name} took longer than {limits.total_s:g} s to answer"
            return UpstreamTimeout(text, endpoint=name, code="total_timeout")
        match self._phase:
            case "connect":
                return Unreachable(f"{name} is not reachable: no connection in {limits.connect_s:g} s", endpoint=name)
            case "head":
                return UpstreamTimeout(f"{name} did not begin to answer in {limits.first_byte_s:g} s", endpoint=name)
            case _:
                return UpstreamTimeout(f"{name} fell silent for {limits.idle_s:g} s while answering", endpoint=name)

    def _forget(self) -> None:
        """Drop everything that costs memory or could call back."""
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.call = None
        self._dialing = self.on_data = self.request = None
        if self._head is not None and not self._head.done():
            self._end_head()

    def _end_head(self) -> None:
        """No head will come: end `head` the way `done` ended."""
        assert self._head is not None
        error = None if self.done.cancelled() else self.done.exception()
        if error is None:
            self._head.cancel()
        else:
            self._head.set_exception(error)
            self._head.exception()
