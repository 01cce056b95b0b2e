"""Bradley-Terry strengths, and how sure they are.

A tie is half a win for each side, and so is "both bad": it says that neither was better. Every contestant also has
weak virtual draws against the others, without which one that never lost would be infinitely strong and the rest of
the board meaningless.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Final

import numpy as np
from msgspec import Struct

from arena.ratings.tally import TIE, B, Codes, Floats, Tally, sums

SCALE: Final = 400 / log(10)  # rating points of one logit
CENTRE: Final = 1000.0  # the mean rating of all contestants
PRIOR: Final = 0.5  # virtual draws of one contestant against all others together
SIBLING_PRIOR: Final = 4.0  # and against the other settings of the same model, which are likely to be alike
Z: Final = 1.959964  # 95 % of a normal distribution lie within so many standard errors
SAMPLES: Final = 200
SEED: Final = 20
MOST_RESAMPLED: Final = 100  # contestants; beyond, the bootstrap is replaced by its first-order approximation
_FAR: Final = 700.0  # logits behind: no chance is told from none, and its odds are still a number
_LEAF: Final = 50  # contestants; the information on fewer is inverted as a whole
_BLOCK: Final = 50_000  # numbers at once; more fall out of the processor's cache


class Cells(Struct, frozen=True):
    """Votes by pair and outcome. `i` < `j` number the names; `weights` is (pairs, 3): i won, j won, neither.

    `effective` is how many equally weighted votes are worth as much as those in the cell.
    """

    names: tuple[str, ...]
    i: Codes
    j: Codes
    weights: Floats
    effective: Floats


class Fit(Struct, frozen=True):
    """Strengths in logits with mean 0, the covariance of their errors, and the inverse of the information.

    `covariance` comes from resampling the votes; `uncertainty` from the model alone: it also knows how little is known
    about a contestant without votes.
    """

    names: tuple[str, ...]
    strengths: Floats
    covariance: Floats
    uncertainty: Floats
    wins: Floats

    @property
    def ratings(self) -> Floats:
        """The strengths in rating points: 400 points are odds of ten to one."""
        return np.asarray(CENTRE + SCALE * self.strengths)


def cells(tally: Tally, weight: Floats) -> Cells:
    """The votes of `tally`, each counted by its weight, grouped by pair and outcome."""
    size = max(1, len(tally.names))
    a, b, verdict, *_ = tally.whats
    swapped = a > b
    outcome = np.where(verdict >= TIE, 2, (verdict == B) ^ swapped)
    key = np.where(swapped, b * size + a, a * size + b) * 3 + outcome
    held, squared = tally.weighed(weight)
    summed = sums(key, held, size * size * 3).reshape(-1, 3)
    squares = sums(key, squared * tally.spread, size * size * 3).reshape(-1, 3)
    pairs = np.flatnonzero(summed @ np.ones(3))  # several times as fast as any(1)
    summed, squares = summed[pairs], squares[pairs]
    effective = np.divide(summed**2, squares, out=np.zeros_like(summed), where=squares > 0)
    return Cells(tally.names, pairs // size, pairs % size, summed, effective)


def prior(names: tuple[str, ...], families: Mapping[str, str] | None = None) -> Floats:
    """Half the virtual draws between all contestants; `families` says which are settings of one model."""
    size = len(names)
    if not size:
        return np.zeros((0, 0))
    half = np.full((size, size), PRIOR / 2 / max(1, size - 1))
    if families is not None:
        family = np.unique([families.get(name, name) for name in names], return_inverse=True)[1]
        alike = family[:, None] == family
        half += alike * (SIBLING_PRIOR / 2 / np.maximum(1, alike.sum(1, keepdims=True) - 1))
    np.fill_diagonal(half, 0.0)
    return half


def fit(
    cells: Cells, families: Mapping[str, str] | None = None, samples: int = SAMPLES, start: Floats | None = None
) -> Fit:
    """The strengths of all contestants with their errors; the same cells always give the same answer.

    `start` are strengths close by, where they are known: the answer is the same, and sooner there.
    """
    size = len(cells.names)
    if not size:
        return Fit((), np.zeros(0), *(np.zeros((0, 0)),) * 3)
    virtual = prior(cells.names, families)
    wins = _scatter(cells, cells.weights[None])[0] + virtual
    strengths, information = newton(wins[None], (_by_evalica(wins) if start is None else start)[None])
    uncertainty = _inverse(information[0])
    if size > MOST_RESAMPLED or samples == 0:
        covariance = _sandwich(cells, strengths[0], uncertainty)
    else:
        covariance = _resampled(cells, virtual, strengths, samples)
    return Fit(cells.names, strengths[0], covariance, uncertainty, wins)


def chances(lead: Floats) -> Floats:
    """The chance to win at each lead, in logits."""
    return np.asarray(1 / (1 + np.exp(-np.maximum(lead, -_FAR))))


def newton(wins: Floats, start: Floats, tolerance: float = 1e-7) -> tuple[Floats, Floats]:
    """The likeliest strengths of many arenas of one size at once, and their information matrices.

    `wins[s, i, j]` is how often i beat j in arena s, virtual draws included; `start` is where to begin, (arenas,
    size); `tolerance` is the last step, in logits.
    """
    size = wins.shape[1]
    played, won = wins + wins.transpose(0, 2, 1), wins.sum(2)
    at, diagonal = start, np.arange(size)
    while True:
        chance = chances(at[:, :, None] - at[:, None, :])
        expected = played * chance
        information = -expected * (1 - chance)
        information[:, diagonal, diagonal] -= information.sum(2)
        step = np.linalg.solve(information + 1 / size, (won - expected.sum(2))[..., None])[..., 0]
        longest = np.abs(step).max(1, keepdims=True, initial=1e-300)
        at = at + step * np.minimum(1, 1.5 / longest)  # far from the answer a full step can lead astray
        if longest.max(initial=0.0) < tolerance:
            return at - at.mean(1, keepdims=True), information


def newton_each(others: Floats, played: Floats, won: Floats, start: Floats) -> Floats:
    """The likeliest strength of each of many contestants among others whose strengths stay as they are, in logits.

    `played` tells how often each met its `others`, both (contestants, others); `won` is how often it won in all.
    """
    at = start
    while True:
        chance = chances(at[:, None] - others)
        expected = played * chance
        step = (won - expected.sum(1)) / (expected * (1 - chance)).sum(1)
        at = at + np.clip(step, -1.5, 1.5)
        if np.abs(step).max(initial=0.0) < 1e-7:
            return np.asarray(at)


def _by_evalica(wins: Floats) -> Floats:
    """The logarithms of evalica's scores: wins and half ties, virtual draws included, as weighted wins."""
    import evalica  # here, because it takes seconds, and no server has to wait for them before it listens

    size = len(wins)
    if size < 2:
        return np.zeros(size)
    i, j = np.nonzero(wins)
    scores = evalica.bradley_terry(
        i.tolist(),
        j.tolist(),
        [evalica.Winner.X] * len(i),
        weights=wins[i, j].tolist(),
        tolerance=1e-9,
        limit=1000,
    ).scores.to_dict()
    strengths = np.log([float(scores[at]) for at in range(size)])
    return np.asarray(strengths - strengths.mean(), np.float64)


def _scatter(cells: Cells, counts: Floats) -> Floats:
    """Matrices of wins from counts by sample, pair and outcome."""
    wins = np.zeros((len(counts), len(cells.names), len(cells.names)))
    wins[:, cells.i, cells.j] = counts[..., 0] + counts[..., 2] / 2
    wins[:, cells.j, cells.i] = counts[..., 1] + counts[..., 2] / 2
    return wins


def _resampled(cells: Cells, virtual: Floats, strengths: Floats, samples: int) -> Floats:
    """The covariance of the strengths over arenas with as many votes, drawn from these."""
    size = len(cells.names)
    effective = cells.effective.ravel()
    total = effective.sum()
    if total < 1:
        return np.zeros((size, size))
    drawn = np.random.default_rng(SEED).multinomial(round(total), effective / total, samples).astype(np.float64)
    per_vote = np.divide(cells.weights.ravel(), effective, out=np.zeros_like(effective), where=effective > 0)
    counts = (drawn * per_vote).reshape(samples, -1, 3)
    block = max(1, _BLOCK // size**2)
    fitted = []
    for at in range(0, samples, block):
        wins = _scatter(cells, counts[at : at + block]) + virtual
        # one step is right to first order, and no sample in which somebody never loses runs away with it
        fitted.append(newton(wins, np.repeat(strengths, len(wins), 0), tolerance=np.inf)[0])
    return np.atleast_2d(np.cov(np.concatenate(fitted), rowvar=False))


def _sandwich(cells: Cells, strengths: Floats, uncertainty: Floats) -> Floats:
    """What `_resampled` tends to with many votes, without resampling."""
    size = len(cells.names)
    chance = chances(strengths[cells.i] - strengths[cells.j])
    residuals = np.array([1.0, 0.0, 0.5]) - chance[:, None]
    per_vote = np.divide(cells.weights**2, cells.effective, out=np.zeros_like(cells.weights), where=cells.effective > 0)
    scores = (residuals**2 * per_vote).sum(1)
    meat = np.zeros((size, size))
    meat[cells.i, cells.j] = meat[cells.j, cells.i] = -scores
    meat[np.diag_indices(size)] = -meat.sum(1)
    return uncertainty @ meat @ uncertainty


def _inverse(information: Floats) -> Floats:
    """The inverse on the strengths that sum to 0."""
    size = len(information)
    return np.asarray(_inverted(information + 1 / size) - 1 / size)


def _inverted(matrix: Floats) -> Floats:
    """The inverse of a symmetric positive definite matrix, in quarters: products take a fraction of the time."""
    size = len(matrix)
    if size <= _LEAF:
        return np.asarray(np.linalg.inv(matrix))
    half, made = size // 2, np.empty_like(matrix)
    first = _inverted(matrix[:half, :half])
    across = first @ matrix[:half, half:]
    made[half:, half:] = second = _inverted(matrix[half:, half:] - matrix[half:, :half] @ across)
    mixed = across @ second
    made[:half, half:], made[half:, :half] = -mixed, -mixed.T
    made[:half, :half] = first + mixed @ across.T
    return made
