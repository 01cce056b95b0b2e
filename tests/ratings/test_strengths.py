"""Bradley-Terry strengths against closed forms, other programs and known truths."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.ratings import Caps, Cell, Ledger, board, cells, fit, flips, gains, strengths, style_fit, timeline, weights
from arena.ratings.strengths import Cells
from arena.ratings.tally import SCORES, Floats, sums
from arena.types import Verdict
from bench import beside, simulate

# What arena-rank 0.1.1 makes of the 50,000 votes of `simulate.published`, its mean moved to 1000.
ARENA_RANK = {
    "model-00": 1108.98,
    "model-01": 965.12,
    "model-02": 1133.81,
    "model-03": 833.99,
    "model-04": 1285.90,
    "model-05": 1007.16,
    "model-06": 1123.29,
    "model-07": 1153.11,
    "model-08": 1078.14,
    "model-09": 1067.76,
    "model-10": 842.97,
    "model-11": 1011.27,
    "model-12": 956.44,
    "model-13": 1043.49,
    "model-14": 629.70,
    "model-15": 811.42,
    "model-16": 993.78,
    "model-17": 1076.75,
    "model-18": 1002.07,
    "model-19": 874.85,
}


def counted(*rows: tuple[str, str, Verdict, int]) -> Cells:
    """Cells of equal weights."""
    ledger = Ledger()
    ledger.add([Cell(*row) for row in rows])
    tally = ledger.tally()
    return cells(tally, np.ones(len(tally.count)))


def rating(found: strengths.Fit, name: str) -> float:
    return float(found.ratings[found.names.index(name)])


def test_consistent_wins_give_the_closed_form() -> None:
    scale = 100_000  # so many votes that the virtual draws do not show
    wins: list[tuple[str, str, int]] = [
        ("A", "B", 4),
        ("B", "A", 2),
        ("B", "C", 6),
        ("C", "B", 2),
        ("A", "C", 6),
        ("C", "A", 1),
    ]
    found = fit(counted(*((won, lost, "a", votes * scale) for won, lost, votes in wins)))
    assert rating(found, "A") - rating(found, "B") == pytest.approx(400 * math.log10(2), abs=1e-3)
    assert rating(found, "B") - rating(found, "C") == pytest.approx(400 * math.log10(3), abs=1e-3)


def test_a_tie_is_half_a_win_for_each_and_both_bad_is_a_tie() -> None:
    found = fit(counted(("A", "B", "a", 30_000), ("A", "B", "b", 10_000), ("B", "A", "tie", 40_000)))
    assert math.exp(found.strengths[0] - found.strengths[1]) == pytest.approx(5 / 3, abs=1e-4)
    bad = fit(counted(("A", "B", "a", 30_000), ("A", "B", "b", 10_000), ("B", "A", "both_bad", 40_000)))
    assert np.array_equal(bad.strengths, found.strengths)


def test_who_never_lost_does_not_flatten_the_board() -> None:
    found = fit(counted(("A", "B", "a", 2), ("A", "C", "a", 2), ("B", "C", "a", 5), ("B", "C", "b", 1)))
    assert rating(found, "A") > rating(found, "B") + 50 > rating(found, "C") + 100
    assert rating(found, "A") < 1600


def test_one_vote_is_not_a_certainty() -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", "a", 1)])
    tally = ledger.tally()
    first, second = board(fit(cells(tally, np.ones(1))), tally, np.ones(1))
    assert first.upper - first.lower > 700
    assert first.preliminary
    assert (first.rank, first.rank_best, first.rank_worst, second.rank_best) == (1, 1, 2, 1)


def test_the_same_as_arena_rank_on_50_000_votes() -> None:
    seen = simulate.published()
    found = fit(cells(seen, np.ones(len(seen.what))), samples=0)
    theirs = np.array([ARENA_RANK[name] for name in found.names])
    assert np.abs(found.ratings - theirs).max() < 0.5


def test_the_worked_example_that_arena_rank_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    # 22 games of four; arena-rank's own test expects these scores (geometric mean 1), as does the encyclopedia
    rows = [row for a, b, won, lost in beside.PUBLISHED for row in ((a, b, "a", won), (a, b, "b", lost))]
    monkeypatch.setattr(strengths, "PRIOR", 0.0)
    found = fit(counted(*rows), samples=0)  # type: ignore[arg-type]
    published = 1000 + strengths.SCALE * np.log([0.640, 1.043, 0.660, 2.270])
    assert found.ratings == pytest.approx(published, abs=0.2)
    # and these are the ratings and the 95 % bounds that arena-rank 0.1.1 computes
    assert found.ratings - found.ratings.mean() + 999.9997 == pytest.approx(
        [922.427, 1007.366, 927.768, 1142.439], abs=1e-2
    )
    margins = strengths.Z * strengths.SCALE * np.sqrt(np.diag(found.covariance))
    assert 2 * margins == pytest.approx([370.642, 330.008, 359.636, 424.850], abs=0.1)
    monkeypatch.undo()
    pulled = fit(counted(*rows), samples=0)  # type: ignore[arg-type]
    assert np.abs(pulled.ratings - found.ratings).max() == pytest.approx(9.44, abs=0.01)  # what the virtual draws do


def test_the_same_as_an_independent_fit_of_50_000_votes() -> None:
    seen = simulate.published()
    a, b, verdict, *_ = seen.whats[:, seen.what]
    score = SCORES[verdict]

    def likelihood(at: Floats) -> tuple[float, Floats]:
        lead = at[a] - at[b]
        missed = 1 / (1 + np.exp(-lead)) - score
        slope = sums(a, missed, 20) - sums(b, missed, 20)
        return float((np.logaddexp(0, lead) - score * lead).sum()), slope

    independent = pytest.importorskip("scipy.optimize").minimize(likelihood, np.zeros(20), jac=True, method="L-BFGS-B")
    ratings = 1000 + strengths.SCALE * (independent.x - independent.x.mean())
    assert fit(cells(seen, np.ones(50_000)), samples=0).ratings == pytest.approx(ratings, abs=0.5)


def test_newton_agrees_with_evalica() -> None:
    random = np.random.default_rng(3)
    wins = (random.integers(0, 30, (7, 7)) + 0.1).astype(np.float64)
    np.fill_diagonal(wins, 0.0)
    alone, _ = strengths.newton(wins[None], np.zeros((1, 7)))
    assert alone[0] == pytest.approx(strengths._by_evalica(wins), abs=1e-6)


def test_the_intervals_of_many_contestants_are_those_of_few_without_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    seen = simulate.honest(random, simulate.strengths(random, 8, 150), 3000)
    found = cells(seen, np.ones(len(seen.what)))
    resampled = np.sqrt(np.diag(fit(found, samples=2000).covariance))
    monkeypatch.setattr(strengths, "MOST_RESAMPLED", 4)
    assert np.sqrt(np.diag(fit(found).covariance)) == pytest.approx(resampled, rel=0.06)


def test_blocks_of_samples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(("A", "B", "a", 7), ("B", "C", "b", 5), ("C", "A", "tie", 9))
    whole = fit(found).covariance
    monkeypatch.setattr(strengths, "_BLOCK", 9 * 7)
    assert np.allclose(fit(found).covariance, whole)


def test_nothing_and_one_alone_are_no_trouble() -> None:
    assert fit(counted()).names == ()
    alone = Ledger().tally(["A"])
    assert fit(cells(alone, np.ones(0))).ratings.tolist() == [1000.0]


def test_a_chain_of_certain_wins_is_computed_however_far_it_reaches() -> None:
    ledger = Ledger()
    ledger.add(Cell(f"m{place:02}", f"m{place + 1:02}", "a", 1_000_000, voter="ann") for place in range(89))
    seen = ledger.tally()
    weight = weights(seen, Caps())
    found = fit(cells(seen, weight))
    lead = found.strengths[:, None] - found.strengths
    assert (np.diff(found.strengths) < 0).all()
    assert lead.max() > 1000, "the odds are no number any more"
    expected = (found.wins + found.wins.T) * np.exp(-np.logaddexp(0, -lead))
    assert found.wins.sum(1) == pytest.approx(expected.sum(1), rel=1e-9)
    rows = board(found, seen, weight)
    assert all(row.lower < row.rating < row.upper for row in rows)
    assert [flip.above for flip in flips(found)] == [row.name for row in rows[:-1]]
    assert gains(found).max() < np.inf
    styled = style_fit(seen, weight, np.zeros((len(weight), 4)))
    assert styled.fit.strengths == pytest.approx(found.strengths, abs=1e-6)


def test_settings_of_one_model_are_taken_to_be_alike() -> None:
    found = counted(("x-cold", "y", "a", 40), ("x-warm", "y", "a", 1), ("x-cold", "y", "b", 10), ("z", "y", "a", 1))
    apart, together = fit(found), fit(found, {"x-cold": "x", "x-warm": "x", "y": "y", "z": "z"})

    def distance(board: strengths.Fit) -> float:
        return abs(rating(board, "x-cold") - rating(board, "x-warm"))

    assert distance(together) < distance(apart) / 2


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["a", "b", "tie"])), max_size=40))
@settings(max_examples=40, deadline=None)
def test_sides_and_names_do_not_matter(rows: list[tuple[int, int, Verdict]]) -> None:
    flipped: dict[str, Verdict] = {"a": "b", "b": "a", "tie": "tie"}
    one, other = Ledger(), Ledger()
    one.add([Cell(f"m{a}", f"m{b}", verdict, 1) for a, b, verdict in rows])
    other.add([Cell(f"m{b}", f"m{a}", flipped[verdict], 1) for a, b, verdict in reversed(rows)])
    names = [f"m{number}" for number in range(5)]
    boards = []
    for ledger in (one, other):
        tally = ledger.tally(names)
        found = fit(cells(tally, np.ones(len(tally.count))), samples=0)
        assert found.strengths.sum() == pytest.approx(0, abs=1e-6)
        boards.append(dict(zip(found.names, found.ratings, strict=True)))
    assert boards[0] == pytest.approx(boards[1], abs=1e-3)


def test_the_timeline_ends_at_the_board() -> None:
    ledger = Ledger()
    ledger.add([Cell("A", "B", "a", 3, day="2026-01-02"), Cell("A", "B", "b", 1, day="2026-01-01")])
    ledger.add([Cell("C", "B", "a", 2, day="2026-01-03")])
    tally = ledger.tally()
    moments = timeline(tally, np.ones(3))
    assert [(moment.day, moment.votes, len(moment.ratings)) for moment in moments] == [
        ("2026-01-01", 1, 2),
        ("2026-01-02", 4, 2),
        ("2026-01-03", 6, 3),
    ]
    first = moments[0].ratings["A"]
    assert first[2] - first[1] > 700  # one vote is no certainty here either
    now = fit(cells(tally, np.ones(3)))
    assert moments[-1].ratings["A"][0] == pytest.approx(rating(now, "A"))
    assert [moment.day for moment in timeline(tally, np.ones(3), points=2)] == ["2026-01-01", "2026-01-03"]


def test_the_timeline_of_many_begins_each_day_where_the_day_before_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, ledger = np.random.default_rng(3), Ledger()
    names = [f"m{number:03}" for number in range(130)]
    for day in ("2026-01-01", "2026-01-02"):
        pairs = draw.permuted(np.tile(np.arange(130), (300, 1)), axis=1)[:, :2]
        verdicts: list[Verdict] = ["a", "b", "tie"]
        ledger.add(Cell(names[a], names[b], verdicts[int(draw.integers(3))], 1, day=day) for a, b in pairs.tolist())
    tally = ledger.tally()
    weight = np.ones(len(tally.count))
    last = {row.name: (row.rating, row.lower, row.upper) for row in board(fit(cells(tally, weight)), tally, weight)}
    monkeypatch.setattr(strengths, "_by_evalica", lambda wins: pytest.fail("scored from nothing"))
    moments = timeline(tally, weight)
    assert [moment.votes for moment in moments] == [300, 600]
    assert all(moments[-1].ratings[name] == pytest.approx(told, abs=1e-3) for name, told in last.items())


@given(size=st.integers(1, 230))
@settings(max_examples=15, deadline=None)
def test_information_is_inverted_in_quarters_as_it_is_at_once(size: int) -> None:
    wins = np.random.default_rng(size).poisson(0.2, (size, size)) + 0.01
    information = np.diag((wins + wins.T).sum(1)) - wins - wins.T
    whole = np.linalg.inv(information + 1 / size) - 1 / size
    assert np.allclose(strengths._inverse(information), whole, atol=1e-10 * np.abs(whole).max())


def test_the_more_are_rated_the_fewer_days_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    ledger.add(Cell(f"m{day % 5}", f"m{(day + 1) % 5}", "a", 1, day=f"2026-01-{day:02}") for day in range(1, 31))
    tally = ledger.tally()
    assert len(timeline(tally, np.ones(30))) == 30
    for most, told in ((60, 12), (10, 8)):
        monkeypatch.setattr(import_module("arena.ratings.timeline"), "_MOST", most)
        moments = timeline(tally, np.ones(30))
        assert (len(moments), moments[0].day, moments[-1].day) == (told, "2026-01-01", "2026-01-30")
