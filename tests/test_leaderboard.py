"""The leaderboard over a store: nothing read twice, files that come back as they left, the next pair."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator
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
    import_lmarena,
    votes_csv,
    votes_jsonl,
    votes_parquet,
)
from arena.leaderboard.leaderboard import MOST_VIEWS
from arena.leaderboard.tables import harmless
from arena.store import Store
from arena.types import Style, Vote

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
    monkeypatch.setattr(store, "ballots", None)
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


def test_the_matrix_and_the_ladder_follow_the_board(store: Store) -> None:
    store.add_votes([vote(n, *(("x", "y"), ("y", "z"), ("x", "z"))[n % 3]) for n in range(30)])
    board = Leaderboard(store)
    matrix = board.matrix()
    assert matrix.names == ("x", "y", "z")
    assert [(flip.above, flip.below) for flip in matrix.flips] == [("x", "y"), ("y", "z")]
    assert [(duel.a, duel.b, duel.wins) for duel in matrix.duels] == [("x", "y", 10), ("x", "z", 10), ("y", "z", 10)]
    assert [moment.day for moment in board.timeline()] == ["2026-03-01"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=x", " =1", "＝1"])  # noqa: RUF001
def test_formulas_are_marked_as_text(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert harmless("llama3.2:3b") == "llama3.2:3b"
    assert harmless(-1.5) == -1.5


def test_markdown_cannot_be_broken_out_of(store: Store) -> None:
    store.add_votes([vote(n, "a|b<script>", "*y*") for n in range(3)])
    board: Board = Leaderboard(store).board()
    assert "| a\\|b\\<script\\> (preliminary) |" in board_markdown(board)
    assert board_csv(board).startswith("name,model,rating,")


def test_what_is_exported_can_be_imported(store: Store, tmp_path: Path) -> None:
    verdicts: tuple[Any, ...] = ("a", "b", "tie", "both_bad")
    votes = [vote(n, verdict=verdicts[n % 4], style_a=Style(5, n, 1, 2), style_b=Style(9)) for n in range(8)]
    store.add_votes([*votes, vote(8, blind=False)])
    lines = b"".join(votes_jsonl(store)).splitlines()
    other = Store(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    assert import_lmarena(other, lines) == 9
    assert import_lmarena(other, [*lines, b""]) == 0
    found = [each for _, each in other.votes()]
    assert [each.verdict for each in found] == [each.verdict for _, each in store.votes()]
    assert [each.style_a for each in found][:8] == [each.style_a for each in votes]
    assert (found[0].at, found[0].voter, found[8].blind, found[8].style_a) == (AT, "v0", False, None)
    assert {each.model for each in other.configurations().values()} == {"x", "y"}
    other.close()


def test_both_published_forms_are_read(store: Store) -> None:
    older = {"question_id": "q1", "model_a": "m", "model_b": "n", "winner": "tie (bothbad)", "tstamp": 1690000000.5}
    counted = {"sum_assistant_a_tokens": 7, "header_count_a": {"h1": 1, "h2": 2}, "sum_assistant_b_tokens": 8}
    newer = {"id": "q2", "model_a": "m", "model_b": "n", "winner": "both_bad", "timestamp": "2025-07-01T08:00:00"}
    rows = [older | {"conv_metadata": counted}, newer | {"evaluation_session_id": "s"}, newer | {"id": None}]
    assert import_lmarena(store, [json.dumps(row).encode() for row in rows], rated=False) == 3
    first, second, third = (each for _, each in store.votes())
    assert (first.verdict, first.style_a, first.at) == ("both_bad", Style(7, 3), "2023-07-22T04:26:40.500+00:00")
    assert (second.voter, second.at, second.rated) == ("s", "2025-07-01T08:00:00.000+00:00", False)
    assert len(third.battle_id) > 32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_a": ""}, "line 2: model_a must be the name of a model"),
        ({"model_b": "x\n"}, "line 2: model_b must be the name"),
        ({"winner": "model_c"}, "line 2: winner must be one of model_a"),
        ({"tstamp": "soon"}, "line 2: tstamp must be seconds since 1970"),
        ({"tstamp": None}, "line 2: tstamp must be"),
        ({"tstamp": 1e300}, "line 2: tstamp must be"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_kept(store: Store, change: dict[str, Any], said: str) -> None:
    row = {"question_id": "q", "model_a": "m", "model_b": "n", "winner": "tie", "tstamp": 1}
    with pytest.raises(BadRequest, match=said):
        import_lmarena(store, [json.dumps(row).encode(), json.dumps(row | change).encode()])
    assert store.last_number() == 0


def test_what_is_not_json_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (b"{", b"[1]", b"\xff\xfe"):
        with pytest.raises(BadRequest, match="line 1 is not a JSON object"):
            import_lmarena(store, [line])
    monkeypatch.setattr("arena.leaderboard.lmarena.MOST_VOTES", 1)
    with pytest.raises(BadRequest, match="split the file"):
        import_lmarena(store, [b"", b""])


def test_long_exports_come_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arena.leaderboard.export._BATCH", 4)
    store.add_votes([vote(n) for n in range(10)])
    pieces = list(votes_csv(store))
    assert [piece.count(b"\n") for piece in pieces] == [5, 4, 2]
    assert len(list(votes_jsonl(store))) == 3


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
