"""Ratings of what is in the store. New votes are added to what was read before; nothing is fitted twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from random import Random, SystemRandom
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from arena.ratings import (
    Caps,
    Cell,
    Duel,
    Effect,
    Fit,
    Flip,
    Ladder,
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
    ladders,
    style_fit,
    suggested,
    timeline,
)
from arena.ratings.tally import Floats
from arena.store import CellFilter, Store
from arena.types import Style, Vote

MOST_VIEWS: Final = 16  # kept in memory; each holds its votes, grouped


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
    """Everybody against everybody, in the order of the board."""

    names: tuple[str, ...]
    labels: dict[str, str]
    duels: tuple[Duel, ...]
    flips: tuple[Flip, ...]


class Leaderboard:
    """The ratings over one store. The methods block, for threads; they raise StoreUnavailable."""

    def __init__(self, store: Store, caps: Caps | None = None) -> None:
        """`caps` bound what one voter or address counts for; without them the usual caps hold."""
        self._store = store
        self._caps = caps or Caps()
        self._views: OrderedDict[View, _Rated] = OrderedDict()
        self._lock = threading.Lock()

    def board(self, view: View | None = None) -> Board:
        """The leaderboard."""
        return self._rated(view or View()).board

    def ladder(self, view: View | None = None) -> tuple[Ladder, ...]:
        """Every model with its settings below it."""
        wanted = view or View()
        models, settings = (self._rated(replace(wanted, per=per)) for per in ("model", "configuration"))
        return ladders(models.rows, settings.rows)

    def matrix(self, view: View | None = None) -> Matrix:
        """Who beat whom, what is decided, and what would turn neighbours around."""
        rated = self._rated(replace(view or View(), style=False))
        return Matrix(tuple(row.name for row in rated.rows), rated.labels, rated.duels, rated.flips)

    def timeline(self, view: View | None = None, points: int = 30) -> tuple[Moment, ...]:
        """The ratings as they came about, at the end of at most `points` days."""
        rated = self._rated(replace(view or View(), style=False))
        return timeline(rated.tally, rated.weight, points)

    def next_pair(self, models: Sequence[str], draw: Random | None = None) -> tuple[int, int]:
        """The places of the two `models` (at least two) whose battle teaches most, or now and then of any two.

        `draw` is the system's secure generator if none is given.
        """
        rated = self._rated(View())
        return suggested(rated.fit_with(models), draw or SystemRandom(), models)

    def _rated(self, view: View) -> _Rated:
        """The view as of the last vote. Whoever comes second waits for the first, and has it for nothing."""
        with self._lock:
            kept = self._views.pop(view, None)
            last_vote = self._store.last_number()
            if kept is None:
                kept = _Rated(view, self._votes_of(view), self._store)
            if kept.last_vote != last_vote:
                kept = kept.after(last_vote)
            _ = kept.rows  # fitted before anybody can add votes to it
            self._views[view] = kept
            while len(self._views) > MOST_VIEWS:
                self._views.popitem(last=False)
            return kept

    def _votes_of(self, view: View) -> _Votes:
        return (_StyledVotes if view.style else _Votes)(self._store, view, self._caps)


class _Votes:
    """The votes of a view; the store tells only the new ones when asked again."""

    def __init__(self, store: Store, view: View, caps: Caps) -> None:
        self.store, self.view = store, view
        self.ledger, self.weigher = Ledger(), Weigher(caps)
        self.read = 0

    def read_upto(self, last: int) -> None:
        """Add the votes that came since."""
        self.add_upto(last)
        self.read = last

    def add_upto(self, last: int) -> None:
        """Read the votes after `read`, up to the number `last`."""
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
        self.ledger.add_pages(self.store.pages(wanted))

    def fit(self, tally: Tally, weight: Floats, families: Mapping[str, str] | None) -> tuple[Fit, tuple[Effect, ...]]:
        """The strengths, and what style buys, where that is asked."""
        return fit(cells(tally, weight), families), ()


class _StyledVotes(_Votes):
    """The votes whose styles are known, one by one, since each has its own."""

    def __init__(self, store: Store, view: View, caps: Caps) -> None:
        super().__init__(store, view, caps)
        self.styles: list[tuple[Style, Style]] = []

    def add_upto(self, last: int) -> None:
        """Read the votes after `read`, up to the number `last`."""
        self.ledger.add(list(self._new(last)))

    def _new(self, last: int) -> Iterator[Cell]:
        for number, vote in self.store.votes(self.read):
            if number > last:
                return
            a, b = (vote.model_a, vote.model_b)
            if self.view.per == "configuration":
                a, b = vote.configuration_a, vote.configuration_b
            one, other = vote.style_a, vote.style_b
            if one is not None and other is not None and a != b and _belongs(vote, self.view):
                self.styles.append((one, other))
                who = {"voter": vote.voter, "address": vote.address, "day": vote.at[:10]}
                yield Cell(a, b, vote.verdict, 1, **who, sides=vote.sides, repeats=vote.repeats)

    def fit(self, tally: Tally, weight: Floats, families: Mapping[str, str] | None) -> tuple[Fit, tuple[Effect, ...]]:
        """The strengths with style held equal."""
        found = style_fit(tally, weight, differences(self.styles), families)
        return found.fit, found.effects


class _Rated:
    """A view at one moment. Each part is computed when first asked for."""

    def __init__(self, view: View, votes: _Votes, store: Store) -> None:
        self.view, self._votes, self._store = view, votes, store
        self.last_vote = votes.read
        self.tally = votes.ledger.tally()

    def after(self, last_vote: int) -> _Rated:
        """The same view with the votes up to that number."""
        self._votes.read_upto(last_vote)
        return _Rated(self.view, self._votes, self._store)

    @cached_property
    def weight(self) -> Floats:
        return self._votes.weigher.weights(self.tally)

    @cached_property
    def families(self) -> dict[str, str] | None:
        """The model of each configuration."""
        if self.view.per == "model":
            return None
        return {each.id: each.model for each in self._store.configurations().values()}

    @cached_property
    def labels(self) -> dict[str, str]:
        if self.view.per == "model":
            return {}
        known = self._store.configurations()
        return {name: known[name].label or known[name].model for name in self.tally.names if name in known}

    @cached_property
    def _fitted(self) -> tuple[Fit, tuple[Effect, ...]]:
        return self._votes.fit(self.tally, self.weight, self.families)

    @property
    def effects(self) -> tuple[Effect, ...]:
        return self._fitted[1]

    @cached_property
    def rows(self) -> tuple[Rating, ...]:
        return board(self._fitted[0], self.tally, self.weight, self.families)

    @cached_property
    def board(self) -> Board:
        return Board(
            view=self.view,
            last_vote=self.last_vote,
            votes=self.tally.votes,
            voters=self.tally.voters,
            weight=sum(row.weight for row in self.rows) / 2,  # each vote is on two
            rows=self.rows,
            labels=self.labels,
            effects=self.effects,
        )

    @cached_property
    def duels(self) -> tuple[Duel, ...]:
        return duels(self._fitted[0], self.tally, self.weight)

    @cached_property
    def flips(self) -> tuple[Flip, ...]:
        return flips(self._fitted[0])

    def fit_with(self, names: Sequence[str]) -> Fit:
        """The strengths of a board that lists `names`, whether anybody has voted on them or not."""
        if set(names) <= set(self.tally.names):
            return self._fitted[0]
        tally = self._votes.ledger.tally(names)
        return fit(cells(tally, self.weight), samples=0)


def _belongs(vote: Vote, view: View) -> bool:
    """Is the vote one of the view?"""
    return (
        vote.rated
        and (vote.blind or not view.blind)
        and view.category in (None, vote.category)
        and (view.tag is None or view.tag in vote.tags)
        and (view.voters is None or vote.voter in view.voters)
        and (view.since is None or vote.at >= view.since)
        and (view.until is None or vote.at < view.until)
    )
