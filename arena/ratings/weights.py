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


class Caps(Struct, frozen=True):
    """The most votes that a voter or an address counts for, altogether and on one day.

    Where the middle vote is by somebody with more votes than that, as in an arena of few people, as many as that: a
    cap takes weight from what stands out, and an arena of one person has no caps.

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
    """The weight of one vote of each row, at most 1; None counts all votes alike."""
    weight = np.ones(len(tally.count))
    if caps is None or not len(weight):
        return weight
    for group, floor in _groups(tally, caps):
        sizes = sums(group, weight * tally.count)
        limit = max(floor, _middle(sizes))
        weight *= np.minimum(1.0, limit / np.maximum(sizes, limit))[group]
    trusted = weight
    for _ in range(_ROUNDS):  # without those who stray, others are seen to
        expected = fit(cells(tally, trusted), samples=0).strengths
        trusted = weight * _trust(tally, weight, expected, caps.stray)
    return trusted


def _groups(tally: Tally, caps: Caps) -> Iterator[tuple[Codes, float]]:
    """Who casts each row, ever more widely, and the cap on that."""
    yield _by_day(tally.voter, tally), caps.voter_day
    yield tally.voter, caps.voter
    yield _by_day(tally.address, tally), caps.address_day
    yield tally.address, caps.address


def _trust(tally: Tally, weight: Floats, strengths: Floats, stray: float) -> Floats:
    """How far each row's voter is believed, from 1 down."""
    held = sums(tally.voter, weight * tally.count)
    judged = (sums(tally.voter, tally.count) >= _JUDGED) & (held < _CIRCLE * held.sum())
    believed = np.ones(len(held))
    rows = np.flatnonzero(judged[tally.voter])
    if len(rows):
        seen = tally if len(rows) == len(tally.a) else tally.only(rows)
        voter = (np.cumsum(judged) - 1)[seen.voter]
        believed[judged] = np.minimum(1.0, (stray / np.maximum(_deviations(seen, voter, strengths), stray)) ** 2)
    return believed[tally.voter]


def _deviations(tally: Tally, voter: Codes, strengths: Floats) -> Floats:
    """By how many standard errors each voter deviates at most, over all contestants."""
    size = len(tally.names)
    chance = 1 / (1 + np.exp(strengths[tally.b] - strengths[tally.a]))
    surprise = tally.count * (SCORES[tally.verdict] - chance)
    variance = tally.count * chance * (1 - chance)
    on_a, on_b, most = voter * size + tally.a, voter * size + tally.b, (int(voter.max()) + 1) * size
    summed = sums(on_a, surprise, most) - sums(on_b, surprise, most)
    spread = np.sqrt(sums(on_a, variance, most) + sums(on_b, variance, most))
    deviation = np.divide(np.abs(summed), spread, out=np.zeros_like(summed), where=spread > 0)
    return np.asarray(deviation.reshape(-1, size).max(1))


def _by_day(who: Codes, tally: Tally) -> Codes:
    group = who * len(tally.days) + tally.day
    sparse = group.max() > 4 * len(group) + 1_000_000  # else sorting costs more than empty groups do
    return np.unique(group, return_inverse=True)[1] if sparse else group


def _middle(sizes: Floats) -> float:
    """The size of the group that the middle vote belongs to."""
    ordered = np.sort(sizes)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])
