"""How the ratings came about: the board as it stood at the end of several days."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct

from arena.ratings.intervals import bounds
from arena.ratings.strengths import CENTRE, SCALE, Fit, cells, fit
from arena.ratings.tally import Floats, Tally, sums

_MOST: Final = 6000  # ratings on all days together, beyond which there are fewer days: a fit of many takes long
_FEWEST: Final = 8  # days, however many there are on the board


class Moment(Struct, frozen=True):
    """The ratings at the end of `day`, by contestant: rating, lower and upper bound; only those with votes by then."""

    day: str
    votes: int
    ratings: dict[str, tuple[float, float, float]]


def timeline(tally: Tally, weight: Floats, points: int = 30) -> tuple[Moment, ...]:
    """The board on at most `points` of the days that have votes, evenly spaced, the last one included.

    They are fewer where more than 200 contestants are rated.
    """
    days, points = sorted(set(tally.days)), min(points, max(_FEWEST, _MOST // max(1, len(tally.names))))
    if len(days) > points:
        days = [days[at] for at in np.linspace(0, len(days) - 1, points).round().astype(int)]
    order = np.argsort(np.argsort(np.array(tally.days)))  # the number of each day in time
    last = {day: int(order[tally.days.index(day)]) for day in days}
    moments, strengths = [], np.zeros(len(tally.names))
    for day in days:
        until = order[tally.day] <= last[day]
        seen, held = tally.only(until), weight[until]
        fitted = fit(cells(seen, held), samples=0, start=strengths)
        strengths = fitted.strengths  # where the next day begins
        moments.append(_moment(fitted, seen, held, day))
    return tuple(moments)


def _moment(fitted: Fit, seen: Tally, weight: Floats, day: str) -> Moment:
    known = CENTRE + SCALE * np.array([fitted.strengths, *bounds(fitted, seen, weight)])
    amount = seen.on_what
    met = sums(seen.whats[0], amount, len(seen.names)) + sums(seen.whats[1], amount, len(seen.names))
    told = zip(fitted.names, known.T.tolist(), met, strict=True)
    return Moment(day, seen.votes, {name: tuple(each) for name, each, votes in told if votes})
