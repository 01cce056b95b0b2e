"""A leaderboard as a table: CSV for spreadsheets, Markdown for people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from arena.leaderboard.views import Board
from arena.ratings import Rating

_UNSEEN: Final = r"\x00-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\u00ad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
_PARTED: Final = re.compile(r"[;\t\r\n]")
_FORMULA: Final = re.compile(  # each blank is looked at once: none that parts cells is among those behind such a one
    rf"^(?=[\t\r\n]|[{_UNSEEN}\t\r\n]*[=+\-@＝＋－＠])|(?<=[;\t\r\n])(?=[{_UNSEEN}]*[=+\-@＝＋－＠])"  # noqa: RUF001 - read, too
)
"""Where a cell would be a formula: at the beginning, or behind what parts cells in spreadsheets of other countries."""
_MARKDOWN: Final = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|~"} | {"\n": " ", "\r": " "})


def harmless(value: object) -> object:
    """A text that a spreadsheet would run as a formula, marked as text by an apostrophe; other values as they are."""
    if not isinstance(value, str) or (value[:1].isalnum() and not _PARTED.search(value)):
        return value
    return _FORMULA.sub("'", value)


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, safe to open in a spreadsheet."""
    written = io.StringIO()
    csv.writer(written).writerows([harmless(value) for value in row] for row in rows)
    return written.getvalue()


def board_csv(board: Board) -> str:
    """The leaderboard with all its columns."""
    fields = Rating.__struct_fields__
    rows = ([getattr(row, field) for field in fields] for row in board.rows)
    labelled = ([*values, board.labels.get(row.name, row.name)] for values, row in zip(rows, board.rows, strict=True))
    return csv_lines([[*fields, "label"], *labelled])


def board_markdown(board: Board) -> str:
    """The leaderboard as one would put it in a document."""
    lines = [
        "| Rank | Model | Rating | 95 % interval | Votes | Won |",
        "| ---: | :--- | ---: | :---: | ---: | ---: |",
        *(_line(row, board.labels.get(row.name, row.name)) for row in board.rows),
        "",
        f"{board.votes} votes by {board.voters} voters. Rank: the places that 95 % confidence leaves open.",
    ]
    return "\n".join(lines) + "\n"


def places(row: Rating, to: str = " to ") -> str:
    """The places on the board that the votes leave open."""
    return str(row.rank_best) if row.rank_best == row.rank_worst else f"{row.rank_best}{to}{row.rank_worst}"


def _line(row: Rating, label: str) -> str:
    won = "" if row.win_rate is None else f"{row.win_rate:.0%}"
    name = label.translate(_MARKDOWN) + (" (preliminary)" if row.preliminary else "")
    return f"| {places(row)} | {name} | {row.rating:.0f} | {row.lower:.0f} to {row.upper:.0f} | {row.votes} | {won} |"
