"""One connection: serves one call at a time, and goes back to its pool between two."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from arena.errors import ArenaError, UpstreamBroken
from arena.wire import keepalive
from arena.wire.answer import Answer, plain
from arena.wire.call import Alarm, Call

REST_BYTES = 64 * 1024
"""How much of a released answer may still come before its connection is given up."""


class Home(Protocol):
    """What a connection tells its pool."""

    def opened(self, connection: Connection) -> None: ...
    def idle(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def again(self, call: Call) -> None: ...


class Connection(asyncio.Protocol):
    """The transport's callbacks. Everything about the current answer lives in `_answer` and is dropped with it."""

    __slots__ = (
        "_answer",
        "_call",
        "_first",
        "_home",
        "_rest",
        "_room",
        "_time",
        "_transport",
        "alarm",
        "idle_since_s",
    )

    def __init__(self, home: Home, call: Call) -> None:
        self._home = home
        self._call: Call | None = call
        self._answer: Answer | None = None
        self._transport: asyncio.Transport | None = None
        self._first = True
        self._rest = REST_BYTES
        self._room: asyncio.Future[None] | None = None
        self._time = asyncio.get_running_loop().time
        self.alarm: Alarm | None = None
        self.idle_since_s = 0.0

    @property
    def call(self) -> Call | None:
        """The call being served."""
        return self._call

    @property
    def usable(self) -> bool:
        """Is it still open, as far as is known?"""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected (and shaken hands, with TLS): send the request that this connection was opened for."""
        self._transport = cast(asyncio.Transport, transport)
        keepalive.ask_after(transport.get_extra_info("socket"))
        self._home.opened(self)
        call = self._call
        if call is None or call.done.done():
            self.drop()
        else:
            self.send(call)

    def send(self, call: Call) -> None:
        """Send the request of `call`; its answer will be handed to it."""
        assert self._transport is not None
        assert call.request is not None
        self._call = call
        self._answer = None
        self._rest = REST_BYTES
        call.attached(self)
        head, body = call.request
        if len(body) < REST_BYTES and call.whole:
            self._transport.write(head + body)
        else:  # a host may take its time to read much
            keepalive.bear_with(self._transport.get_extra_info("socket"))
            self._transport.write(head)
            self._transport.write(body)

    @property
    def answering(self) -> bool:
        """Has some of the answer come, beyond interim ones?"""
        return self._answer is not None and self._answer.begun

    def write(self, data: bytes) -> asyncio.Future[None] | None:
        """Send a piece of a request's body; what is returned, if anything, ends when there is room for the next."""
        if self.usable and self._transport is not None:
            self._transport.write(data)
        return self._room

    def pause_writing(self) -> None:
        """The endpoint does not keep up."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It has caught up, or the connection is gone."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse what came and hand it over: one call of `on_data` a read, however many chunks it held."""
        call = self._call
        if call is None:
            self.drop()  # nobody asked for anything
            return
        if call.done.cancelled():
            call.hang_up()  # its task cleans up in the loop's next turn; a fast endpoint says megabytes until then
            return
        answer = self._answer or self._begin(call, data)
        if answer is None:
            return
        began = answer.status
        body = answer.feed(data)
        if began:
            call.touched(self._time())
        elif answer.status:
            call.began(answer, has_body=bool(body))
        if body:
            self._hand_over(call, body)
        if self._call is not call:
            return  # whoever was told has ended it
        if answer.error is not None:
            self._broken(f"{call.endpoint} sent an answer that is not sound HTTP", None, answer.error)
        elif answer.complete:
            self._completed(call, reusable=answer.keep_alive and not answer.surplus)

    def _begin(self, call: Call, data: bytes) -> Answer | None:
        """The parser for an answer that begins with `data`; None if that was all of it, and needed none."""
        whole = plain(data, call.method, call.unless)
        if whole is None:
            self._answer = answer = call.answer()
            return answer
        call.told(whole)
        if whole.body and self._call is call:
            self._hand_over(call, whole.body)
        if self._call is call:
            self._completed(call, reusable=True)
        return None

    def eof_received(self) -> None:
        """The endpoint has closed its side."""
        self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._lost(exc)
        if self.alarm is not None:
            self.alarm.stop()
        self.resume_writing()
        self._transport = None
        self._home.closed(self)

    def abandoned(self) -> None:
        """Opening it was given up. That may come just after it was made; uvloop then never says that it is lost."""
        if self._transport is not None:
            self._transport.abort()
            self.connection_lost(ConnectionAbortedError("given up while it was opened"))

    def pause_reading(self) -> None:
        """Read no more from the socket."""
        if self.usable and self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.usable and self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once, whatever is under way; the call is not told."""
        if self.alarm is not None:
            self.alarm.stop()
        self._call = None
        self._forget_answer()
        if self._transport is not None:
            self._transport.abort()

    def _forget_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _hand_over(self, call: Call, body: bytes) -> None:
        if call.on_data is None:
            self._rest -= len(body)
            if self._rest < 0:
                call.hang_up()
            return
        try:
            call.on_data(body)
        except ArenaError as error:
            call.fail(error)

    def _completed(self, call: Call, *, reusable: bool) -> None:
        """Go home before the call ends: the pool may use this connection again from then on."""
        assert self._transport is not None
        self._call = None
        self._first = False
        if self._answer is not None:
            self._forget_answer()
        sent = call.whole and self._transport.get_write_buffer_size() == 0
        if reusable and sent and not self._transport.is_closing():
            if call.paused:
                self.resume_reading()  # a paused connection would starve its next answer
            self.idle_since_s = self._time()
            self._home.idle(self)
        else:
            self._transport.abort()
        call.completed()

    def _lost(self, exc: Exception | None) -> None:
        """The endpoint hung up: was the answer complete, may the request be sent once more, or is it broken?"""
        call = self._call
        if call is None:
            self.drop()
            return
        answer = self._answer or call.answer()
        if exc is None and answer.until_eof:
            self._completed(call, reusable=False)
        elif not self._first and call.resend and answer.untouched and not call.done.done():
            self.drop()
            call.detached()
            self._home.again(call)
        elif exc is not None and not isinstance(exc, OSError):
            call.fail(exc)  # a fault of our own, raised in on_data
        elif exc is None:
            self._broken(f"{call.endpoint} closed the connection before its answer was complete", "upstream_eof")
        elif isinstance(exc, TimeoutError):
            self._broken(f"{call.endpoint} is gone: there is no sign of life any more", "upstream_reset")
        else:
            self._broken(f"{call.endpoint} broke off the connection", "upstream_reset", str(exc))

    def _broken(self, message: str, code: str | None, details: str | None = None) -> None:
        assert self._call is not None
        self._call.fail(UpstreamBroken(message, endpoint=self._call.endpoint, code=code, details=details))
