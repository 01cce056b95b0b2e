"""Heads of requests that were judged before: programs send the same head again and again, but for the body's length."""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct

from arena.exchange import Begin

MAX_HEADS: Final = 512
MAX_HEAD_BYTES: Final = 1024

_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})(?=\r\n)", re.IGNORECASE)


class Head(Struct, frozen=True):
    """What a head said, and what answers it. `scope` is another connection's; its headers tell the length of a body at
    `length_at`.
    """

    begin: Begin
    scope: dict[str, Any]
    keep_alive: bool
    length_at: int | None

    def scope_of(self, client: tuple[str, int] | None, scheme: str | None, size: int) -> dict[str, Any]:
        """The scope of another request with this head, and a body of `size` bytes."""
        scope = self.scope.copy()
        scope["client"], scope["scheme"] = client, scheme
        if self.length_at is not None:
            scope["headers"] = headers = scope["headers"].copy()
            headers[self.length_at] = (b"content-length", b"%d" % size)
        return scope


class KnownHeads:
    """Sound heads of requests that were answered past ASGI, and what they said; the oldest make room.

    Only the reading is remembered, never a permission: who asks, and how often, is judged anew each time.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    @staticmethod
    def key(head: bytes) -> tuple[bytes, bytes | None] | None:
        """The head without the length of its body, and that length; None for a head that is not worth it.

        A second length would stay in the key, and no sound head has two: such a one is never found here.
        """
        if len(head) > MAX_HEAD_BYTES:
            return None
        found = _LENGTH.search(head)
        if found is None:
            return b"-" + head, None  # the mark comes first, where no head can imitate it
        return b"+" + head[: found.start()] + head[found.end() :], found[1]

    def find(self, key: bytes) -> Head | None:
        """What this head said, if it was seen before."""
        return self._heads.get(key)

    def keep(self, key: bytes, head: Head) -> None:
        """Remember a sound head."""
        if len(self._heads) >= MAX_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[key] = head
