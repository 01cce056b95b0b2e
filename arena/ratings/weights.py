"""How much each vote counts: nobody outweighs the crowd by voting more, or from many names behind one address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from arena.ratings.strengths import cells, fit
from arena.ratings.tally import SCORES, Codes, Floats, Tally, sums

_ROUNDS: Final = 2
_JUDGED: Final = 8  # votes, below which nobody is judged
_CIRCLE: Final = 0.1  # of all weight, from which on nobody is
_CROWD: Final = 10  # others, fewer than which put a cap on nobody: a small circle knows what it does
_SLACK: Final = 0.5  # variance, in votes squared: one odd vote between unequal models is held against nobody


class Caps(Struct, frozen=True):
    """The most votes that a voter or an address counts for, altogether and on one day.

    Where the middle vote of all others is by somebody with more votes than that, as many as that: a cap takes weight
    from what stands out. Where there are fewer than ten others there are no caps.

    `stray` is how many standard errors a voter's votes for or against one model may differ from what all votes
    together let expect. Who differs more counts less, by the square; who holds a tenth of all weight is not judged,
    since in a small circle everybody's taste matters.
    """

    voter: float = 20.0
    address: float = 60.0
    voter_day: float = 20.0
    address_day: float = 40.0
    stray: float = 3.0


def weights(tally: Tally, caps: Caps | None) -> Floats:
    """The weight of one vote of each row, at most 1; None caps nothing."""
    share = tally.share[tally.what]
    if caps is None or not len(share):
        return share
    held, capped = share * tally.count, np.ones(len(share))
    for group, floor in _groups(tally, held, caps):
        sizes = sums(group, capped * held)
        if sizes.max() > floor:
            limit = np.maximum(floor, _middle_of_others(sizes))
            capped *= np.minimum(1.0, limit / np.maximum(sizes, limit))[group]
    weight = sums(tally.voter, capped * held)
    judged = (sums(tally.voter, tally.count) >= _JUDGED) & (weight < _CIRCLE * weight.sum())
    trusted = share * capped
    if judged.any():
        slots, alike = _Slots(tally), trusted
        for _ in range(_ROUNDS):  # without those who stray, others are seen to
            deviation = slots.deviations(fit(cells(tally, trusted), samples=0).strengths)
            believed = np.minimum(1.0, (caps.stray / np.maximum(deviation, caps.stray)) ** 2)
            trusted = alike * np.where(judged, believed, 1.0)[tally.voter]
    return trusted


def _groups(tally: Tally, held: Floats, caps: Caps) -> Iterator[tuple[Codes, float]]:
    """Who casts, ever more widely; and the cap on that."""
    for who, by_day, floor in (
        (tally.voter, caps.voter_day, caps.voter),
        (tally.address, caps.address_day, caps.address),
    ):
        if np.count_nonzero(sums(who, held)) > _CROWD:
            yield _by_day(who, tally.day), by_day
            yield who, floor


class _Slots:
    """For each vote, where it adds to what is known of its voter's taste for a and for b."""

    def __init__(self, tally: Tally) -> None:
        self._tally, self._size = tally, len(tally.names)
        row = tally.voter * self._size
        self._on_a, self._on_b = row + tally.whats[0][tally.what], row + tally.whats[1][tally.what]
        self._slots = (int(tally.voter.max()) + 1) * self._size

    def deviations(self, strengths: Floats) -> Floats:
        """By how many standard errors each voter deviates at most, over all contestants."""
        tally = self._tally
        a, b, verdict, *_ = tally.whats
        chance = 1 / (1 + np.exp(strengths[b] - strengths[a]))
        surprise = (tally.share * (SCORES[verdict] - chance))[tally.what] * tally.count
        variance = (tally.share**2 * tally.spread * chance * (1 - chance))[tally.what] * tally.count
        summed = sums(self._on_a, surprise, self._slots) - sums(self._on_b, surprise, self._slots)
        spread = sums(self._on_a, variance, self._slots) + sums(self._on_b, variance, self._slots) + _SLACK
        return np.asarray((np.abs(summed) / np.sqrt(spread)).reshape(-1, self._size).max(1))


def _by_day(who: Codes, day: Codes) -> Codes:
    group = who * (day.max() + 1) + day
    sparse = group.max() > 4 * len(group) + 1_000_000  # else sorting costs more than empty groups do
    return np.unique(group, return_inverse=True)[1] if sparse else group


def _middle_of_others(sizes: Floats) -> Floats:
    """For each group, the size of the group that the middle one of all others' votes belongs to."""
    ordered = np.sort(sizes[sizes > 0])
    middle = np.searchsorted(np.cumsum(ordered), (ordered.sum() - sizes) / 2)
    return np.asarray(ordered[np.minimum(middle, len(ordered) - 1)])
