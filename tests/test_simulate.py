"""The simulator in small: what it shows on large numbers holds on seeded small ones."""

from __future__ import annotations

import numpy as np
import pytest

from bench import simulate


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.93 <= simulate.coverage(7, 60, 100) <= 0.98
    assert 0.93 <= simulate.coverage(7, 60, 500) <= 0.98


def test_more_votes_and_calmer_voters_rank_better() -> None:
    few, many = simulate.rank_error(7, 20, 100), simulate.rank_error(7, 20, 1000)
    assert many < few < simulate.rank_error(7, 20, 100, noise=1 / 3)


def test_stuffed_votes_move_their_target_little() -> None:
    assert simulate.stuffed(7, 1, 12) <= 0.5
    assert simulate.stuffed(7, 5, 12) <= 0.7
    assert simulate.stuffed(7, 1, 12, None) > 2
    assert simulate.stuffed(7, 1, 12, votes=200) <= 0.5


def test_suggested_battles_need_fewer_votes() -> None:
    random, suggestion = (simulate.votes_for_width(3, suggest, 10, 350.0, 300.0, 10) for suggest in (False, True))
    assert suggestion <= 0.6 * random


def test_among_equals_no_plan_beats_random_pairs_and_among_unequals_one_does() -> None:
    assert simulate.least_share(np.zeros(5)) == pytest.approx(1, abs=1e-6)
    assert simulate.least_share(np.arange(6) * 1.5) < 0.7


def test_the_program_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "refit_seconds", lambda votes: 0.5)
    simulate.main(["speed", "--quick"])
    assert "100,000 votes, 50 models, intervals included: 0.50 s" in capsys.readouterr().out
