"""Ratings of what is in the store. New votes are added to what was read before; nothing is fitted twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from random import Random, SystemRandom
from typing import Final

from msgspec.structs import replace

from arena.leaderboard.choices import Choices, Heard
from arena.leaderboard.paces import FairRuns, Pace
from arena.leaderboard.snapshots import Diary, Said
from arena.leaderboard.views import Board, Matrix, Rated, RatedView, View
from arena.names import canonical
from arena.ratings import Caps, Ladder, Moment, ladders, suggested
from arena.store import Store
from arena.types import Manifest, Metrics

MOST_VIEWS: Final = 16  # kept in memory; each holds its votes, grouped
ALL: Final = View()
"""All blind votes, by model: what battles are drawn by, and what is kept day by day."""


class Leaderboard:
    """The ratings over one store. The methods block, for threads; they raise StoreUnavailable."""

    def __init__(
        self, store: Store, caps: Caps | None = None, *, later: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        """`caps` bound what one voter or address counts for; without them the usual caps hold.

        `later` does what nobody waits for; without it a thread does.
        """
        self._store = store
        self._caps = caps or Caps()
        self._views: OrderedDict[View, RatedView] = OrderedDict()
        self._lock = threading.Lock()
        self._heard, self._runs, self._diary = Heard(store), FairRuns(store), Diary(store, later)

    def last_vote(self) -> int:
        """The number of the latest vote; 0 before the first, also where there is no store yet."""
        return self._store.last_number() if self._store.exists else 0

    def choices(self, voter: str = "") -> Choices:
        """What one can narrow down to, for somebody who votes as `voter`."""
        return self._heard.choices(self._store.pseudonym(voter))

    def ran(self, answers: Iterable[tuple[Manifest, Metrics]]) -> None:
        """Hear of answers outside of battles: the fair ones tell how fast their models are. Does not block."""
        self._runs.ran(answers)

    def paces(self) -> dict[str, Pace]:
        """How fast models are by their fair runs, by canonical name."""
        return self._runs.paces()

    def board(self, view: View = ALL) -> Board:
        """The leaderboard."""
        return self._rated(view).board

    def ladder(self, view: View = ALL) -> tuple[Ladder, ...]:
        """Every model with its settings below it."""
        models, settings = (self._rated(replace(view, per=per)).board for per in ("model", "configuration"))
        return ladders(models.rows, settings.rows)

    def matrix(self, view: View = ALL) -> Matrix:
        """Who beat whom, what is decided, and what would turn neighbours around."""
        return self._rated(replace(view, style=False)).matrix

    def timeline(self, view: View = ALL, points: int = 30) -> tuple[Moment, ...]:
        """The ratings as they came about, at the end of at most `points` days."""
        return self._rated(replace(view, style=False)).timeline(points)

    def said(self, points: int = 30) -> tuple[Said, ...]:
        """What the board of all blind votes said, when it was asked, on each of the last `points` days with votes."""
        return self._diary.said(points)

    def next_pair(self, models: Sequence[str], draw: Random | None = None) -> tuple[int, int]:
        """The places of the two `models` (at least two) whose battle teaches most, or now and then of any two.

        `draw` is the system's secure generator if none is given.
        """
        rated = self._rated(ALL)
        known = {canonical(name): name for name in rated.tally.names}
        called = [known.get(canonical(model), model) for model in models]
        return suggested(rated.fit_with(called), draw or SystemRandom(), called)

    def _rated(self, view: View) -> Rated:
        """The view as of the last vote. Who asks for another view waits for nothing but its own votes."""
        with self._lock:
            kept = self._views.pop(view, None) or RatedView(self._store, view, self._caps)
            self._views[view] = kept
            while len(self._views) > MOST_VIEWS:
                self._views.popitem(last=False)
        rated = kept.latest()
        if view == ALL:
            self._diary.heard(rated.board.last_vote, rated.board.votes, rated.board.rows)
        return rated
