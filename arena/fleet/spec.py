"""What an operator says about the fleet: frozen values, so that a reload can tell what has changed."""

from __future__ import annotations

import hmac
from base64 import b64encode
from typing import Literal

from msgspec import Struct

from arena.names import matches
from arena.types import EndpointKind
from arena.wire import Timeouts

Strategy = Literal["warm-first", "priority", "round-robin", "weighted", "least-outstanding"]
Management = Literal["open", "closed", "auto"]


class Secret:
    """Text that is never shown: not in a repr, a log line or an error."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the wire alone."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)


class Auth(Struct, frozen=True):
    """The credentials of an endpoint: one header."""

    header: str
    value: Secret

    @classmethod
    def bearer(cls, token: str) -> Auth:
        """`Authorization: Bearer <token>`."""
        return cls("Authorization", Secret(f"Bearer {token}"))

    @classmethod
    def basic(cls, username: str, password: str) -> Auth:
        """`Authorization: Basic ...`."""
        return cls("Authorization", Secret("Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")))

    @classmethod
    def api_key(cls, key: str, header: str = "X-Api-Key") -> Auth:
        """The bare key in a header of its own."""
        return cls(header, Secret(key))


class EndpointSpec(Struct, frozen=True, kw_only=True):
    """One server of the fleet.

    A higher `priority` is preferred where the strategy looks at it; `weight` is its share of the work, and its
    capacity where load is compared. `max_in_flight` requests run at a time (None: no limit), further ones queue.
    It is probed every `check_interval_s` seconds (0: never), for `check_timeout_s` at most; `up_after` good probes
    bring it back, `down_after` bad ones take it out. Models are hidden unless they match a glob of `include` (empty:
    all do), and if they match one of `exclude`.
    """

    name: str
    url: str
    type: EndpointKind = "ollama"
    priority: int = 100
    weight: float = 1.0
    max_in_flight: int | None = None
    check_interval_s: float = 2.0
    check_timeout_s: float = 2.0
    up_after: int = 1
    down_after: int = 2
    timeouts: Timeouts = Timeouts()
    headers: tuple[tuple[str, str], ...] = ()
    auth: Auth | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tls_verify: bool = True

    def shows(self, model: str) -> bool:
        """May the fleet see `model` (a name in canonical form)?"""
        included = not self.include or matches(model, self.include)
        return included and not (self.exclude and matches(model, self.exclude))

    def same_server(self, other: EndpointSpec) -> bool:
        """Is `other` reached in the same way, so that connections and what is known can stay?"""
        return all(getattr(self, field) == getattr(other, field) for field in _WAY)


_WAY = ("name", "url", "type", "timeouts", "headers", "auth", "tls_verify")


class StickySpec(Struct, frozen=True, kw_only=True):
    """Conversations stay where they were, for the sake of the server's prompt cache.

    `enabled` None: wherever the strategy does not promise exact shares. A pin ends after `idle_ttl_s` without use;
    the `max_sessions` used last are kept.
    """

    enabled: bool | None = None
    idle_ttl_s: float = 600.0
    max_sessions: int = 10_000


class QueueSpec(Struct, frozen=True, kw_only=True):
    """Requests that wait for a place: so many at a time, for so many seconds at most."""

    max_waiting: int = 512
    max_wait_s: float = 60.0


class FleetSpec(Struct, frozen=True, kw_only=True):
    """The whole fleet. `aliases` maps a name to the models it stands for, the first that can be served is taken."""

    endpoints: tuple[EndpointSpec, ...] = ()
    strategy: Strategy = "warm-first"
    aliases: dict[str, tuple[str, ...]] = {}
    default_endpoint: str | None = None
    sticky: StickySpec = StickySpec()
    queue: QueueSpec = QueueSpec()
    retry_on: frozenset[int] = frozenset({429, 502, 503, 504})
    management: Management = "auto"

    @property
    def sticks(self) -> bool:
        """Do conversations stay where they were?"""
        if self.sticky.enabled is not None:
            return self.sticky.enabled
        return self.strategy not in ("round-robin", "weighted")
