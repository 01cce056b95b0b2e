"""A request body whose length was not declared, counted while it is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from arena.guard.asgi import Message, Receive, Send


class BoundedBody:
    """Stands between a server and an application that reads a body of at most `limit` bytes.

    One byte more and `refuse` answers in the application's place; the application is told that the caller has left,
    and what it still sends is dropped. Exceptions would not do: frameworks turn them into answers of their own.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, refuse: Callable[[], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._refuse = refuse
        self._size = 0
        self._answered = False
        self._over = False

    async def receive(self) -> Message:
        """The next message for the application."""
        if self._over:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size <= self._limit:
            return message
        self._over = True
        if not self._answered:
            await self._refuse()
        return {"type": "http.disconnect"}

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the application sends, unless its place was taken."""
        if self._over:
            return _nothing()
        self._answered = True
        return self._send(message)


async def _nothing() -> None:
    return None
