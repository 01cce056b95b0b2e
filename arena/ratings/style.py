"""Ratings with style held equal: what is left of a win when both answers are as long and as decorated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from arena.ratings.strengths import Fit, Z, cells, chances, fit, prior
from arena.ratings.tally import SCORES, Floats, Tally, sums
from arena.types import Style

FEATURES: Final = ("tokens", "headers", "lists", "bold")
RIDGE: Final = 0.5  # holds the effect of a feature that hardly varies near zero
_ROUNDS: Final = 50


class Effect(Struct, frozen=True):
    """What a feature buys: log odds of a win for one standard deviation more of it, with 95 % bounds."""

    feature: str
    effect: float
    lower: float
    upper: float


class StyleFit(Struct, frozen=True):
    """Strengths with style held equal, and what style buys."""

    fit: Fit
    effects: tuple[Effect, ...]


class _Rows(Struct, frozen=True):
    """What the regression sees: the tally, the weight and the score of each row, and its features."""

    tally: Tally
    weight: Floats
    features: Floats


def differences(styles: Sequence[tuple[Style, Style]]) -> Floats:
    """Difference over sum of each feature, by row, brought to a spread of 1; a feature that never differs is 0."""
    counted = np.array([(*_figures(a), *_figures(b)) for a, b in styles], np.float64).reshape(-1, 2 * len(FEATURES))
    one, other = np.split(counted, 2, axis=1)
    total = one + other
    found = np.divide(one - other, total, out=np.zeros_like(total), where=total > 0)
    spread = np.sqrt((found**2).sum(0) / max(1, len(found)))
    return np.asarray(np.divide(found, spread, out=np.zeros_like(found), where=spread > 0))


def style_fit(
    tally: Tally,
    weight: Floats,
    features: Floats,
    families: Mapping[str, str] | None = None,
    ridge: float = RIDGE,
) -> StyleFit:
    """Logistic regression of the scores on contestants and features, by Newton's method, with robust errors.

    `features` are the `differences` for each row of `tally`. The contestants have the virtual draws of the plain board.
    """
    rows, size = _Rows(tally, weight * tally.count, features), len(tally.names)
    virtual = prior(tally.names, families)
    plain = fit(cells(tally, weight), families, samples=0).strengths  # from zero, far ones are many steps away
    at = np.concatenate([plain, np.zeros(features.shape[1])])
    for _ in range(_ROUNDS):
        gradient, information, meat = _derivatives(rows, virtual, ridge, at)
        step = np.linalg.solve(information, gradient)
        longest = np.abs(step).max(initial=1e-300)
        if longest < 1e-9:
            break
        at = at + step * min(1.0, 1.5 / longest)  # far from the answer a full step can lead astray
    if size:
        at[:size] -= at[:size].mean()
    centre = np.eye(len(at))
    centre[:size, :size] -= 1 / max(1, size)
    inverse = centre @ np.linalg.inv(information) @ centre
    covariance = inverse @ meat @ inverse
    fitted = Fit(tally.names, at[:size], covariance[:size, :size], inverse[:size, :size], virtual)
    margins = Z * np.sqrt(np.maximum(np.diag(covariance)[size:], 0.0))
    effects = (
        Effect(feature, float(effect), float(effect - margin), float(effect + margin))
        for feature, effect, margin in zip(FEATURES, at[size:], margins, strict=True)
    )
    return StyleFit(fitted, tuple(effects))


def _figures(style: Style) -> tuple[int, int, int, int]:
    return style.tokens, style.headers, style.lists, style.bold


def _derivatives(rows: _Rows, virtual: Floats, ridge: float, at: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient and information of the penalised likelihood, and the spread of the votes' own gradients.

    The contestants' columns are 1 and -1 in two places of a row: sums by contestant do for a product of matrices.
    """
    a, b, verdict, *_ = rows.tally.whats[:, rows.tally.what]
    size = len(rows.tally.names)
    chance = chances(at[a] - at[b] + rows.features @ at[size:])
    residual = rows.weight * (SCORES[verdict] - chance)
    gradient = np.concatenate([sums(a, residual, size) - sums(b, residual, size), rows.features.T @ residual])
    information = _outer(rows, rows.weight * chance * (1 - chance))
    meat = _outer(rows, residual**2 * rows.tally.spread[rows.tally.what] / rows.tally.count)
    expected = chances(at[:size, None] - at[None, :size])
    played = virtual + virtual.T
    gradient[:size] += (virtual - played * expected).sum(1)
    slope = played * expected * (1 - expected)
    information[:size, :size] += np.diag(slope.sum(1)) - slope + 1 / max(1, size)
    gradient[size:] -= ridge * at[size:]
    information[size:, size:] += ridge * np.eye(len(at) - size)
    return gradient, information, meat


def _outer(rows: _Rows, weight: Floats) -> Floats:
    """The sum over all rows of weight times the outer product of the row with itself."""
    a, b = rows.tally.whats[:2, rows.tally.what]
    size = len(rows.tally.names)
    more = rows.features.shape[1]
    summed = np.zeros((size + more, size + more))
    met = sums(a * size + b, weight, size * size).reshape(size, size)
    summed[:size, :size] = np.diag(met.sum(0) + met.sum(1)) - met - met.T
    for place in range(more):
        column = weight * rows.features[:, place]
        summed[:size, size + place] = sums(a, column, size) - sums(b, column, size)
    summed[size:, :size] = summed[:size, size:].T
    summed[size:, size:] = rows.features.T @ (rows.features * weight[:, None])
    return summed
