"""The leaderboard over a store: nothing read twice, files that come back as they left, the next pair."""

from __future__ import annotations

import csv
import importlib
import io
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from arena.errors import BadRequest
from arena.leaderboard import (
    Board,
    Leaderboard,
    View,
    board_csv,
    board_markdown,
    preferences,
    views,
    votes_csv,
    votes_jsonl,
    votes_parquet,
)
from arena.leaderboard.leaderboard import MOST_VIEWS
from arena.leaderboard.tables import csv_lines
from arena.ratings import Moment
from arena.store import Side, Store, StoredBattle
from arena.types import Configuration, Style, Vote

AT = "2026-03-01T12:00:00.000+00:00"


def vote(number: int, a: str = "x", b: str = "y", verdict: Any = "a", **more: Any) -> Vote:
    return Vote(f"b{number}", AT, f"{a}-1", f"{b}-1", a, b, verdict, **{"voter": f"v{number % 3}", **more})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'votes.sqlite3'}")
    yield store
    store.close()


@pytest.mark.parametrize("style", [False, True])
def test_new_votes_are_added_to_what_was_read(store: Store, style: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: dict[str, Any] = {"style_a": Style(30, 1), "style_b": Style(10)}
    store.add_votes([vote(n, **counted) for n in range(10)])
    board = Leaderboard(store)
    view = View(style=style)
    first = board.board(view)
    assert (first.votes, first.rows[0].name, first.last_vote) == (10, "x", store.last_number())
    store.add_votes([vote(n, "y", "x", "a", **counted) for n in range(10, 40)])
    second = board.board(view)
    assert (second.votes, second.rows[0].name) == (40, "y")
    assert second == Leaderboard(store).board(view)
    monkeypatch.setattr(store, "pages", None)
    monkeypatch.setattr(store, "votes", None)
    assert board.board(view).rows is second.rows


def test_a_view_with_style_takes_the_votes_of_the_same_view_without(store: Store) -> None:
    counted: dict[str, Any] = {"style_a": Style(30, 1), "style_b": Style(10)}
    store.add_votes(
        [
            vote(1, **counted),
            vote(2, category="coding", tags=("python",), **counted),
            vote(3, blind=False, **counted),
            vote(4, rated=False, **counted),
            vote(5, "z", "z", **counted),
        ]
    )
    board = Leaderboard(store)
    for view in (
        View(),
        View(blind=False),
        View(category="coding"),
        View(tag="python"),
        View(voters=("v1",)),
        View(since="2026-03-02"),
        View(until="2026-03-02"),
        View(per="configuration"),
    ):
        plain = board.board(view)
        styled = board.board(View(**{field: getattr(view, field) for field in view.__struct_fields__[:-1]}, style=True))
        assert styled.votes == plain.votes
        assert {row.name for row in styled.rows} == {row.name for row in plain.rows}
    store.add_votes([vote(6)])
    assert board.board().votes == 3
    assert board.board(View(style=True)).votes == 2  # nobody counted the style of the sixth


def test_no_more_views_are_kept_than_allowed(store: Store) -> None:
    board = Leaderboard(store)
    for number in range(MOST_VIEWS + 3):
        board.board(View(category=str(number)))
    assert len(board._views) == MOST_VIEWS


def test_the_next_pair_is_of_those_that_are_there(store: Store) -> None:
    board = Leaderboard(store)
    assert sorted(board.next_pair(["x", "y"])) == [0, 1]
    store.add_votes([vote(n, verdict="ab"[n % 2]) for n in range(60)])
    pairs = [board.next_pair(["x", "new", "y"], Random(seed)) for seed in range(40)]
    assert sum(1 in pair for pair in pairs) > 35
    assert sorted(board.next_pair(["y", "x"], Random(1))) == [0, 1]
    spelled = [board.next_pair(["X", "new", "y:latest"], Random(seed)) for seed in range(40)]
    assert spelled == pairs, "a model is the same one however it is spelled"


def test_a_pair_is_drawn_from_one_moment_though_votes_come_in_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_votes([vote(n, verdict="ab"[n % 2]) for n in range(30)])
    board = Leaderboard(store)
    real = Leaderboard._rated

    def overtaken(self: Leaderboard, view: View) -> Any:
        found = real(self, view)
        store.add_votes([vote(n, "z", "x") for n in range(30, 40)])
        assert real(self, view).board.votes == 40, "somebody else looks at the board"
        return found

    monkeypatch.setattr(Leaderboard, "_rated", overtaken)
    assert 1 in board.next_pair(["x", "new", "y"], Random(3))


def test_the_matrix_and_the_ladder_follow_the_board(store: Store) -> None:
    store.add_votes([vote(n, *(("x", "y"), ("y", "z"), ("x", "z"))[n % 3]) for n in range(30)])
    board = Leaderboard(store)
    matrix = board.matrix()
    assert matrix.names == ("x", "y", "z")
    assert [(flip.above, flip.below) for flip in matrix.flips] == [("x", "y"), ("y", "z")]
    assert [(duel.a, duel.b, duel.wins) for duel in matrix.duels] == [("x", "y", 10), ("x", "z", 10), ("y", "z", 10)]
    assert [moment.day for moment in board.timeline()] == ["2026-03-01"]
    assert board.timeline() is board.timeline(), "computed once, until there are votes"
    store.add_votes([vote(30, "x", "y")])
    assert board.timeline()[-1].votes == 31


def test_nobody_waits_while_the_past_is_fitted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_votes([vote(0)])
    board, begun, enough = Leaderboard(store), threading.Event(), threading.Event()

    def slow(*asked: object) -> tuple[Moment, ...]:
        begun.set()
        assert enough.wait(30)
        return ()

    monkeypatch.setattr(views, "timeline", slow)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(board.timeline)
        assert begun.wait(30)
        store.add_votes([vote(1)])
        assert board.board().votes == 2
        assert board.matrix().names == ("x", "y")
        enough.set()
        assert asked.result(30) == ()


def test_the_matrix_holds_the_best_and_says_how_many_it_leaves_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MOST_IN_MATRIX", 2)
    store.add_votes([vote(n, *(("x", "y"), ("y", "z"), ("x", "z"))[n % 3]) for n in range(30)])
    matrix = Leaderboard(store).matrix()
    assert (matrix.names, matrix.omitted) == (("x", "y"), 1)
    assert [(duel.a, duel.b, duel.wins) for duel in matrix.duels] == [("x", "y", 10)]
    assert [(flip.above, flip.below) for flip in matrix.flips] == [("x", "y")]


def test_markdown_cannot_be_broken_out_of(store: Store) -> None:
    store.add_votes([vote(n, "a|b<script>", "*y*") for n in range(3)])
    board: Board = Leaderboard(store).board()
    assert "| a\\|b\\<script\\> (preliminary) |" in board_markdown(board)
    assert board_csv(board).startswith("name,model,rating,")


def test_long_exports_come_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.leaderboard.export._BATCH", 4)
    store.add_votes([vote(n) for n in range(10)])
    pieces = list(votes_csv(store))
    assert [piece.count(b"\n") for piece in pieces] == [5, 4, 2]
    assert len(list(votes_jsonl(store))) == 3


def test_a_table_of_no_votes_has_the_head_of_one_with_votes(store: Store) -> None:
    bare = b"".join(votes_csv(store))
    store.add_votes([vote(1)])
    assert bare.startswith(b"question_id,model_a,")
    assert b"".join(votes_csv(store)).splitlines()[:1] == bare.splitlines()


@pytest.mark.parametrize("export", [votes_jsonl, preferences])
def test_the_battles_of_an_export_are_read_many_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch, export: Callable[[Store], Iterator[bytes]]
) -> None:
    for n in range(5):
        one, other = (Side(Configuration(f"{name}-1", name), (f"{name}{n}",), ({},), ({},)) for name in "xy")
        store.add_vote(vote(n, voter="ann"), StoredBattle(f"b{n}", AT, "installed", ("Hi",), {"b": other, "a": one}))
    store.add_votes([vote(n, voter="eve") for n in range(7)])  # the last two are on battles of which nothing was kept
    asked: list[int] = []
    real = Store.battles

    def counted(of: Store, ids: Collection[str]) -> dict[str, StoredBattle]:
        asked.append(len(ids))
        return real(of, ids)

    monkeypatch.setattr("arena.leaderboard.export.PART_ROWS", 8)
    monkeypatch.setattr(Store, "battles", counted)
    together = b"".join(export(store))
    assert asked == [5, 4], "the battles of eight votes, and of four"
    asked.clear()
    monkeypatch.setattr("arena.leaderboard.export.PART_ROWS", 1)
    assert b"".join(export(store)) == together
    assert asked == [1] * 12
    assert together.count(b"x3") == together.count(b"y3") == 2
    assert together.count(b"\n") == (12 if export is votes_jsonl else 10)


def test_parquet_says_what_it_needs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BadRequest, match="pip install pyarrow"):
        votes_parquet(store)


def test_parquet_holds_all_votes(store: Store) -> None:
    pytest.importorskip("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    store.add_votes([vote(n, style_a=Style(n)) for n in range(5)])
    table = parquet.read_table(io.BytesIO(b"".join(votes_parquet(store)))).to_pylist()
    assert [row["sum_assistant_a_tokens"] for row in table] == list(range(5))
    assert {row["winner"] for row in table} == {"model_a"}
    assert all(row["sum_assistant_b_tokens"] is None for row in table)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1", "'=1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\u00a0\u200b\ufeff=1", "'\u00a0\u200b\ufeff=1"),
        ("\x0b@x", "'\x0b@x"),
        ("\uff1d1", "'\uff1d1"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\n=x", "'\n'=x"),
        ("x; =1;y", "x;' =1;y"),
        ("x\n+1", "x\n'+1"),
        ("llama3:8b, seed -1; c++", "llama3:8b, seed -1; c++"),
        ("_x", "_x"),
        ("", ""),
        (-1, "-1"),
    ],
)
def test_no_spreadsheet_takes_a_text_for_a_formula(text: object, written: str) -> None:
    """In any country: some part cells at semicolons, and what cannot be seen is left out before a cell is read."""
    ((found, _),) = csv.reader(io.StringIO(csv_lines([[text, ""]]), newline=""))
    assert found == written


@pytest.mark.parametrize("text", ["\n" * 50_000, "; " * 50_000, "x;" + " " * 50_000])
def test_no_text_is_read_over_and_over_for_formulas(text: str) -> None:
    began_s = time.process_time()
    csv_lines([[text]])
    assert time.process_time() - began_s < 2
