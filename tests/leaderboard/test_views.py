"""Views of the votes beside each other, and what the board said day by day."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from arena.errors import StoreUnavailable
from arena.leaderboard import Estimate, Leaderboard, View, views
from arena.ratings import style_fit
from arena.store import CellFilter, Store
from arena.types import Style, Verdict, Vote

NOW = "2026-03-0{}T12:00:00.000+00:00"
DEADLINE_S = 30.0


def vote(number: int, a: str = "x", b: str = "y") -> Vote:
    verdict: Verdict = "b" if number % 3 else "a"
    return Vote(
        f"b{number}",
        NOW.format(1),
        f"{a}-1",
        f"{b}-1",
        a,
        b,
        verdict,
        voter="ann",
        style_a=Style(30 + number % 7, 1),
        style_b=Style(10),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    yield store
    store.close()


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes it noon of a day of March 2026."""

    def set_to(day: int) -> None:
        for module in ("arena.store.store", "arena.leaderboard.snapshots"):
            monkeypatch.setattr(f"{module}.now", lambda: NOW.format(day))

    return set_to


def at_once(work: Callable[[], None]) -> None:
    work()


# ---- views beside each other


def test_nobody_waits_for_a_view_of_somebody_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_votes([vote(n) for n in range(20)])
    board, started, go_on = Leaderboard(store, later=at_once), threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        started.set()
        assert go_on.wait(DEADLINE_S)
        return style_fit(*args)

    monkeypatch.setattr(views, "style_fit", slow)
    with ThreadPoolExecutor(1) as threads:
        styled = threads.submit(board.board, View(style=True))
        try:
            assert started.wait(DEADLINE_S)
            assert sorted(board.next_pair(["x", "y"])) == [0, 1]
            assert board.matrix(View(tag="none")).names == ()
            assert not styled.done()
        finally:
            go_on.set()
        assert styled.result(DEADLINE_S).votes == 20


def test_votes_whose_reading_breaks_off_are_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.store.cells.PAGE", 4)
    store.add_votes([vote(n) for n in range(10)])
    board, real = Leaderboard(store, later=at_once), Store.styled_pages

    def broken(of: Store, wanted: CellFilter) -> Iterator[Any]:
        pages = real(of, wanted)
        yield next(pages)
        pages.close()  # type: ignore[attr-defined]
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "styled_pages", broken)
        with pytest.raises(StoreUnavailable):
            board.board(View(style=True))
    assert board.board(View(style=True)) == Leaderboard(store, later=at_once).board(View(style=True))


# ---- what the board said


def test_the_board_is_kept_once_a_day_when_votes_have_come(store: Store, today: Callable[[int], None]) -> None:
    board = Leaderboard(store, later=at_once)
    today(1)
    board.board()
    assert board.said() == (), "there is nothing to keep before the first vote"
    store.add_votes([vote(1)])
    board.board(View(category="coding"))
    assert board.said() == (), "only what all blind votes say is kept"
    first = board.board()
    store.add_votes([vote(2)])
    board.board()
    today(2)
    board.board()
    today(3)
    board.board()
    store.add_votes([vote(n, "z", "x") for n in range(3, 30)])
    last = board.next_pair(["x", "y"]) and board.board()
    told = board.said()
    assert [(each.at[:10], each.votes, each.last_vote) for each in told] == [
        ("2026-03-01", 1, 1),
        ("2026-03-02", 2, 2),
        ("2026-03-03", 29, 29),
    ], "not on the third day before there was a new vote"
    for each, asked in ((told[0], first), (told[2], last)):
        assert each.ratings == {row.name: Estimate(row.rating, row.lower, row.upper) for row in asked.rows}
    assert board.said(1) == told[2:]


def test_a_clock_that_was_ahead_stops_no_diary(store: Store, today: Callable[[int], None]) -> None:
    board = Leaderboard(store, later=at_once)
    for number, day in enumerate((9, 1, 2), 1):
        today(day)
        store.add_votes([vote(number)])
        board.board()
    assert [(each.at[:10], each.votes) for each in board.said()] == [
        ("2026-03-09", 1),
        ("2026-03-01", 2),
        ("2026-03-02", 3),
    ]


def test_what_another_process_has_kept_is_not_kept_again(store: Store, today: Callable[[int], None]) -> None:
    today(1)
    store.add_votes([vote(1)])
    for _ in range(2):
        Leaderboard(store, later=at_once).board()
    today(2)
    Leaderboard(store, later=at_once).board()
    assert [each.at[:10] for each in Leaderboard(store).said()] == ["2026-03-01"]


def test_a_store_that_fails_or_is_closed_is_nobody_elses_trouble(
    store: Store, today: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    today(1)
    store.add_votes([vote(1)])
    waiting: list[Callable[[], None]] = []
    board = Leaderboard(store, later=waiting.append)
    with monkeypatch.context() as patch:

        def full(*args: Any, **more: Any) -> None:
            raise StoreUnavailable("the disk is full")

        patch.setattr(Store, "add_snapshot", full)
        assert board.board().votes == 1
        waiting.pop()()
    assert "the ratings of today are not kept: the disk is full" in caplog.text
    board.board()
    assert len(waiting) == 1, "and it is tried again"
    waiting.clear()
    store.add_votes([vote(2)])
    board.board()
    store.close()
    waiting.pop()()
    assert not store.database.opened, "and it is not opened again for that"
    assert board.said() == ()
    store.add_votes([vote(3)])
    board.board()
    waiting.pop()()
    assert [each.votes for each in board.said()] == [3]


def test_by_default_a_thread_keeps_it_and_who_closes_the_store_waits_for_that(store: Store) -> None:
    store.add_votes([vote(1)])
    before = set(threading.enumerate())
    board, closing = Leaderboard(store), threading.Thread(target=store.close)
    with store.database.writing():
        board.board()
        (keeping,) = set(threading.enumerate()) - before
        closing.start()
        assert store.database.opened
    for thread in (keeping, closing):
        thread.join(DEADLINE_S)
    assert not store.database.opened
    assert len(board.said()) <= 1, "whichever of the two came first"
    store.close()
    board = Leaderboard(store)
    store.add_votes([vote(2)])
    board.board()
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE_S)
    assert len(board.said()) == 1
