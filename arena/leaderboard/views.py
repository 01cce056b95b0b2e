"""A view of the votes, read and fitted once: further votes cost only themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from arena.leaderboard.labels import labels
from arena.ratings import (
    Caps,
    Duel,
    Effect,
    Fit,
    Flip,
    Ledger,
    Moment,
    Rating,
    Tally,
    Weigher,
    board,
    cells,
    differences,
    duels,
    fit,
    flips,
    style_fit,
    timeline,
)
from arena.ratings.tally import Floats
from arena.store import CellFilter, Store
from arena.types import Configuration, Style, VotePage

MOST_IN_MATRIX: Final = 200
"""Contestants, the best of the board: their pairs are as many as the square of them."""

_STYLES: Final = msgspec.json.Decoder(list[tuple[Style, Style]])
_Fitted = tuple[Fit, tuple[Effect, ...]]


class View(Struct, frozen=True):
    """Which votes are rated, and how. `since` and `until` (not included) are days or moments in ISO 8601, UTC.

    `blind`: only votes cast before the models were known. `style` holds length and decoration equal; votes without
    known styles are left out then.
    """

    per: Literal["model", "configuration"] = "model"
    blind: bool = True
    category: str | None = None
    tag: str | None = None
    since: str | None = None
    until: str | None = None
    voters: tuple[str, ...] | None = None
    style: bool = False


class Board(Struct, frozen=True):
    """A leaderboard, best first, as of the vote with the number `last_vote`. `labels` are for configurations.

    `voters` counts who voted, `weight` what the `votes` count for under the caps. `effects` tell what style buys.
    """

    view: View
    last_vote: int
    votes: int
    voters: int
    weight: float
    rows: tuple[Rating, ...]
    labels: dict[str, str]
    effects: tuple[Effect, ...] = ()


class Matrix(Struct, frozen=True):
    """Everybody against everybody, in the order of the board; `omitted` is how many below these are left out."""

    names: tuple[str, ...]
    labels: dict[str, str]
    duels: tuple[Duel, ...]
    flips: tuple[Flip, ...]
    omitted: int = 0


class Rated:
    """A view as of one vote. Nothing in it changes: any thread may read it, whoever adds votes meanwhile."""

    def __init__(self, board: Board, tally: Tally, weight: Floats, fitted: Fit) -> None:
        self.board, self.tally, self.weight = board, tally, weight
        self._fit = fitted
        self._matrix: Matrix | None = None
        self._moments: tuple[int, tuple[Moment, ...]] = 0, ()

    @property
    def matrix(self) -> Matrix:
        """Computed when it is first asked for; who asks at the same moment computes the same."""
        if self._matrix is None:
            names = tuple(row.name for row in self.board.rows[:MOST_IN_MATRIX])
            met = duels(self._fit, self.tally, self.weight, MOST_IN_MATRIX)
            labels = {name: self.board.labels[name] for name in names if name in self.board.labels}
            omitted = len(self.board.rows) - len(names)
            self._matrix = Matrix(names, labels, met, flips(self._fit, MOST_IN_MATRIX), omitted)
        return self._matrix

    def timeline(self, points: int) -> tuple[Moment, ...]:
        """How the board came about; computed when so many points are first asked for."""
        known, moments = self._moments
        if known != points:
            moments = timeline(self.tally, self.weight, points)
            self._moments = points, moments
        return moments

    def fit_with(self, names: Sequence[str]) -> Fit:
        """The strengths of a board that lists `names`, whether anybody has voted on them or not."""
        new = sorted({*names}.difference(self.tally.names))
        if not new:
            return self._fit
        listed = replace(self.tally, names=(*self.tally.names, *new))
        return fit(cells(listed, self.weight), samples=0)


class RatedView:
    """One view and its votes. It blocks, for threads, and nobody but who asks for the same view."""

    def __init__(self, store: Store, view: View, caps: Caps) -> None:
        self._store, self._view = store, view
        self._votes = (_StyledVotes if view.style else _Votes)(store, view)
        self._weigher = Weigher(caps)
        self._lock = threading.Lock()
        self._rated: Rated | None = None

    def latest(self) -> Rated:
        """As of the last vote. Whoever comes second waits for the first, and has it for nothing."""
        with self._lock:
            last = self._store.last_number()
            if self._rated is None or self._rated.board.last_vote != last:
                self._votes.read_upto(last)
                self._rated = self._rate(last)
            return self._rated

    def _rate(self, last_vote: int) -> Rated:
        tally = self._votes.ledger.tally()
        weight = self._weigher.weights(tally)
        known = self._store.configurations() if self._view.per == "configuration" else None
        families = None if known is None else {name: each.model for name, each in known.items()}
        fitted, effects = self._votes.fit(tally, weight, families)
        rows = board(fitted, tally, weight, families)
        told = Board(
            view=self._view,
            last_vote=last_vote,
            votes=tally.votes,
            voters=tally.voters,
            weight=sum(row.weight for row in rows) / 2,  # each vote is on two
            rows=rows,
            labels=_labels(tally, known or {}),
            effects=effects,
        )
        return Rated(told, tally, weight, fitted)


def _labels(tally: Tally, known: Mapping[str, Configuration]) -> dict[str, str]:
    told = labels(known.values())
    return {name: told[name] for name in tally.names if name in told}


class _Votes:
    """The votes of a view; the store tells only the new ones when asked again."""

    def __init__(self, store: Store, view: View) -> None:
        self.store, self.view = store, view
        self.ledger = Ledger()
        self.read = 0

    def read_upto(self, last: int) -> None:
        """Add the votes that came since."""
        view = self.view
        wanted = CellFilter(
            blind=True if view.blind else None,
            category=view.category,
            tag=view.tag,
            voters=view.voters,
            since=view.since,
            until=view.until,
            after=self.read,
            upto=last,
            per=view.per,
        )
        self.add(wanted)
        self.read = last

    def add(self, wanted: CellFilter) -> None:
        """Read these votes."""
        self.ledger.add_pages(self.store.pages(wanted))

    def fit(self, tally: Tally, weight: Floats, families: Mapping[str, str] | None) -> _Fitted:
        """The strengths, and what style buys, where that is asked."""
        return fit(cells(tally, weight), families), ()


class _StyledVotes(_Votes):
    """The votes whose styles are known, with these, since each has its own."""

    def __init__(self, store: Store, view: View) -> None:
        super().__init__(store, view)
        self.styles: list[tuple[Style, Style]] = []

    def add(self, wanted: CellFilter) -> None:
        """Read these votes, as far as their styles are known."""
        found: list[tuple[Style, Style]] = []

        def pages() -> Iterator[VotePage]:
            for page, styles in self.store.styled_pages(wanted):
                found.extend(_STYLES.decode(styles))
                yield page

        self.ledger.add_pages(pages())
        self.styles += found

    def fit(self, tally: Tally, weight: Floats, families: Mapping[str, str] | None) -> _Fitted:
        """The strengths with style held equal."""
        found = style_fit(tally, weight, differences(self.styles), families)
        return found.fit, found.effects
