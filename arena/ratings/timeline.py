"""How the ratings came about: the board as it stood at the end of several days."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from arena.ratings.board import standard_errors
from arena.ratings.strengths import CENTRE, SCALE, Z, cells, fit
from arena.ratings.tally import Floats, Tally, sums


class Moment(Struct, frozen=True):
    """The ratings at the end of `day`, by contestant: rating, lower and upper bound; only those with votes by then."""

    day: str
    votes: int
    ratings: dict[str, tuple[float, float, float]]


def timeline(tally: Tally, weight: Floats, points: int = 30) -> tuple[Moment, ...]:
    """The board on at most `points` of the days that have votes, evenly spaced, the last one included."""
    days = sorted(set(tally.days))
    if len(days) > points:
        days = [days[at] for at in np.linspace(0, len(days) - 1, points).round().astype(int)]
    order = np.argsort(np.argsort(np.array(tally.days)))  # the number of each day in time
    last = {day: int(order[tally.days.index(day)]) for day in days}
    return tuple(_moment(tally, weight, day, order[tally.day] <= last[day]) for day in days)


def _moment(tally: Tally, weight: Floats, day: str, until: np.typing.NDArray[np.bool_]) -> Moment:
    seen = tally.only(until)
    fitted = fit(cells(seen, weight[until]), samples=0)
    margins = Z * SCALE * standard_errors(fitted, seen)
    amount = seen.on_what
    met = sums(seen.whats[0], amount, len(seen.names)) + sums(seen.whats[1], amount, len(seen.names))

    def ratings() -> Iterator[tuple[str, tuple[float, float, float]]]:
        for name, strength, margin, known in zip(fitted.names, fitted.strengths, margins, met, strict=True):
            rating = CENTRE + SCALE * float(strength)
            if known:
                yield name, (rating, rating - float(margin), rating + float(margin))

    return Moment(day, seen.votes, dict(ratings()))
