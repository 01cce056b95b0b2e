"""The leaderboard as it stands, with the names of the models or without."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Final

from arena.leaderboard import Board, places
from arena.ratings import PRELIMINARY, Rating
from arena.share.page import page, table

_HEAD: Final = ("Rank", "Model", "Rating", "95 % interval", "", "Votes", "Won")


def board_page(board: Board, *, masked: bool = False, now: datetime | None = None) -> str:
    """One document. `masked` numbers the models in the order of the board instead of naming them."""
    names = [
        f"Model {place}" if masked else board.labels.get(row.name, row.name) for place, row in enumerate(board.rows, 1)
    ]
    low = min((row.lower for row in board.rows), default=0.0)
    high = max((row.upper for row in board.rows), default=1.0)
    rows = [_row(row, name, low, max(high - low, 1.0)) for row, name in zip(board.rows, names, strict=True)]
    told = [
        f"{board.votes:,} votes by {board.voters:,} voters. {_taken(board)}",
        "Rank: the places that the votes leave open with 95 % confidence. "
        f"Preliminary: votes that weigh less than {PRELIMINARY}.",
    ]
    body = table(_HEAD, rows, (2, 3, 5, 6)) if rows else '<p class="quiet">Nobody has voted yet.</p>'
    return page("Leaderboard", told, body, now)


def _taken(board: Board) -> str:
    """Which votes are in it, in words."""
    view = board.view
    told = ["Blind votes only" if view.blind else "Blind votes and others"]
    told += [f"category {view.category}"] if view.category else []
    told += [f"tag {view.tag}"] if view.tag else []
    told += [f"from {view.since}"] if view.since else []
    told += [f"before {view.until}"] if view.until else []
    told += ["of chosen voters"] if view.voters else []
    told += ["style held equal"] if view.style else []
    return ", ".join(told) + "."


def _row(row: Rating, name: str, low: float, width: float) -> tuple[str, ...]:
    left, right, at = (100 * (value - low) / width for value in (row.lower, row.upper, row.rating))
    bar = (
        f'<span class="interval"><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<b style="left:{at:.1f}%"></b></span>'
    )
    won = "" if row.win_rate is None else f"{row.win_rate:.0%}"
    preliminary = ' <span class="quiet">preliminary</span>' if row.preliminary else ""
    return (
        places(row), escape(name) + preliminary, f"{row.rating:.0f}", f"{row.lower:.0f} to {row.upper:.0f}", bar,
        f"{row.votes:,}", won,
    )  # fmt: skip
