"""The leaderboard: ratings of the votes in the store, exports of both, and votes that come from elsewhere."""

from arena.leaderboard.export import preferences, votes_csv, votes_jsonl, votes_parquet
from arena.leaderboard.imports import FORMATS, Format, Imported, import_votes
from arena.leaderboard.leaderboard import Board, Leaderboard, Matrix, View
from arena.leaderboard.tables import board_csv, board_markdown

__all__ = [
    "FORMATS",
    "Board",
    "Format",
    "Imported",
    "Leaderboard",
    "Matrix",
    "View",
    "board_csv",
    "board_markdown",
    "import_votes",
    "preferences",
    "votes_csv",
    "votes_jsonl",
    "votes_parquet",
]
