"""How much each vote counts: nobody outweighs the crowd by voting more, or from many names behind one address."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from arena.ratings.strengths import cells, chances, fit
from arena.ratings.tally import SCORES, Codes, Floats, Tally, sums

_ROUNDS: Final = 2
_JUDGED: Final = 8  # votes, below which nobody is judged
_CIRCLE: Final = 0.1  # of all weight, from which on nobody is
_CROWD: Final = 10  # others, fewer than which put a cap on nobody: a small circle knows what it does
_EMPTY: Final = 1_000_000  # groups that cost little even if there are few others
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
    return tally.share[tally.what] if caps is None else Weigher(caps).weights(tally)


class Weigher:
    """Weighs the votes of one ledger, again and again as new ones come; it remembers who of its voters may stray."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._seen = 0  # rows
        self._often = np.zeros(0, np.int64)

    def weights(self, tally: Tally) -> Floats:
        """The weight of one vote of each row, at most 1. The rows weighed before must be the first ones."""
        weight, caps = tally.share[tally.what], self._caps
        held = weight * tally.count
        for who, floor, by_day in (
            (tally.voter, caps.voter, caps.voter_day),
            (tally.address, caps.address, caps.address_day),
        ):
            held_by = sums(who, held)
            if np.count_nonzero(held_by) > _CROWD:
                if _cap(who, tally.day, by_day, held_by, (weight, held)):
                    held_by = sums(who, held)
                _cap(who, None, floor, held_by, (weight, held))
        held_by = sums(tally.voter, held)
        judged = (sums(tally.voter, tally.count) >= _JUDGED) & (held_by < _CIRCLE * held_by.sum())
        return self._believed(tally, weight, judged)

    def _believed(self, tally: Tally, weight: Floats, judged: NDArray[np.bool_]) -> Floats:
        """The weights, with those lowered that belong to voters who are `judged` and stray from all others."""
        tastes, trusted, stray = _Tastes(tally, self._often_voted(tally), judged), weight, self._caps.stray
        for _ in range(_ROUNDS if len(tastes.voter) else 0):  # without those who stray, others are seen to
            deviation = tastes.deviations(fit(cells(tally, trusted), samples=0).strengths)
            if deviation.max() <= stray and trusted is weight:
                break
            believed = np.ones(len(judged))
            np.minimum.at(believed, tastes.voter, (stray / np.maximum(deviation, stray)) ** 2)
            rows = np.flatnonzero((believed < 1)[tally.voter])
            trusted = weight.copy()
            trusted[rows] *= believed[tally.voter[rows]]
        return trusted

    def _often_voted(self, tally: Tally) -> Codes:
        """The ends of votes at contestants on whom their voter has voted so often that it may stray there.

        An end is twice the row, and for b one more. Only voters with new votes are looked at.
        """
        new = np.zeros(tally.voter.max(initial=-1) + 1, np.bool_)
        new[tally.voter[self._seen :]] = True
        kept = self._often[~new[tally.voter[self._often >> 1]]]
        harmless = self._caps.stray * np.sqrt(_SLACK)  # even if every vote surprised by all that it counts for
        self._often = np.concatenate([kept, _often(tally, np.flatnonzero(new[tally.voter]), harmless)])
        self._seen = len(tally.voter)
        return self._often


def _cap(who: Codes, day: Codes | None, floor: float, total: Floats, amounts: tuple[Floats, ...]) -> bool:
    """Take from all `amounts` of each of `who`, on each day or altogether, what the last of them exceeds the cap by.

    `total` is what each of them holds. Whoever holds no more than `floor` altogether is under the cap on every day, so
    hardly anybody's votes need to be grouped. Has anything been taken?
    """
    above = total > floor
    if not above.any():
        return False
    rows = np.flatnonzero(above[who])
    group = who[rows] if day is None else _dense(who[rows] * (day.max() + 1) + day[rows])
    sizes = sums(group, amounts[-1][rows])
    if sizes.max() <= floor:
        return False
    limit = np.maximum(floor, _middle_of_others(sizes, floor, total.sum()))
    kept = (limit / np.maximum(sizes, limit))[group]
    for amount in amounts:
        amount[rows] *= kept
    return True


def _dense(keys: Codes) -> Codes:
    """The same groups, by numbers without great gaps."""
    return np.unique(keys, return_inverse=True)[1] if _sparse(keys) else keys


def _sparse(keys: Codes) -> bool:
    """Would all the groups that are empty cost more than sorting does?"""
    return bool(keys.max(initial=0) > 4 * len(keys) + _EMPTY)


def _middle_of_others(sizes: Floats, floor: float, total: float) -> Floats:
    """For each group, the size of the group that the middle one of all others' votes belongs to; 0 up to `floor`.

    `sizes` are all that are above it, and maybe more; `total` is that of everybody's.
    """
    ordered = np.concatenate([[0.0], np.sort(sizes[sizes > floor])])
    upto = np.cumsum(ordered) + (total - ordered.sum())
    middle = np.searchsorted(upto, (total - sizes) / 2)
    return np.asarray(ordered[np.minimum(middle, len(ordered) - 1)])


def _often(tally: Tally, rows: Codes, harmless: float) -> Codes:
    """The ends of the rows at contestants on whom their voter's votes, which must all be there, count for more."""
    what, first = tally.what[rows], tally.voter[rows] * len(tally.names)
    held = tally.share[what] * tally.count[rows]
    group = _dense(np.concatenate([first + of[what] for of in tally.whats[:2]]))
    side, at = np.nonzero((sums(group, np.tile(held, 2)) > harmless)[group].reshape(2, -1))
    return 2 * rows[at] + side


class _Tastes:
    """What some `ends` of votes say of their voters' tastes for each contestant, as far as those are `judged`."""

    def __init__(self, tally: Tally, ends: Codes, judged: NDArray[np.bool_]) -> None:
        rows, size = ends >> 1, len(tally.names)
        voter = tally.voter[rows]
        if not (kept := judged[voter]).all():
            ends, rows, voter = ends[kept], rows[kept], voter[kept]
        of_b, self._tally, self._what, count = ends & 1, tally, tally.what[rows], tally.count[rows].astype(np.float64)
        contestant = tally.whats[:2].ravel()[of_b * tally.whats.shape[1] + self._what]
        each = self._taste = voter * size + contestant
        if _sparse(each):
            each, self._taste = np.unique(each, return_inverse=True)
        else:
            each = np.arange(each.max(initial=-1) + 1)
        self.voter, self._for, self._cast = each // size, count * (1 - 2 * of_b), count

    def deviations(self, strengths: Floats) -> Floats:
        """By how many standard errors each taste, of a `voter` for one contestant, deviates."""
        a, b, verdict, *_ = self._tally.whats
        share = self._tally.share
        chance = chances(strengths[a] - strengths[b])
        surprise = share * (SCORES[verdict] - chance)
        variance = share**2 * self._tally.spread * chance * (1 - chance)
        summed = sums(self._taste, surprise[self._what] * self._for)
        spread = sums(self._taste, variance[self._what] * self._cast) + _SLACK
        return np.abs(summed) / np.sqrt(spread)
