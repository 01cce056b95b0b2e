"""What the leaderboard knows beside ratings: what one can narrow down to, and how fast models are in fair runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from arena.leaderboard import Choices, Leaderboard, Pace
from arena.leaderboard.choices import MOST_CHOICES
from arena.leaderboard.paces import Run, fair, pace
from arena.store import Side, Store, StoredBattle
from arena.types import Configuration, Manifest, Metrics, Vote

FAIR = {"tokens_per_sec": 40.0, "rate_reliable": True, "ttft_s": 0.2}
Told = tuple[str, dict[str, Any], dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    yield store
    store.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The battles that the store is asked for from now on."""
    found: list[list[str]] = []
    real = Store.battles

    def noted(of: Store, ids: Collection[str]) -> dict[str, StoredBattle]:
        found.append(list(ids))
        return real(of, ids)

    monkeypatch.setattr(Store, "battles", noted)
    return found


# ---- choices


def at(second: int, **more: Any) -> Vote:
    return Vote(f"b{second}", f"2026-03-01T12:00:{second:02}.000+00:00", "1", "2", "x", "y", "a", **more)


def test_there_is_nothing_to_choose_before_the_first_vote(store: Store) -> None:
    assert Leaderboard(store).last_vote() == 0
    assert not store.exists, "to look makes no store"
    assert Leaderboard(store).choices("ann") == Choices()


def test_choices_are_read_once_and_the_most_frequent_come_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = Store.votes

    def noted(of: Store, since: int = 0) -> Iterator[tuple[int, Vote]]:
        read.append(since)
        return real(of, since)

    monkeypatch.setattr(Store, "votes", noted)
    board, me = Leaderboard(store), store.pseudonym("ann")
    store.add_votes([at(1, category="writing", voter=me), at(2, category="coding", tags=("t",), voter="v2")])
    assert board.choices().categories == ("writing", "coding")
    store.add_votes([at(3, category="coding", tags=("u", "t"), voter="v2"), at(4)])
    assert (board.last_vote(), board.choices("ann")) == (
        4,
        Choices(("coding", "writing"), ("t", "u"), ((me, 1), ("v2", 2)), at(4).at, me),
    )
    assert board.choices("nobody").me == ""
    assert read == [0, 2]
    store.add_votes([at(5, voter=f"w{n}") for n in range(MOST_CHOICES)])
    assert len(board.choices().raters) == MOST_CHOICES
    last = store.last_number()
    monkeypatch.setattr("arena.leaderboard.choices.MOST_VOTES", 3)
    store.add_votes([at(n, category="sums") for n in range(10, 14)])
    board.choices()
    assert read[-1] == last + 1, "of what has come in at once only the latest"


def test_the_latest_vote_is_the_latest_though_old_ones_are_brought_in_after_it(store: Store) -> None:
    board = Leaderboard(store)
    store.add_votes([at(50)])
    store.add_votes([at(1), at(30)])
    assert board.choices().latest == at(50).at
    store.add_votes([at(2)])
    assert board.choices().latest == at(50).at


# ---- fair runs


def add(store: Store, battle_id: str, *told: Told, blind: bool = True) -> None:
    """A vote, and its battle where anything is told of its sides."""
    vote = Vote(battle_id, at(1).at, "x-1", "y-1", "x", "y", "a", blind=blind, rated=blind, voter="ann")
    sides = {
        name: Side(Configuration(f"{model}-1", model), ("Hi",), (metrics,), (manifest,))
        for name, (model, metrics, manifest) in zip("abcd", told, strict=False)
    }
    store.add_vote(vote, StoredBattle(battle_id, vote.at, "installed", ("Hi",), sides) if sides else None)


@pytest.mark.parametrize(
    ("metrics", "run"),
    [
        (FAIR, Run(40.0, 0.2)),
        ({"tokens_per_sec": 40.0, "rate_reliable": True}, Run(40.0, None)),
        (FAIR | {"contended": True}, None),
        (FAIR | {"rate_reliable": False}, None),
        ({"tokens_per_sec": 40.0}, None),
        ({"rate_reliable": True}, None),
        ({}, None),
    ],
)
def test_only_runs_with_the_host_to_themselves_are_fair(metrics: dict[str, Any], run: Run | None) -> None:
    assert fair(metrics) == run


def test_fair_runs_are_read_once_and_counted_once(store: Store, asked: list[list[str]]) -> None:
    add(store, "1", ("X", FAIR, {"started_at": "1"}), ("y", FAIR | {"contended": True}, {}))
    add(store, "2", ("X", FAIR, {"started_at": "1"}), ("z", FAIR | {"tokens_per_sec": 10.0}, {}))
    add(store, "lmarena:9")
    add(store, "4")
    board = Leaderboard(store)
    assert board.paces() == {"x:latest": Pace(1, 40, 40, 40, 0.2), "z:latest": Pace(1, 10, 10, 10, 0.2)}
    add(store, "5", ("x", {"tokens_per_sec": 60.0, "rate_reliable": True}, {"started_at": "2"}))
    for _ in range(2):
        assert board.paces()["x:latest"] == Pace(2, 50, 45, 55, 0.2)
    assert asked == [["1", "2", "4"], ["5"]], "many at a time, nothing twice, and nothing that was imported"


def test_of_many_votes_that_came_at_once_the_latest_are_read(
    store: Store, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arena.leaderboard.paces.MOST_VOTES", 3)
    monkeypatch.setattr("arena.leaderboard.paces.PART_ROWS", 2)
    add(store, "1", ("x", FAIR, {}))
    board = Leaderboard(store)
    board.paces()
    for name in "23456":
        add(store, name)
    board.paces()
    assert asked == [["1"], ["4", "5"], ["6"]]


def test_figures_that_anybody_may_send_are_left_out(store: Store) -> None:
    add(store, "sent", ("x", FAIR | {"tokens_per_sec": 9e9}, {}), blind=False)
    add(store, "fought", ("x", FAIR, {}))
    assert Leaderboard(store).paces() == {"x:latest": Pace(1, 40, 40, 40, 0.2)}


def test_what_was_compared_counts_too_and_once_when_it_is_voted_on(store: Store) -> None:
    board, told = Leaderboard(store), Manifest("X", "gpu", started_at="1", prompt_sha256="ff")
    fast, slow = Metrics(tokens_per_sec=40.0, rate_reliable=True, ttft_s=0.2), Metrics(tokens_per_sec=9.0)
    board.ran([(told, fast), (Manifest("y", "gpu"), slow)])
    assert board.paces() == {"x:latest": Pace(1, 40, 40, 40, 0.2)}
    add(store, "1", ("x", FAIR, to_builtins(told)))
    assert board.paces() == {"x:latest": Pace(1, 40, 40, 40, 0.2)}


def test_the_latest_runs_are_remembered_and_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.leaderboard.paces.MOST_RUNS", 3)
    for n in range(5):
        add(store, str(n), ("x", FAIR | {"tokens_per_sec": 1.0 if n < 2 else 9.0}, {"started_at": str(n)}))
    assert Leaderboard(store).paces()["x:latest"] == Pace(3, 9, 9, 9, 0.2)
    assert pace([Run(9.0, None)]).ttft_s is None
