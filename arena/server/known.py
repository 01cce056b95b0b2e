"""Heads of requests that were judged before: programs send the same head again and again, but for the body's length."""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct

from arena.exchange import Begin

MAX_HEADS: Final = 512
MAX_HEAD_BYTES: Final = 1024
MAX_BODY_BYTES: Final = 256 * 1024
"""A larger request takes the way through ASGI, where its body is counted as it comes."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})(?=\r\n)", re.IGNORECASE)


class KnownHead(Struct, frozen=True, eq=False):
    """What a head said, and what answers it. `scope` is of the connection it came on, `size` the bytes of the body."""

    begin: Begin
    scope: dict[str, Any]
    keep_alive: bool
    size: int

    def scope_of(self, client: tuple[str, int] | None, scheme: str | None) -> dict[str, Any]:
        """The scope of requests with this head on another connection."""
        return {**self.scope, "client": client, "scheme": scheme}


class KnownHeads:
    """Sound heads of requests that were answered past ASGI, and what they said; the oldest make room.

    Only the reading is remembered, never a permission: who asks, and how often, is judged anew each time.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self._alike: dict[bytes, KnownHead] = {}

    def find(self, head: bytes) -> KnownHead | None:
        """What this head said, if it was seen before, maybe with a body of another length."""
        known = self._heads.get(head)
        if known is None and (parted := _without_length(head)) is not None:
            alike = self._alike.get(parted[0])
            if alike is not None:
                known = _of_size(alike, parted[1])
                _keep(self._heads, head, known)
        return known

    def keep(self, head: bytes, begin: Begin, scope: dict[str, Any], size: int, *, keep_alive: bool) -> None:
        """Remember a sound head, which the parser has read to announce a body of `size` bytes.

        If we read another length out of it, it is none for us: whoever disagrees on that lets requests be smuggled.
        """
        parted = _without_length(head)
        if parted is not None and parted[1] == size:
            known = KnownHead(begin, scope, keep_alive, size)
            _keep(self._heads, head, known)
            _keep(self._alike, parted[0], known)


def _keep(heads: dict[bytes, KnownHead], head: bytes, known: KnownHead) -> None:
    if len(heads) >= MAX_HEADS:
        del heads[next(iter(heads))]
    heads[head] = known


def _of_size(alike: KnownHead, size: int) -> KnownHead:
    headers = [(name, b"%d" % size if name == b"content-length" else value) for name, value in alike.scope["headers"]]
    return KnownHead(alike.begin, {**alike.scope, "headers": headers}, alike.keep_alive, size)


def _without_length(head: bytes) -> tuple[bytes, int] | None:
    """The head without the length of its body, and that length; None for one that is too long, or has too long a body.

    A second length would stay in there, and no sound head has two: such a one is never found.
    """
    if len(head) > MAX_HEAD_BYTES:
        return None
    found = _LENGTH.search(head)
    if found is None:
        return b"-" + head, 0  # the mark comes first, where no head can imitate it
    size = int(found[1])
    return (b"+" + head[: found.start()] + head[found.end() :], size) if size <= MAX_BODY_BYTES else None
