"""What one can narrow a leaderboard down to: the categories, tags and raters of the latest votes."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

from msgspec import Struct

from arena.store import Store

MOST_VOTES: Final = 20_000
"""Votes that are looked through: the latest ones."""
MOST_CHOICES: Final = 50


class Choices(Struct, frozen=True):
    """What one can narrow down to, the most frequent first; `raters` with the number of their votes.

    `latest` is the latest moment of a vote, `me` the name under which whoever looks has voted, if at all.
    """

    categories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    raters: tuple[tuple[str, int], ...] = ()
    latest: str = ""
    me: str = ""


class Heard:
    """Categories, tags and raters of the latest votes. Of new votes only as many are read, should a file of a million
    have come in. It blocks, for threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read = 0
        self._latest = ""
        self._categories, self._tags, self._raters = Counter[str](), Counter[str](), Counter[str]()

    def choices(self, me: str = "") -> Choices:
        """What there is by now, for whoever votes under the pseudonym `me`. Raises StoreUnavailable."""
        with self._lock:
            last = self._store.last_number()
            since = max(self._read, last - MOST_VOTES)
            for number, vote in self._store.votes(since) if last != self._read else ():
                self._categories[vote.category] += 1
                self._tags.update(vote.tags)
                if vote.voter:
                    self._raters[vote.voter] += 1
                self._read, self._latest = number, max(self._latest, vote.at)  # imports tell of times long gone
            others = [(name, count) for name, count in self._raters.most_common(MOST_CHOICES) if name != me]
            own = [(me, self._raters[me])] if me in self._raters else []
            raters = (*own, *others)
            return Choices(_most(self._categories), _most(self._tags), raters, self._latest, me if own else "")


def _most(counted: Counter[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in counted.most_common(MOST_CHOICES) if name)
