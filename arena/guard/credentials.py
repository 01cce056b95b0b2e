"""The two credentials: the token in an Authorization header, and the session cookie it is traded for."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

from arena.errors import TooManyRequests, Unauthorized
from arena.guard.asgi import Refused

COOKIE: Final = "arena_session"
SESSION_S: Final = 7 * 24 * 3600.0
MAX_SESSIONS: Final = 10_000
MAX_FAILURES: Final = 10
FAILURE_WINDOW_S: Final = 60.0
MAX_ADDRESSES: Final = 10_000

MISSING: Final = "Missing or invalid Authorization header"
INVALID: Final = "Invalid authorization token"


class Credentials:
    """Who may enter. `token` None means everybody may; `clock` tells seconds."""

    def __init__(self, token: str | None, clock: Callable[[], float]) -> None:
        self.required = token is not None
        self.sessions = Sessions(clock)
        self._digest = sha256((token or "").encode()).digest()
        self._failures = Failures(clock)

    def check(self, candidate: bytes, address: str) -> None:
        """Raises Refused unless this is the token: 401, and 429 after too many wrong ones from `address`.

        Digests are compared, so the time taken tells nothing.
        """
        self._failures.check(address)
        if not hmac.compare_digest(sha256(candidate).digest(), self._digest):
            self._failures.add(address)
            raise Refused(
                Unauthorized(INVALID), [(b"www-authenticate", b'Bearer realm="arena", error="invalid_token"')]
            )


class Sessions:
    """Signed-in browsers: random ids that live here only, each for SESSION_S seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiry: dict[bytes, float] = {}

    def open(self) -> str:
        """Start a session and return its id; over MAX_SESSIONS the oldest one ends."""
        session = secrets.token_urlsafe(32)
        while len(self._expiry) >= MAX_SESSIONS:
            del self._expiry[next(iter(self._expiry))]
        self._expiry[_digest(session.encode())] = self._clock() + SESSION_S
        return session

    def find(self, cookies: Iterable[bytes]) -> bytes | None:
        """The key of the live session that Cookie headers name, or None."""
        for part in b";".join(cookies).split(b";"):
            name, _, value = part.strip(b" ").partition(b"=")
            if name == COOKIE.encode():
                key = _digest(value)
                if self._clock() < self._expiry.get(key, 0.0):
                    return key
                self._expiry.pop(key, None)
        return None

    def close(self, cookies: Iterable[bytes]) -> None:
        """End the session that Cookie headers name."""
        key = self.find(cookies)
        if key is not None:
            del self._expiry[key]


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

    def _recent(self, address: str) -> list[float]:
        since = self._clock() - FAILURE_WINDOW_S
        return [moment for moment in self._times.get(address, ()) if moment > since]


def bearer(values: list[bytes]) -> bytes:
    """The token in the Authorization headers. Raises Refused (401) unless there is exactly one, and it is Bearer."""
    if len(values) == 1:
        scheme, _, token = values[0].partition(b" ")
        token = token.strip(b" ")
        if scheme.lower() == b"bearer" and token:
            return token
    raise Refused(Unauthorized(MISSING), [(b"www-authenticate", b'Bearer realm="arena"')])


def _digest(session: bytes) -> bytes:
    """Sessions are looked up by digest: how far a guess matches cannot be timed."""
    return sha256(session).digest()
