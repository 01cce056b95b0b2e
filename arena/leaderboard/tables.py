"""A leaderboard as a table: CSV for spreadsheets, Markdown for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from arena.leaderboard.leaderboard import Board
from arena.ratings import Rating

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets read them too
_MARKDOWN: Final = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|~"} | {"\n": " ", "\r": " "})


def harmless(value: object) -> object:
    """A text that a spreadsheet would run as a formula, marked as text by an apostrophe; other values as they are."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value


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


def _line(row: Rating, label: str) -> str:
    ranks = str(row.rank_best) if row.rank_best == row.rank_worst else f"{row.rank_best} to {row.rank_worst}"
    won = "" if row.win_rate is None else f"{row.win_rate:.0%}"
    name = label.translate(_MARKDOWN) + (" (preliminary)" if row.preliminary else "")
    return f"| {ranks} | {name} | {row.rating:.0f} | {row.lower:.0f} to {row.upper:.0f} | {row.votes} | {won} |"
