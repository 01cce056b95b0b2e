"""The leaderboard: ratings of the votes in the store, exports of both, and votes that come from elsewhere."""

from arena.leaderboard.export import preferences, votes_csv, votes_jsonl, votes_parquet
from arena.leaderboard.leaderboard import Board, Leaderboard, Matrix, View
from arena.leaderboard.lmarena import import_lmarena
from arena.leaderboard.tables import board_csv, board_markdown

__all__ = [
    "Board",
    "Leaderboard",
    "Matrix",
    "View",
    "board_csv",
    "board_markdown",
    "import_lmarena",
    "preferences",
    "votes_csv",
    "votes_jsonl",
    "votes_parquet",
]
