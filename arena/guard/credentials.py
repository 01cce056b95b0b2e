"""Who may enter: the one token, named keys, and the session cookie that a browser trades one of them for."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

from arena.errors import Forbidden, TooManyRequests, Unauthorized
from arena.guard.asgi import Refused
from arena.keys import Key, Keys

COOKIE: Final = "arena_session"
SESSION_S: Final = 7 * 24 * 3600.0
MAX_SESSIONS: Final = 10_000
MAX_FAILURES: Final = 10
FAILURE_WINDOW_S: Final = 60.0
MAX_ADDRESSES: Final = 10_000

MISSING: Final = "Missing or invalid Authorization header"
INVALID: Final = "Invalid authorization token"


class Credentials:
    """Who may enter. Without a `token` and without `keys` everybody may; `clock` tells seconds."""

    def __init__(self, token: str | None, clock: Callable[[], float], keys: Keys | None = None) -> None:
        self._digest = None if token is None else sha256(token.encode()).digest()
        self._keys = keys
        self._sessions = Sessions(clock)
        self._failures = Failures(clock)

    @property
    def required(self) -> bool:
        """Must a request bring a credential? As soon as there is a token or a key."""
        return self._digest is not None or (self._keys is not None and self._keys.required)

    def check(self, candidate: bytes, address: str) -> Key | None:
        """The key that this is, or None for the token. Raises Refused: 401, and 429 after too many from `address`.

        Digests are compared, so the time taken tells nothing.
        """
        self._failures.check(address)
        if self._digest is not None and hmac.compare_digest(sha256(candidate).digest(), self._digest):
            return None
        key = None if self._keys is None else self._keys.find(candidate)
        if key is None:
            self._failures.add(address)
            raise Refused(
                Unauthorized(INVALID), [(b"www-authenticate", b'Bearer realm="arena", error="invalid_token"')]
            )
        return key

    def held(self) -> int:
        """How many addresses have to wait, after too many wrong tokens."""
        return self._failures.held()

    def sign_in(self, candidate: bytes, address: str) -> str:
        """Trade the token, or a key for everything, for a session. Raises Refused: 401, 403, 429."""
        key = self.check(candidate, address)
        if key is not None and "admin" not in key.scopes:
            raise Refused(Forbidden("The page needs the token, or a key with the scope admin"))
        return self._sessions.open("" if key is None else key.digest)

    def sign_out(self, cookies: Iterable[bytes]) -> None:
        """End the session that Cookie headers name."""
        self._sessions.close(cookies)

    def session(self, cookies: Iterable[bytes]) -> bytes | None:
        """The live session that Cookie headers name, or None. One that was opened by a key ends with the key."""
        found = self._sessions.find(cookies)
        if found is None:
            return None
        session, digest = found
        if not digest or (self._keys is not None and self._keys.has(digest)):
            return session
        self._sessions.close(cookies)
        return None


class Sessions:
    """Signed-in browsers: random ids that live here only, each for SESSION_S seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[bytes, tuple[float, str]] = {}

    def open(self, opener: str) -> str:
        """Start a session and return its id; over MAX_SESSIONS the oldest one ends. `opener` is kept with it."""
        session = secrets.token_urlsafe(32)
        while len(self._open) >= MAX_SESSIONS:
            del self._open[next(iter(self._open))]
        self._open[_digest(session.encode())] = (self._clock() + SESSION_S, opener)
        return session

    def find(self, cookies: Iterable[bytes]) -> tuple[bytes, str] | None:
        """The live session that Cookie headers name, and who opened it; or None."""
        for part in b";".join(cookies).split(b";"):
            name, _, value = part.strip(b" ").partition(b"=")
            if name == COOKIE.encode():
                session = _digest(value)
                expiry, opener = self._open.get(session, (0.0, ""))
                if self._clock() < expiry:
                    return session, opener
                self._open.pop(session, None)
        return None

    def close(self, cookies: Iterable[bytes]) -> None:
        """End the session that Cookie headers name."""
        found = self.find(cookies)
        if found is not None:
            del self._open[found[0]]


class Failures:
    """Wrong tokens of each address: after MAX_FAILURES within FAILURE_WINDOW_S it has to wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[str, list[float]] = {}

    def check(self, address: str) -> None:
        """Raises Refused (429) while the address has to wait."""
        times = self._recent(address)
        if len(times) >= MAX_FAILURES:
            wait_s = int(times[0] + FAILURE_WINDOW_S - self._clock()) + 1
            raise Refused(
                TooManyRequests("Too many wrong tokens from this address; wait a minute"),
                [(b"retry-after", b"%d" % wait_s)],
            )

    def add(self, address: str) -> None:
        """Count one wrong token."""
        times = [*self._recent(address), self._clock()]
        self._times.pop(address, None)
        while len(self._times) >= MAX_ADDRESSES:
            del self._times[next(iter(self._times))]
        self._times[address] = times

    def held(self) -> int:
        """How many addresses have to wait now."""
        return sum(len(self._recent(address)) >= MAX_FAILURES for address in self._times)

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - FAILURE_WINDOW_S
        return [moment for moment in self._times.get(address, ()) if moment > since]


def presented(authorization: Sequence[bytes], api_key: Sequence[bytes]) -> bytes:
    """The token or key in the Authorization headers, else in `x-api-key`, where Anthropic's clients put theirs.

    Raises Refused (401) unless there is exactly one, and in Authorization it is Bearer.
    """
    if len(authorization) == 1:
        scheme, _, token = authorization[0].partition(b" ")
        token = token.strip(b" ")
        if scheme.lower() == b"bearer" and token:
            return token
    elif not authorization and len(api_key) == 1 and api_key[0]:
        return api_key[0]
    raise Refused(Unauthorized(MISSING), [(b"www-authenticate", b'Bearer realm="arena"')])


def _digest(session: bytes) -> bytes:
    """Sessions are looked up by digest: how far a guess matches cannot be timed."""
    return sha256(session).digest()
