"""Which battle to hold next: the one that teaches most."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

import numpy as np

from arena.ratings.strengths import Fit, chances
from arena.ratings.tally import Floats

POWER: Final = 16.0  # how much more the widest intervals count; less misses the best plan, more runs after noise
EXPLORE: Final = 0.1  # of the battles are drawn at random, so that no pair is never seen


def gains(fit: Fit) -> Floats:
    """How much one more vote on each pair is expected to teach: by how much it shrinks the variances.

    Each variance counts by its power, so that the widest intervals shrink first. Zero on the diagonal;
    little where the outcome is foreseen or where both are known well.
    """
    known = fit.uncertainty
    chance = chances(fit.strengths[:, None] - fit.strengths)
    information = chance * (1 - chance)
    variance = np.diag(known)
    between = variance[:, None] + variance - 2 * known
    squared = (known * variance**POWER) @ known
    length = np.diag(squared)
    shrunk = length[:, None] + length - 2 * squared
    gain = information * shrunk / (1 + information * between)
    np.fill_diagonal(gain, 0.0)
    return np.maximum(gain, 0.0)


def suggested(fit: Fit, draw: Random, contestants: Sequence[str], explore: float = EXPLORE) -> tuple[int, int]:
    """The places of two of `contestants` for the next battle, in no meaningful order.

    Each of them is one of `fit.names`; two of one name are met only where there is nothing else. `draw` decides
    between equals, and when to explore. Raises ValueError for fewer than two.
    """
    if len(contestants) < 2:
        raise ValueError("a battle needs two contestants")
    if draw.random() >= explore:
        index = {name: place for place, name in enumerate(fit.names)}
        present = [index[name] for name in contestants]
        gain = gains(fit)[np.ix_(present, present)]
        np.fill_diagonal(gain, -1.0)
        i, j = draw.choice(np.argwhere(gain >= gain.max() * (1 - 1e-9)).tolist())
    else:
        i, j = draw.sample(range(len(contestants)), 2)
    return i, j
