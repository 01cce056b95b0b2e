"""Ratings with style held equal: what is left of a win when both answers are as long and as decorated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import numpy as np
from msgspec import Struct

from arena.ratings.strengths import Fit, Z, prior
from arena.ratings.tally import Codes, Floats, sums
from arena.types import Style, Verdict

FEATURES: Final = ("tokens", "headers", "lists", "bold")
RIDGE: Final = 0.5  # holds the effect of a feature that hardly varies near zero
_SCORES: Final[dict[Verdict, float]] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
_ROUNDS: Final = 50


class Styled(Protocol):
    """A vote on the contestants `a` and `b` with the style of their answers."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def style_a(self) -> Style | None: ...
    @property
    def style_b(self) -> Style | None: ...


class StyledVotes(Struct, frozen=True):
    """Votes by row: contestants by number, the score of a (1, 0.5, 0), and the features' differences over their sums.

    `scale` is what the differences were divided by to spread alike.
    """

    names: tuple[str, ...]
    a: Codes
    b: Codes
    score: Floats
    features: Floats
    scale: Floats


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


def styled(votes: Iterable[Styled], names: Iterable[str] = ()) -> StyledVotes:
    """The votes whose styles are known; `names` are contestants to list in any case."""
    codes = {name: at for at, name in enumerate(names)}
    sides: list[tuple[int, int]] = []
    scores: list[float] = []
    counted: list[tuple[int, ...]] = []
    for vote in votes:
        one, other = vote.style_a, vote.style_b
        if one is None or other is None or vote.a == vote.b:
            continue
        sides.append((codes.setdefault(vote.a, len(codes)), codes.setdefault(vote.b, len(codes))))
        scores.append(_SCORES[vote.verdict])
        counted.append((*_figures(one), *_figures(other)))
    pairs = np.array(sides, np.int64).reshape(-1, 2)
    features, scale = _differences(np.array(counted, np.float64).reshape(-1, 2 * len(FEATURES)))
    return StyledVotes(tuple(codes), pairs[:, 0], pairs[:, 1], np.array(scores), features, scale)


def style_fit(votes: StyledVotes, ridge: float = RIDGE) -> StyleFit:
    """Logistic regression of the scores on contestants and features, by Newton's method, with robust errors.

    The contestants have the same virtual draws as on the plain board.
    """
    size, more = len(votes.names), votes.features.shape[1]
    virtual = prior(votes.names)
    at = np.zeros(size + more)
    for _ in range(_ROUNDS):
        gradient, information, _ = _derivatives(votes, virtual, ridge, at)
        step = np.linalg.solve(information, gradient)
        longest = np.abs(step).max(initial=1e-300)
        at = at + step * min(1.0, 1.5 / longest)
        if longest < 1e-9:
            break
    at[:size] -= at[:size].mean() if size else 0.0
    _, information, meat = _derivatives(votes, virtual, ridge, at)
    inverse = np.linalg.inv(information)
    centre = np.eye(size + more)
    centre[:size, :size] -= 1 / max(1, size)
    covariance = centre @ inverse @ meat @ inverse @ centre.T
    uncertainty = (centre @ inverse @ centre.T)[:size, :size]
    strengths = Fit(votes.names, at[:size], covariance[:size, :size], uncertainty, virtual)
    errors = np.sqrt(np.maximum(np.diag(covariance)[size:], 0.0))
    effects = (
        Effect(feature, float(effect), float(effect - Z * error), float(effect + Z * error))
        for feature, effect, error in zip(FEATURES, at[size:], errors, strict=True)
    )
    return StyleFit(strengths, tuple(effects))


def _figures(style: Style) -> tuple[int, int, int, int]:
    return style.tokens, style.headers, style.lists, style.bold


def _differences(counted: Floats) -> tuple[Floats, Floats]:
    """Difference over sum of each feature, brought to a standard deviation of 1; a feature that never differs is 0."""
    one, other = np.split(counted, 2, axis=1)
    total = one + other
    found = np.divide(one - other, total, out=np.zeros_like(total), where=total > 0)
    scale = np.sqrt((found**2).mean(0)) if len(found) else np.ones(len(FEATURES))
    return np.divide(found, scale, out=np.zeros_like(found), where=scale > 0), scale


def _derivatives(votes: StyledVotes, virtual: Floats, ridge: float, at: Floats) -> tuple[Floats, Floats, Floats]:
    """Gradient and information of the penalised likelihood, and the spread of the votes' own gradients.

    The model columns are 1 and -1 in two places of a row: their sums are counts by contestant, not a matrix product.
    """
    size, more = len(votes.names), votes.features.shape[1]
    a, b, features = votes.a, votes.b, votes.features
    chance = 1 / (1 + np.exp(at[b] - at[a] - features @ at[size:]))
    residual = votes.score - chance
    gradient = np.concatenate([sums(a, residual, size) - sums(b, residual, size), features.T @ residual])
    information = _outer(votes, chance * (1 - chance))
    meat = _outer(votes, residual**2)
    expected = 1 / (1 + np.exp(at[None, :size] - at[:size, None]))
    played = virtual + virtual.T
    gradient[:size] += (virtual - played * expected).sum(1)
    slope = played * expected * (1 - expected)
    information[:size, :size] += np.diag(slope.sum(1)) - slope + 1 / max(1, size)
    gradient[size:] -= ridge * at[size:]
    information[size:, size:] += ridge * np.eye(more)
    return gradient, information, meat


def _outer(votes: StyledVotes, weight: Floats) -> Floats:
    """The sum over all votes of weight times the outer product of its row with itself."""
    size, more = len(votes.names), votes.features.shape[1]
    a, b = votes.a, votes.b
    summed = np.zeros((size + more, size + more))
    met = sums(a * size + b, weight, size * size).reshape(size, size)
    summed[:size, :size] = np.diag(met.sum(0) + met.sum(1)) - met - met.T
    for k in range(more):
        column = weight * votes.features[:, k]
        summed[:size, size + k] = sums(a, column, size) - sums(b, column, size)
    summed[size:, :size] = summed[:size, size:].T
    summed[size:, size:] = votes.features.T @ (votes.features * weight[:, None])
    return summed
