"""What is wanted of the fleet, and the hold on an endpoint that it gives."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from arena.errors import ArenaError, BudgetExceeded

if TYPE_CHECKING:
    from arena.fleet.endpoint import Endpoint

Decision = Literal["routed", "fallback", "rejected"]
StickyWord = Literal["hit", "miss", "repin", "disabled"]
Outcome = Literal["left", "succeeded", "failed"]


class Wanted(Struct, frozen=True):
    """What a request needs.

    `endpoint` pins it to one by name; `kinds` are the endpoint types that can serve it (None: any). The queue is fair
    between `caller`s; a `conversation` stays where it was. `key` (a named key) and `route` are for the books only.
    """

    model: str | None = None
    endpoint: str | None = None
    caller: str | bytes = ""
    conversation: str | None = None
    kinds: frozenset[str] | None = None
    key: str = ""
    route: str = ""


class Usage(Struct, frozen=True):
    """What an answer cost, where it is known; `gap_s` is the mean time between two tokens, `*_bytes` the bodies.

    `estimated`: nobody told its tokens, and what is said of them is the number of its pieces.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    load_s: float | None = None
    prompt_s: float | None = None
    eval_s: float | None = None
    gap_s: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    estimated: bool = False


class Routing(Struct, frozen=True):
    """How an endpoint was found, in the words of the response headers."""

    strategy: str
    decision: Decision
    reason: str


class Lease(Struct, eq=False):
    """One request's stay on an endpoint. Tell how it went, then `close()`; also a context manager.

    Without an outcome it was the client's own leaving, which counts for nothing. `model` is the endpoint's own
    spelling ("" if none was wanted). `contended` turns True as soon as another request overlaps with it: figures
    taken under contention are not comparable. `streamed`: the answer comes as a stream of its pieces; `translated`: out
    of another dialect than the client's.
    """

    endpoint: Endpoint
    model: str
    key: str
    wanted: Wanted
    tried: frozenset[str]
    routing: Routing
    began_s: float
    _on_close: Callable[[Lease], object]
    sticky: StickyWord = "disabled"
    ticket: int = -1
    contended: bool = False
    streamed: bool = False
    translated: bool = False
    closed: bool = False
    queued_s: float = 0.0
    position: int = 0
    first_s: float | None = None
    outcome: Outcome = "left"
    usage: Usage | None = None
    error: ArenaError | None = None
    status: int | None = None
    retry_after_s: float | None = None

    __repr__ = object.__repr__

    def __post_init__(self) -> None:
        self.ticket = self.endpoint.enter(self)

    @property
    def strategy(self) -> str:
        """How the model was kept to: "strict", "alias", or "optimistic" for a fallback."""
        return self.routing.strategy

    @property
    def decision(self) -> Decision:
        """Was it routed as wanted, or is it a fallback?"""
        return self.routing.decision

    @property
    def reason(self) -> str:
        """Why, in one word: "model_found" and its kin."""
        return self.routing.reason

    def first_byte(self, *, whole: bool = False) -> None:
        """The first byte of a good answer has come: the time to a first token, but for one that comes as a `whole`."""
        if self.first_s is None and not self.closed:
            began_s = self.endpoint.began(self)
            if not whole:
                self.first_s = began_s

    def succeeded(self, usage: Usage | None = None) -> None:
        """The answer is complete."""
        if self.outcome == "left" and not self.closed:
            self.outcome = "succeeded"
            self.usage = usage

    def failed(
        self, error: ArenaError | None = None, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        """The endpoint failed, with `error` or with an HTTP `status` of its own (`retry_after_s` from its headers).

        An answer that went over our own limits is nobody's failure: we have left.
        """
        if self.outcome == "left" and not self.closed:
            if not isinstance(error, BudgetExceeded):
                self.outcome = "failed"
            self.error, self.status, self.retry_after_s = error, status, retry_after_s

    def close(self) -> None:
        """The stay is over, and what came of it is counted. Does nothing the second time."""
        if not self.closed:
            self.closed = True
            self._on_close(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
