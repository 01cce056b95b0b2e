"""The simulator in small: what it shows on large numbers holds on seeded small ones."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from arena.leaderboard import Leaderboard
from arena.ratings import Fit, Tally, cells, fit, suggested
from arena.store import Store
from bench import beside, simulate, voted


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.93 <= simulate.coverage(7, 150, 100) <= 0.97
    assert 0.93 <= simulate.coverage(7, 60, 500) <= 0.97


@pytest.mark.parametrize(
    ("models", "spread", "votes"),
    [(2, 150.0, 20), (2, 300.0, 10), (2, 450.0, 15), (3, 300.0, 30), (4, 350.0, 60), (8, 350.0, 100)],
)
def test_intervals_hold_the_truth_of_small_and_wide_arenas_too(models: int, spread: float, votes: int) -> None:
    assert simulate.coverage(7, 120 // models, votes, models, spread) >= 0.93


def test_coverage_is_told_of_usual_arenas_and_of_small_and_wide_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "coverage", lambda seed, arenas, votes, *of: 0.95)
    monkeypatch.setattr(simulate, "rank_error", lambda seed, arenas, votes, noise=0.0: 0.5 + noise)
    simulate.main(["coverage", "--quick"])
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1 + 3 + len(simulate.SMALL_OR_WIDE)
    assert told[1].strip().startswith("100 votes, 8 models, 40 arenas: 95.0% of the 95 % intervals hold the truth;")
    assert told[-1].strip() == "100 votes, 8 models of spread 350: 95.0%"


def test_more_votes_and_calmer_voters_rank_better() -> None:
    few, many = simulate.rank_error(7, 20, 100), simulate.rank_error(7, 20, 1000)
    assert many < few < simulate.rank_error(7, 20, 100, noise=1 / 3)


def test_stuffed_votes_move_their_target_little() -> None:
    assert simulate.stuffed(7, 1, 12) <= 0.5
    assert simulate.stuffed(7, 5, 12) <= 0.7
    assert simulate.stuffed(7, 1, 12, None) > 2
    assert simulate.stuffed(7, 1, 12, votes=200) <= 0.5


def test_suggested_battles_need_fewer_votes() -> None:
    random, suggestion = (simulate.votes_for_width(3, suggest, 10, 350.0, 300.0) for suggest in (False, True))
    assert suggestion <= 0.6 * random


def test_a_newcomer_is_soon_known_by_suggested_battles_and_no_plan_does_much_better() -> None:
    random, suggestion = (simulate.votes_for_width(3, suggest, 6, 150.0, 200.0, 1000) for suggest in (False, True))
    assert suggestion <= 0.6 * random
    assert simulate.least_share_of_newcomer(np.zeros(6)) == pytest.approx(2 / 6), "it is in a third of random pairs"
    assert simulate.least_share_of_newcomer(np.array([0.0, 9.0, 9.0])) == pytest.approx(1 / 3, abs=0.001)


def test_models_that_come_one_by_one_are_soon_known_by_suggested_battles() -> None:
    random, suggestion = (simulate.votes_one_by_one(3, suggest, 7, 150.0, 250.0) for suggest in (False, True))
    assert suggestion <= 0.6 * random
    assert random > simulate.votes_for_width(3, False, 7, 150.0, 250.0), "each of them waits for the board"


def test_the_next_model_comes_once_every_interval_is_narrow_and_no_vote_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boards: list[tuple[int, int]] = []
    until_known = simulate.until_known

    def spied(random: np.random.Generator, draw: Random | None, true: np.ndarray, seen: Tally, width: float) -> Tally:
        known = until_known(random, draw, true, seen, width)
        boards.append((seen.votes, known.votes))
        assert simulate.widest(fit(cells(known, np.ones(known.votes)), samples=0), known) <= width
        assert len(seen.names) == len(true) == len(boards) + 1
        return known

    monkeypatch.setattr(simulate, "until_known", spied)
    votes = simulate.votes_one_by_one(3, True, 5, 150.0, 300.0)
    assert [before for before, _ in boards] == [0, *(after for _, after in boards[:-1])]
    assert boards[-1][1] == votes


def test_every_case_is_told_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "votes_one_by_one", lambda seed, suggest, *_: (seed - 99) * (30 if suggest else 80))
    monkeypatch.setattr(simulate, "votes_for_width", lambda seed, suggest, *_: (seed - 99) * (30 if suggest else 40))
    monkeypatch.setattr(simulate, "least_share", lambda true: 0.5)
    simulate.print_suggestions(quick=True)
    quick = capsys.readouterr().out.splitlines()
    assert quick[0] == (
        "2 to 8 models, each new one on a known board, spread 150, every interval within 150 points: "
        "120 random votes, 45 suggested (0.38 ± 0.00; any plan: 0.25)"
    )
    assert quick[3] == (
        "8 models, spread 150, every interval within 150 points: 60 random votes, 45 suggested "
        "(0.75 ± 0.00; any plan: 0.50)"
    )
    simulate.print_suggestions(quick=False)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 14
    assert told[3].startswith("2 to 20 models, each new one on a known board, spread 150, every interval")
    assert told[-1].startswith("20 models, all but one known from 8,000 votes, spread 150, every interval within 150")


def test_among_equals_no_plan_beats_random_pairs_and_among_unequals_one_does() -> None:
    assert simulate.least_share(np.zeros(5)) == pytest.approx(1, abs=1e-6)
    assert simulate.least_share(np.arange(6) * 1.5) < 0.7


def test_the_battles_that_teach_most_are_nearly_the_best_plan() -> None:
    true = np.linspace(-3, 3, 8)
    names = tuple("abcdefgh")

    def after(plan: np.ndarray) -> Fit:
        known = np.linalg.inv(np.diag(plan.sum(1)) - plan + 1 / 8) - 1 / 8
        return Fit(names, true, known, known, plan)

    taught = simulate.information(true[:, None] - true)
    random = (1 - np.eye(8)) * taught / 28
    plan, votes = 28 * random, 400
    for _ in range(votes - 28):
        i, j = suggested(after(plan), Random(1), names, explore=0)
        plan[[i, j], [j, i]] += taught[i, j]
    widest = [np.diag(after(each).uncertainty).max() for each in (plan, votes * random)]
    assert widest[0] / widest[1] <= 1.05 * simulate.least_share(true)


def test_a_store_full_of_votes_is_rated_and_rated_again() -> None:
    cost = simulate.board_cost(2000)
    assert min(cost) > 0


def test_the_votes_that_the_speed_is_measured_on_all_count(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'arena.sqlite3'}")
    a = np.arange(300) % 5
    votes = voted.Votes(a, (a + 1) % 5, np.array(["a", "tie", "b"] * 100))
    voted.fill(store, votes, 0, 300)
    board = Leaderboard(store).board()
    assert (board.votes, len(board.rows)) == (300, 5)
    assert board.voters == pytest.approx(30, abs=2)
    store.close()


def test_without_virtual_draws_the_worked_example_is_that_of_arena_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = np.array([922.427, 1007.366, 927.768, 1142.439])
    monkeypatch.setattr(beside, "_theirs", lambda tally: (theirs, 371.28))
    found = beside.compare(beside.games())
    assert found.without < 0.001
    assert found.with_draws == pytest.approx(9.44, abs=0.01)


def test_the_program_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "board_cost", lambda votes: voted.Cost(0.5, 0.25))
    simulate.main(["speed", "--quick"])
    told = "100,000 votes in a SQLite store, 50 models: 0.50 s of CPU for the first board, 0.25 s with 100 new votes"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("installed", [False, True])
def test_another_program_is_asked_where_it_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(beside, "installed", lambda: installed)
    monkeypatch.setattr(beside, "compare", lambda tally: beside.Difference(9.4, 0.0001, 342, 371))
    simulate.main(["arena-rank"])
    said = capsys.readouterr().out
    assert ("22 games of four: at most 9.4000 points" in said) == installed
    assert (beside.MISSING in said) != installed
