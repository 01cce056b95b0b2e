"""How far the votes leave each strength open, and who is surely above whom.

The bounds are those of the profile likelihood: where the likeliest ratings that include a bound fit the votes just
too badly. Unlike bounds that are equally far on both sides, they know that ten wins of ten say "not weaker than that",
and hardly anything about how much stronger.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from arena.ratings.strengths import Fit, Z, chances
from arena.ratings.tally import TIE, Codes, Floats, Tally

_STEPS: Final = 50  # hardly ever more than five
_CLOSE: Final = 1e-5  # logits; what is left after such a step is its square
_BLOCK: Final = 25_000  # numbers at once; more fall out of the processor's cache


class Intervals(Struct, frozen=True):
    """The 95 % bounds of each strength, in logits; `above[i, j]` says whether i is as surely above j.

    Of two whom no chain of votes links, neither is.
    """

    lower: Floats
    upper: Floats
    above: NDArray[np.bool_]


def intervals(fit: Fit, tally: Tally, weight: Floats) -> Intervals:
    """How sure each strength of `fit` is, and each difference of two.

    The error is that of the resampled votes, or the model's own where that is larger: a few equal votes have no spread
    to resample.
    """
    at, own = fit.strengths, dispersion(fit, tally, weight) * fit.uncertainty
    lower, upper = bounds(fit, tally, weight)
    between = np.maximum(_of_differences(fit.covariance), _of_differences(own))
    above = at[:, None] - at > Z * np.sqrt(np.maximum(between, 0.0))
    group = _groups(tally)
    return Intervals(lower, upper, (above | (lower[:, None] > upper)) & (group[:, None] == group))


def _groups(tally: Tally) -> Codes:
    """By contestant, the number of those whom votes link it to, be it over others: between groups nothing is known."""
    (a, b), group = tally.whats[:2, tally.on_what > 0], np.arange(len(tally.names))
    while (group[a] != group[b]).any():
        for one, other in ((a, b), (b, a)):
            np.minimum.at(group, group[one], group[other])
        group = group[group]
    return group


def bounds(fit: Fit, tally: Tally, weight: Floats) -> Floats:
    """The same bounds alone, as (2, contestants): lower and upper, in logits."""
    own = dispersion(fit, tally, weight) * np.diag(fit.uncertainty)
    return np.asarray(fit.strengths + _reach(fit, np.maximum(np.diag(fit.covariance), own)))


def dispersion(fit: Fit, tally: Tally, weight: Floats) -> float:
    """By how much votes vary less than wins and losses that are as often expected: a factor of variances, at most 1.

    A tie takes a quarter from what p(1-p) lets expect. The pairs of one ballot are taken for fewer votes than they are
    worth. As much as four even battles without ties is added, so that a few ties do not look like certainty.
    """
    a, b, verdict, sides, _ = tally.whats
    held = tally.weighed(weight)[0]
    chance = chances(fit.strengths[a] - fit.strengths[b])
    expected = held * chance * (1 - chance)
    found = (expected - held * (verdict >= TIE) / 4) * tally.spread * 2 / sides
    return float((max(found.sum(), 0.0) + 1) / (expected.sum() + 1))


def _of_differences(covariance: Floats) -> Floats:
    """The variance of the difference of each two."""
    variance = np.diag(covariance)
    return np.asarray(variance[:, None] + variance - 2 * covariance)


def _reach(fit: Fit, variance: Floats) -> Floats:
    """How far below and above its strength the bounds of each contestant lie, as (2, contestants)."""
    size = len(variance)
    if size < 2:
        return np.zeros((2, size))
    rows = max(1, _BLOCK // size)
    blocks = [slice(at, at + rows) for at in range(0, size, rows)]
    return np.concatenate([_reach_of(fit, variance, block) for block in blocks], axis=1)


def _reach_of(fit: Fit, variance: Floats, of: slice) -> Floats:
    """The same of some contestants.

    As the strength of one is moved, those of the others follow in proportion, as is likeliest close by. What its own
    votes lose in likelihood is computed exactly, what others' votes lose to second order. The loss is convex: Newton's
    steps come to the bound from outside.
    """
    known, variance = np.diag(fit.uncertainty)[of], variance[of]
    lead = fit.strengths[of, None] - fit.strengths
    follows = 1 - fit.uncertainty[of] / known[:, None]  # how fast the lead over each of the others grows
    played = fit.wins[of] + fit.wins[:, of].T
    level, chance = _likelihood(lead)
    curve = played * follows**2 * chance * (1 - chance)
    others = np.maximum(1 / known - curve.sum(1), 0.0)
    limit = Z**2 / 2 * variance / known
    reach = np.array([[-Z], [Z]]) * np.sqrt(variance)
    # what the third order adds at that distance, as a share of the second, leads close to where the bound is
    skew = np.maximum(reach * known * (curve * follows * (1 - 2 * chance)).sum(1), -1.0)
    reach *= 1 - skew / 6 / (1 + skew / 2)
    for _ in range(_STEPS):
        gained = reach[..., None] * follows
        moved, rising = _likelihood(lead + gained)
        loss = (played * (moved - level - chance * gained)).sum(2) + others * reach**2 / 2
        slope = (played * follows * (rising - chance)).sum(2) + others * reach
        step = (limit - loss) / slope
        reach = reach + step
        if np.abs(step).max() < _CLOSE:
            break
    return reach


def _likelihood(lead: Floats) -> tuple[Floats, Floats]:
    """By each lead: log(1 + exp(lead)), which is what losing costs, and the chance to win."""
    small = np.exp(-np.abs(lead))
    return np.maximum(lead, 0) + np.log1p(small), np.where(lead >= 0, 1, small) / (1 + small)
