"""Contestants against each other: who beat whom, whether that is decided, and what it would take to change it."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, exp, floor, lgamma, log
from typing import Final

import numpy as np
from msgspec import Struct

from arena.ratings.strengths import Fit, chances, newton, newton_each
from arena.ratings.tally import BOTH_BAD, TIE, VERDICTS, A, B, Codes, Floats, Tally, sums

DECIDED: Final = 20.0  # an e-value of 1 / 0.05: if the two were equal it would ever be reached with chance 0.05
_SPREAD: Final = 2.0  # of the Beta distribution of win rates that the e-value bets on
_OUT_OF_SIGHT: Final = 100_000
MOST_REFITTED: Final = 100  # contestants; beyond, the board is not fitted anew for each two neighbours
_FAR: Final = 1.0  # logits between neighbours, where it is nevertheless; a board has room for a few such gaps only
_Outcomes = tuple[float, float, float, float]


class Duel(Struct, frozen=True):
    """Contestant `a` against `b`, over their battles with each other only.

    `win_rate` of `a` counts ties and both bad as half; `expected` is what the ratings say. `e_value` measures the
    evidence that they differ, valid whenever one looks; from 20 on the pair is `decided`. `votes_needed` is how many
    more would decide it if they go on like this: 0 when decided, None when that is out of sight.
    """

    a: str
    b: str
    wins: int
    losses: int
    ties: int
    both_bad: int
    win_rate: float | None
    expected: float
    e_value: float
    decided: bool
    votes_needed: int | None


class Flip(Struct, frozen=True):
    """Neighbours on the board: if `votes` more battles between them went to `below`, it would pass `above`."""

    above: str
    below: str
    votes: int


def duels(fit: Fit, tally: Tally, weight: Floats, best: int | None = None) -> tuple[Duel, ...]:
    """Every pair that met, in the order of the names; only among so many of the `best` if that is given."""
    kept = np.sort(_order(fit)[:best])
    raw, weighted = _matrix(tally, tally.on_what, kept), _matrix(tally, tally.weighed(weight)[0], kept)
    met = np.argwhere(np.triu(raw.sum(2) + raw.sum(2).T, 1))
    return tuple(_duel(fit, int(kept[i]), int(kept[j]), _met(raw, i, j), _met(weighted, i, j)) for i, j in met.tolist())


def e_value(wins: float, losses: float) -> float:
    """Evidence against "both win equally often": the fortune of one who bet 1 on a win rate drawn around one half.

    Votes may be weighted. It may be looked at after every vote: that it ever passes 20 by luck alone has a chance
    below 5 %.
    """
    return exp(min(_log_e(wins, losses), 700.0))


def votes_needed(wins: float, losses: float, drawn: float) -> int | None:
    """How many more votes decide the pair if they fall as before; None beyond 100,000."""
    if _log_e(wins, losses) >= log(DECIDED):
        return 0
    rate = (wins + 1) / (wins + losses + 2)
    if abs(rate - 0.5) < 1e-9:
        return None
    decisive = (wins + losses + 1) / (wins + losses + drawn + 1)

    def enough(more: int) -> bool:
        return _log_e(wins + more * rate, losses + more * (1 - rate)) >= log(DECIDED)

    most = int(_OUT_OF_SIGHT * decisive)
    return ceil(_least(enough, most) / decisive) if enough(most) else None


def flips(fit: Fit, best: int | None = None) -> tuple[Flip, ...]:
    """For every two neighbours on the board, or among so many of its `best`, the fewest battles that turn them around.

    Where the two just touch their strengths are equal, so one fit of the board with both as one contestant gives the
    balance that is then to be tipped; each battle won at even chances tips it by one half. Among more than 100
    contestants that fit is a close estimate, except for neighbours that are far apart.
    """
    order = _order(fit)[:best]
    above, below = order[:-1], order[1:]
    small = len(fit.names) <= MOST_REFITTED
    leads = np.zeros(len(above)) if small else _leads(fit, above, below)
    for at in np.flatnonzero(small | (fit.strengths[above] - fit.strengths[below] > _FAR)).tolist():
        leads[at] = _lead(fit, int(above[at]), int(below[at]))
    return tuple(
        Flip(fit.names[i], fit.names[j], floor(2 * lead + 1e-6) + 1)
        for i, j, lead in zip(above.tolist(), below.tolist(), leads.tolist(), strict=True)
    )


def _order(fit: Fit) -> Codes:
    """The contestants as on the board, best first."""
    return np.argsort(-fit.strengths, kind="stable")


def _lead(fit: Fit, above: int, below: int) -> float:
    """By how many wins `above` did better than it would if `below` were as strong."""
    others = [at for at in range(len(fit.names)) if at not in (above, below)]
    wins = fit.wins[np.ix_([above, *others], [above, *others])].copy()
    wins[0, 1:] += fit.wins[below, others]
    wins[1:, 0] += fit.wins[others, below]
    start = fit.strengths[[above, *others]]
    merged = newton(wins[None], start[None])[0][0]
    beaten, lost = fit.wins[above, others], fit.wins[others, above]
    expected = (beaten + lost) * chances(merged[0] - merged[1:])
    duel = (fit.wins[above, below] - fit.wins[below, above]) / 2
    return float((beaten - expected).sum() + duel)


def _leads(fit: Fit, above: Codes, below: Codes) -> Floats:
    """Nearly what `_lead` finds, for all neighbours at once, at the cost of one matrix.

    The others move as one Newton step moves them when the two must become equal; then only the two are fitted, as one.
    """
    each = np.arange(len(above))
    apart = fit.uncertainty[above] - fit.uncertainty[below]
    gap = fit.strengths[above] - fit.strengths[below]
    at = fit.strengths - apart * (gap / (apart[each, above] - apart[each, below]))[:, None]
    others = np.ones_like(at)
    others[each, above] = others[each, below] = 0
    played = (fit.wins + fit.wins.T)[above] * others
    both = played + (fit.wins + fit.wins.T)[below] * others
    won = (fit.wins[above] * others).sum(1)
    merged = newton_each(at, both, won + (fit.wins[below] * others).sum(1), at[each, above])
    expected = (played * chances(merged[:, None] - at)).sum(1)
    duel = (fit.wins[above, below] - fit.wins[below, above]) / 2
    return np.asarray(np.maximum(won - expected + duel, 0))


def _duel(fit: Fit, i: int, j: int, met: _Outcomes, heavy: _Outcomes) -> Duel:
    wins, losses, ties, both_bad = met
    votes = wins + losses + ties + both_bad
    evidence = e_value(heavy[0], heavy[1])
    return Duel(
        a=fit.names[i],
        b=fit.names[j],
        wins=int(wins),
        losses=int(losses),
        ties=int(ties),
        both_bad=int(both_bad),
        win_rate=(wins + (ties + both_bad) / 2) / votes,
        expected=float(chances(fit.strengths[i] - fit.strengths[j])),
        e_value=evidence,
        decided=evidence >= DECIDED,
        votes_needed=votes_needed(heavy[0], heavy[1], heavy[2] + heavy[3]),
    )


def _matrix(tally: Tally, amount: Floats, kept: Codes) -> Floats:
    """How often each verdict fell between each a and b of those `kept`."""
    size, kinds = len(kept), len(VERDICTS)
    place = np.full(len(tally.names), -1)
    place[kept] = np.arange(size)
    a, b, verdict = place[tally.whats[0]], place[tally.whats[1]], tally.whats[2]
    among = (a >= 0) & (b >= 0)
    key = ((a * size + b) * kinds + verdict)[among]
    return sums(key, amount[among], size * size * kinds).reshape(size, size, kinds)


def _met(matrix: Floats, i: int, j: int) -> _Outcomes:
    """Wins of i, wins of j, ties, both bad, whatever side they were on."""
    there, back = matrix[i, j], matrix[j, i]
    return (
        float(there[A] + back[B]),
        float(there[B] + back[A]),
        float(there[TIE] + back[TIE]),
        float(there[BOTH_BAD] + back[BOTH_BAD]),
    )


def _log_e(wins: float, losses: float) -> float:
    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    return log_beta(wins + _SPREAD, losses + _SPREAD) - log_beta(_SPREAD, _SPREAD) + (wins + losses) * log(2)


def _least(enough: Callable[[int], bool], most: int) -> int:
    """The least number that is enough; `most` is."""
    low = 0
    while most - low > 1:
        middle = (low + most) // 2
        low, most = (low, middle) if enough(middle) else (middle, most)
    return most
