"""Configurations that only their weights, or nothing that is told, keep apart."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from arena.leaderboard import Leaderboard, View, board_csv, labels
from arena.store import Store
from arena.types import Configuration, Vote

ALIKE = (
    Configuration("c1", "x:1", "sha256:" + "a1b2c3d4e5f6" * 5, label="x:1, seed 1"),
    Configuration("c2", "x:1", "ffee00", label="x:1, seed 1"),
    Configuration("c3", "x:1", None, label="x:1, seed 1"),
    Configuration("c4", "x:1", "ffee00", label="x:1, own system prompt"),
    Configuration("c5", "x:1", "ffee00", label="x:1, own system prompt"),
    Configuration("c6", "y:1", "00", label=""),
)
APART = {
    "c1": "x:1, seed 1, weights a1b2c3d4e5f6",
    "c2": "x:1, seed 1, weights ffee00",
    "c3": "x:1, seed 1, weights unknown",
    "c4": "x:1, own system prompt, weights ffee00, id c4",
    "c5": "x:1, own system prompt, weights ffee00, id c5",
    "c6": "y:1",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    yield store
    store.close()


def test_no_two_labels_are_the_same() -> None:
    assert labels(ALIKE) == APART


def test_a_board_tells_settings_apart_in_every_form(store: Store) -> None:
    pairs = pairwise(ALIKE)
    votes = [
        Vote(f"b{at}", "2026-03-01T10:00:00.000+00:00", a.id, b.id, a.model, b.model, "a")
        for at, (a, b) in enumerate(pairs)
    ]
    store.add_votes(votes, ALIKE)
    leaderboard = Leaderboard(store)
    view = View(per="configuration")
    assert leaderboard.board(view).labels == leaderboard.matrix(view).labels == APART
    told = list(csv.DictReader(board_csv(leaderboard.board(view)).splitlines()))
    assert {row["name"]: row["label"] for row in told} == APART
