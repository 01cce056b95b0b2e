"""A store full of simulated votes, and what the first and the next leaderboard of it cost."""

from __future__ import annotations

import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arena.leaderboard.leaderboard import Leaderboard
from arena.store import Store

DAYS = [(date(2026, 1, 1) + timedelta(day)).isoformat() for day in range(90)]
VOTES_EACH = 10
NEW = 100
PART = 10_000
_COLUMNS = (
    "battle_id, voter, address, at, configuration_a, configuration_b, model_a, model_b, verdict, blind, rated, "
    "category, tags, turns"
)
_INSERT = f"INSERT INTO votes ({_COLUMNS}) VALUES (:1, :2, :3, :4, :5, :6, :7, :8, :9, true, true, '', '[]', 1)"


class Votes(NamedTuple):
    """Columns of votes: the numbers of a and b, and the verdict in words."""

    a: NDArray[Any]
    b: NDArray[Any]
    verdict: NDArray[Any]


class Cost(NamedTuple):
    """CPU seconds of the first leaderboard of a process, and of one after 100 more votes."""

    first_s: float
    next_s: float


def cost_of(votes: Votes) -> Cost:
    """Fill a SQLite store in a temporary folder, and compute its leaderboard from nothing; the last 100 come later.

    Everybody casts ten votes, on days of their own, three to an address: hardly two votes are alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder, 'arena.sqlite3')}")
        try:
            size = len(votes.a)
            fill(store, votes, 0, size - NEW)
            leaderboard = Leaderboard(store)
            first_s = _seconds(leaderboard)
            fill(store, votes, size - NEW, size)
            return Cost(first_s, _seconds(leaderboard))
        finally:
            store.close()


def fill(store: Store, votes: Votes, first: int, end: int) -> None:
    """Keep the votes from the number `first` to before `end`, past all checks."""
    store.open()
    random = np.random.default_rng(first)
    voter = random.integers(0, max(1, len(votes.a) // VOTES_EACH), end - first)
    day = random.integers(0, len(DAYS), end - first)
    columns = zip(*(each[first:end].tolist() for each in votes), voter.tolist(), day.tolist(), strict=True)
    rows = [
        (
            f"{number:032x}",
            f"{who:016x}",
            f"{who // 3:016x}",
            f"{DAYS[at]}T10:00:00.000+00:00",
            f"{a:016x}",
            f"{b:016x}",
            f"model-{a:02}:8b",
            f"model-{b:02}:8b",
            verdict,
        )
        for number, (a, b, verdict, who, at) in enumerate(columns, first)
    ]
    with store.database.writing() as connection:
        for at in range(0, len(rows), PART):
            connection.exec_driver_sql(_INSERT, rows[at : at + PART])


def _seconds(leaderboard: Leaderboard) -> float:
    begun = time.process_time()
    leaderboard.board()
    return time.process_time() - begun
