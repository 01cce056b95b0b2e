"""Ratings from votes: pure functions, no I/O. docs/method.md tells the method in plain words."""

from arena.ratings.board import PRELIMINARY, Ladder, Rating, board, ladders
from arena.ratings.pairs import DECIDED, Duel, Flip, duels, flips
from arena.ratings.strengths import Fit, cells, fit
from arena.ratings.style import Effect, StyleFit, differences, style_fit
from arena.ratings.suggest import gains, suggested
from arena.ratings.tally import Cell, Ledger, Tally
from arena.ratings.timeline import Moment, timeline
from arena.ratings.weights import Caps, Weigher, weights

__all__ = [
    "DECIDED",
    "PRELIMINARY",
    "Caps",
    "Cell",
    "Duel",
    "Effect",
    "Fit",
    "Flip",
    "Ladder",
    "Ledger",
    "Moment",
    "Rating",
    "StyleFit",
    "Tally",
    "Weigher",
    "board",
    "cells",
    "differences",
    "duels",
    "fit",
    "flips",
    "gains",
    "ladders",
    "style_fit",
    "suggested",
    "timeline",
    "weights",
]
