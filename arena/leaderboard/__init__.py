"""The leaderboard: ratings of the votes in the store, exports of both, and votes that come from elsewhere."""

from arena.leaderboard.access import may_have_all
from arena.leaderboard.choices import Choices
from arena.leaderboard.export import preferences, votes_csv, votes_jsonl, votes_parquet
from arena.leaderboard.imports import FORMATS, Format, Imported, import_votes
from arena.leaderboard.labels import labels
from arena.leaderboard.leaderboard import ALL, Leaderboard
from arena.leaderboard.paces import Pace
from arena.leaderboard.snapshots import Estimate, Said
from arena.leaderboard.tables import board_csv, board_markdown, places
from arena.leaderboard.views import Board, Matrix, View

__all__ = [
    "ALL",
    "FORMATS",
    "Board",
    "Choices",
    "Estimate",
    "Format",
    "Imported",
    "Leaderboard",
    "Matrix",
    "Pace",
    "Said",
    "View",
    "board_csv",
    "board_markdown",
    "import_votes",
    "labels",
    "may_have_all",
    "places",
    "preferences",
    "votes_csv",
    "votes_jsonl",
    "votes_parquet",
]
