"""The leaderboard: ratings with intervals, and the ranks that they allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from msgspec import Struct

from arena.ratings.intervals import intervals
from arena.ratings.strengths import CENTRE, SCALE, Fit
from arena.ratings.tally import BOTH_BAD, TIE, VERDICTS, Codes, Floats, Tally, sums

PRELIMINARY: Final = 20  # votes, by weight, below which a rating is only a first impression


class Rating(Struct, frozen=True):
    """One contestant. `lower` and `upper` bound the rating with 95 % confidence, in rating points.

    `rank` is its place by the rating alone; `rank_best` and `rank_worst` bound what the votes prove: 1 + how many are
    clearly above, and how many are not clearly below. `votes` counts its comparisons, `weight` what they count for;
    `preliminary` marks a weight below 20. `model` is the model that a configuration belongs to.
    """

    name: str
    model: str
    rating: float
    lower: float
    upper: float
    rank: int
    rank_best: int
    rank_worst: int
    votes: int
    weight: float
    wins: int
    losses: int
    ties: int
    both_bad: int
    win_rate: float | None
    preliminary: bool


class Ladder(Struct, frozen=True):
    """A model with its settings, best first; the settings are rated against everything."""

    model: Rating
    settings: tuple[Rating, ...]


def board(fit: Fit, tally: Tally, weight: Floats, families: Mapping[str, str] | None = None) -> tuple[Rating, ...]:
    """The ratings of all contestants, best first."""
    known = intervals(fit, tally, weight)
    ratings, lower, upper = (CENTRE + SCALE * at for at in (fit.strengths, known.lower, known.upper))
    best, worst = 1 + known.above.sum(0), len(fit.names) - known.above.sum(1)
    outcomes = _outcomes(tally)
    counted = _by_contestant(tally, tally.weighed(weight)[0])
    rows = []
    for rank, at in enumerate(np.argsort(-fit.strengths, kind="stable").tolist(), 1):
        wins, losses, ties, both_bad = outcomes[at].tolist()
        votes = wins + losses + ties + both_bad
        rows.append(
            Rating(
                name=fit.names[at],
                model=(families or {}).get(fit.names[at], fit.names[at]),
                rating=float(ratings[at]),
                lower=float(lower[at]),
                upper=float(upper[at]),
                rank=rank,
                rank_best=int(best[at]),
                rank_worst=int(worst[at]),
                votes=votes,
                weight=float(counted[at]),
                wins=wins,
                losses=losses,
                ties=ties,
                both_bad=both_bad,
                win_rate=(wins + (ties + both_bad) / 2) / votes if votes else None,
                preliminary=bool(counted[at] < PRELIMINARY),
            )
        )
    return tuple(rows)


def ladders(models: Iterable[Rating], settings: Iterable[Rating]) -> tuple[Ladder, ...]:
    """Every model with its own settings below it; the order of both is kept."""
    below: dict[str, list[Rating]] = {}
    for setting in settings:
        below.setdefault(setting.model, []).append(setting)
    return tuple(Ladder(model, tuple(below.get(model.name, ()))) for model in models)


def _by_contestant(tally: Tally, amount: Floats) -> Floats:
    size = len(tally.names)
    return sums(tally.whats[0], amount, size) + sums(tally.whats[1], amount, size)


def _outcomes(tally: Tally) -> Codes:
    """Wins, losses, ties and both bad of each contestant."""
    size, kinds, amount = len(tally.names), len(VERDICTS), tally.on_what
    a, b, verdict, *_ = tally.whats
    of_a, of_b = (sums(each * kinds + verdict, amount, size * kinds).reshape(size, kinds) for each in (a, b))
    drawn = (of_a + of_b)[:, [TIE, BOTH_BAD]]
    found = np.column_stack([of_a[:, 0] + of_b[:, 1], of_a[:, 1] + of_b[:, 0], drawn])
    return found.astype(np.int64)
