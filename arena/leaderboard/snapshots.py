"""What the ratings said at a time: the board of all blind votes, kept once a day when votes have come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from arena.errors import StoreUnavailable
from arena.ratings import Rating
from arena.store import Store
from arena.store.store import now

log = logging.getLogger(__name__)

_DAY: Final = 10  # characters of a moment


class Estimate(Struct, frozen=True):
    """A rating, and the bounds that hold it with 95 % confidence, in rating points."""

    rating: float
    lower: float
    upper: float


class Said(Struct, frozen=True):
    """The ratings by model as they were told at the moment `at`, after the vote with the number `last_vote`."""

    at: str
    last_vote: int
    votes: int
    ratings: dict[str, Estimate]


class _Content(Struct, frozen=True):
    """What is kept as JSON."""

    votes: int
    ratings: dict[str, Estimate]


class Diary:
    """Keeps what the board says. Nobody waits for it: it is written by a thread of its own."""

    def __init__(self, store: Store, later: Callable[[Callable[[], None]], None] | None = None) -> None:
        """`later` stands in for the thread."""
        self._store, self._later = store, later or _in_thread
        self._day = ""
        self._last_vote = 0

    def heard(self, last_vote: int, votes: int, rows: tuple[Rating, ...]) -> None:
        """Keep this unless something is kept of today (UTC) or of the same votes; what goes wrong stands in the log."""
        day = now()[:_DAY]
        if not votes or last_vote == self._last_vote or day == self._day:
            return
        self._last_vote = last_vote
        content = _Content(votes, {row.name: Estimate(row.rating, row.lower, row.upper) for row in rows if row.votes})

        def keep() -> None:
            try:
                if self._store.database.opened:  # and not closed in the meantime
                    self._store.add_snapshot(last_vote, content, once_a_day=True)
                    self._day = day
            except StoreUnavailable as error:
                log.warning("the ratings of today are not kept: %s", error.message)
                self._last_vote = 0  # whoever looks next tries again

        self._later(keep)

    def said(self, last: int) -> tuple[Said, ...]:
        """The `last` ones of what was kept, in their order. Raises StoreUnavailable."""
        told = ((each, msgspec.convert(each.content, _Content)) for each in self._store.snapshots(last))
        return tuple(Said(each.at, each.last_vote, content.votes, content.ratings) for each, content in told)


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="snapshot", daemon=True).start()
