"""Browsers that nobody has signed in get a name that they cannot choose: random, signed, and kept in a cookie."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from typing import Final

from arena.exchange import Headers
from arena.guard.headers import NO_STORE
from arena.guard.request import Request

COOKIE: Final = b"arena_voter"
LIFE_S: Final = 365 * 24 * 3600
_SIGNED: Final = b"visitor "


class Visitors:
    """Knows the browsers that were here before. `framed`: the page is shown in a frame of another site.

    `key` gives the secret that signs, b"" while there is none; `prepare` is awaited once in a while to get one.
    """

    def __init__(
        self, key: Callable[[], bytes], prepare: Callable[[], Awaitable[None]], *, framed: bool = False
    ) -> None:
        self._key, self._prepare, self._framed = key, prepare, framed

    def name(self, cookies: Iterable[bytes]) -> str:
        """The name that Cookie headers bring; "" where there is none, or one that was not given here."""
        key = self._key()
        for part in b";".join(cookies).split(b";") if key else ():
            word, _, value = part.strip(b" ").partition(b"=")
            if word == COOKIE:
                name, _, signature = value.partition(b".")
                if hmac.compare_digest(signature, _signature(key, name)):
                    return name.decode()
        return ""

    async def welcome(self, request: Request) -> Headers:
        """What gives a name to a browser that opens the page and has none; nothing while no secret can be had."""
        if request.visitor or request.path != "/" or not request.wants_page:
            return []
        if not self._key():
            await self._prepare()
        if not (key := self._key()):
            return []
        name = secrets.token_hex(16).encode()
        # with SameSite=Strict whoever follows a link to the page would get another name each time
        flags = "SameSite=None; Secure; Partitioned" if self._framed else "SameSite=Lax"
        if request.https and not self._framed:
            flags += "; Secure"
        cookie = b"%s=%s.%s; Path=/; Max-Age=%d; HttpOnly; " % (COOKIE, name, _signature(key, name), LIFE_S)
        return [(b"set-cookie", cookie + flags.encode()), NO_STORE]


def _signature(key: bytes, name: bytes) -> bytes:
    return hmac.digest(key, _SIGNED + name, sha256).hex().encode()
