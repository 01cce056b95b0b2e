"""The ratings beside those of arena-rank, on the same votes: needs `pip install arena-rank==0.1.1`."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arena.ratings import Cell, Fit, Ledger, Tally, cells, fit, weights
from arena.ratings.strengths import SCALE, Z, newton, prior

MISSING = "skipped: arena-rank is not installed (pip install arena-rank==0.1.1)"
WINNERS = ("model_a", "model_b", "tie", "tie")
PUBLISHED = (("A", "B", 2, 3), ("A", "D", 1, 4), ("B", "C", 5, 3), ("C", "D", 1, 3))
"""arena-rank's worked example: who played whom, games won, games lost."""


class Difference(NamedTuple):
    """In rating points: the largest difference with our virtual draws and without, and the mean widths of intervals."""

    with_draws: float
    without: float
    width: float
    their_width: float


def installed() -> bool:
    """Can the other program be asked?"""
    return find_spec("arena_rank") is not None


def games() -> Tally:
    """The 22 games of the worked example."""
    ledger = Ledger()
    for a, b, won, lost in PUBLISHED:
        ledger.add([Cell(a, b, "a", won), Cell(a, b, "b", lost)])
    return ledger.tally()


def compare(tally: Tally) -> Difference:
    """Rate the votes here and there; both boards are moved to the same mean."""
    fitted = fit(cells(tally, weights(tally, None)), samples=0)
    theirs, their_width = _theirs(tally)
    width = 2 * Z * SCALE * float(np.sqrt(np.diag(fitted.covariance)).mean())
    plain = SCALE * _without_draws(fitted)
    return Difference(_apart(SCALE * fitted.strengths, theirs), _apart(plain, theirs), width, their_width)


def _without_draws(fitted: Fit) -> NDArray[np.float64]:
    """The likeliest strengths of the votes alone, where everybody has won and lost."""
    votes = fitted.wins - prior(fitted.names)
    return np.asarray(newton(votes[None], fitted.strengths[None])[0][0])


def _apart(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return float(np.abs((ours - ours.mean()) - (theirs - theirs.mean())).max())


def _theirs(tally: Tally) -> tuple[NDArray[np.float64], float]:
    """arena-rank's ratings in the order of our names, and the mean width of its intervals."""
    pandas, data = (importlib.import_module(name) for name in ("pandas", "arena_rank.utils.data_utils"))
    models = importlib.import_module("arena_rank.models.bradley_terry")
    a, b, verdict = np.repeat(tally.whats[:3, tally.what], tally.count, axis=1)
    columns: dict[str, Any] = {"model_a": np.array(tally.names)[a], "model_b": np.array(tally.names)[b]}
    votes = pandas.DataFrame({**columns, "winner": np.array(WINNERS)[verdict]})
    dataset = data.PairDataset.from_pandas(votes)
    found = models.BradleyTerry(n_competitors=len(dataset.competitors)).compute_ratings_and_cis(dataset)
    order = np.argsort(np.array(found["competitors"]))
    width = np.asarray(found["rating_upper"]) - np.asarray(found["rating_lower"])
    return np.asarray(found["ratings"], np.float64)[order], float(width.mean())
