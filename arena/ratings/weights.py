"""How much each vote counts: nobody outweighs the crowd by voting more, or from many names behind one address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from arena.ratings.strengths import cells, fit
from arena.ratings.tally import SCORES, Codes, Floats, Tally, sums

_ROUNDS: Final = 2
_JUDGED: Final = 8  # votes, below which nobody is judged
_CIRCLE: Final = 0.1  # of all weight, from which on nobody is
_CROWD: Final = 10  # others, fewer than which put a cap on nobody: a small circle knows what it does
_SLACK: Final = 0.5  # variance, in votes squared: one odd vote between unequal models is held against nobody
_BLOCK: Final = 65_536  # tastes at once: those of a voter for each contestant; more fall out of the processor's cache


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
    weight = tally.share[tally.what]
    if caps is None or not len(weight):
        return weight
    held = weight * tally.count
    for who, floor, by_day in (
        (tally.voter, caps.voter, caps.voter_day),
        (tally.address, caps.address, caps.address_day),
    ):
        if np.count_nonzero(np.bincount(who)) > _CROWD:
            _cap(who, tally.day, by_day, (weight, held))
            _cap(who, None, floor, (weight, held))
    held_by = sums(tally.voter, held)
    judged = (sums(tally.voter, tally.count) >= _JUDGED) & (held_by < _CIRCLE * held_by.sum())
    return _believed(tally, weight, judged, caps.stray) if judged.any() else weight


def _cap(who: Codes, day: Codes | None, floor: float, amounts: tuple[Floats, ...]) -> None:
    """Take from all `amounts` of each of `who`, on each day or altogether, what the last of them exceeds the cap by.

    Whoever holds no more than `floor` altogether is under the cap on every day, so hardly anybody's votes need to be
    grouped.
    """
    held = amounts[-1]
    total = sums(who, held)
    rows = np.flatnonzero((total > floor)[who])
    if not len(rows):
        return
    group = who[rows] if day is None else _by_day(who[rows], day[rows])
    sizes = sums(group, held[rows])
    if sizes.max() <= floor:
        return
    limit = np.maximum(floor, _middle_of_others(sizes, floor, total.sum()))
    kept = (limit / np.maximum(sizes, limit))[group]
    for amount in amounts:
        amount[rows] *= kept


def _by_day(who: Codes, day: Codes) -> Codes:
    group = who * (day.max() + 1) + day
    sparse = group.max() > 4 * len(group) + 1_000_000  # else sorting costs more than empty groups do
    return np.unique(group, return_inverse=True)[1] if sparse else group


def _middle_of_others(sizes: Floats, floor: float, total: float) -> Floats:
    """For each group, the size of the group that the middle one of all others' votes belongs to; 0 up to `floor`.

    `sizes` are all that are above it, and maybe more; `total` is that of everybody's.
    """
    ordered = np.concatenate([[0.0], np.sort(sizes[sizes > floor])])
    upto = np.cumsum(ordered) + (total - ordered.sum())
    middle = np.searchsorted(upto, (total - sizes) / 2)
    return np.asarray(ordered[np.minimum(middle, len(ordered) - 1)])


def _believed(tally: Tally, weight: Floats, judged: NDArray[Any], stray: float) -> Floats:
    """The weights, with those lowered that belong to voters who are `judged` and stray from all others."""
    tastes, trusted = _Tastes(tally, judged), weight
    for _ in range(_ROUNDS):  # without those who stray, others are seen to
        deviation = tastes.deviations(fit(cells(tally, trusted), samples=0).strengths)
        if deviation.max() <= stray and trusted is weight:
            break
        believed = np.ones(len(judged))
        believed[judged] = (stray / np.maximum(deviation, stray)) ** 2
        trusted = weight * believed[tally.voter]
    return trusted


class _Tastes:
    """What the votes of those who are judged say of their taste for each contestant; some voters' lie together each."""

    def __init__(self, tally: Tally, judged: NDArray[Any]) -> None:
        self._tally, self._voters = tally, int(np.count_nonzero(judged))
        rows = np.flatnonzero(judged[tally.voter])
        place = (np.cumsum(judged) - 1)[tally.voter[rows]]
        self._each = max(1, _BLOCK // len(tally.names))  # voters to a block
        block = place // self._each
        order = np.argsort(block.astype(np.min_scalar_type(self._voters // self._each)), kind="stable")
        self._ends = np.cumsum(np.bincount(block)).tolist()
        self._place, self._what, self._count = (each[order] for each in (place, tally.what[rows], tally.count[rows]))

    def deviations(self, strengths: Floats) -> Floats:
        """By how many standard errors each voter who is judged deviates at most, over all contestants."""
        a, b, verdict, *_ = self._tally.whats
        share, size = self._tally.share, len(strengths)
        chance = 1 / (1 + np.exp(strengths[b] - strengths[a]))
        surprise = share * (SCORES[verdict] - chance)
        variance = share**2 * self._tally.spread * chance * (1 - chance)
        found = np.empty(self._voters)
        for voter, votes in self._blocks():
            what, count = self._what[votes], self._count[votes]
            first = (self._place[votes] - voter) * size
            on_a, on_b, slots = first + a[what], first + b[what], self._each * size
            amount, by = surprise[what] * count, variance[what] * count
            summed = sums(on_a, amount, slots) - sums(on_b, amount, slots)
            spread = sums(on_a, by, slots) + sums(on_b, by, slots) + _SLACK
            most = (summed**2 / spread).reshape(-1, size).max(1)
            found[voter : voter + self._each] = most[: self._voters - voter]
        return np.sqrt(found)

    def _blocks(self) -> Iterator[tuple[int, slice]]:
        """The first voter of each, and where the votes are."""
        begin = 0
        for number, end in enumerate(self._ends):
            yield number * self._each, slice(begin, end)
            begin = end
