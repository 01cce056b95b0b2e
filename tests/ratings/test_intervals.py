"""Intervals against likelihoods by hand, and where resampling has nothing to say."""

from __future__ import annotations

import math
from itertools import permutations

import msgspec
import numpy as np
import pytest

from arena.ratings import PRELIMINARY, Cell, Ledger, Rating, Tally, board, cells, fit, timeline, weights
from arena.ratings.intervals import dispersion, intervals
from arena.ratings.strengths import SCALE, Fit, Z
from bench import simulate


def of(*rows: Cell) -> Tally:
    ledger = Ledger()
    ledger.add(rows)
    return ledger.tally()


def rated(*rows: Cell) -> dict[str, Rating]:
    tally = of(*rows)
    weight = weights(tally, None)
    return {row.name: row for row in board(fit(cells(tally, weight)), tally, weight)}


def fitted(tally: Tally) -> Fit:
    return fit(cells(tally, weights(tally, None)), samples=0)


RECORDS = {
    "one vote": (Cell("A", "B", "a", 1),),
    "9 of 9": (Cell("A", "B", "a", 9),),
    "10 of 10": (Cell("A", "B", "a", 10),),
    "30 of 30": (Cell("A", "B", "a", 30),),
    "one tie": (Cell("A", "B", "tie", 1),),
    "20 ties": (Cell("A", "B", "tie", 20),),
    "20 times both bad": (Cell("A", "B", "both_bad", 20),),
    "a ladder without an upset": (Cell("A", "B", "a", 12), Cell("B", "C", "a", 12), Cell("A", "C", "a", 12)),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_no_record_is_a_certainty(record: tuple[Cell, ...]) -> None:
    unanimous = any(cell.verdict == "a" for cell in record)
    for row in rated(*record).values():
        assert row.upper - row.lower > (400 if unanimous else 50)
        assert row.lower < row.rating < row.upper
    last = timeline(of(*record), np.ones(len(record)))[-1]
    assert all(upper - lower > 50 for _, lower, upper in last.ratings.values())


@pytest.mark.parametrize("wins", [5, 10, 30])
def test_the_bounds_of_two_are_where_the_likelihood_has_fallen(wins: int) -> None:
    found = rated(Cell("A", "B", "a", wins))["A"]

    def likelihood(rating: float) -> float:
        lead = 2 * (rating - 1000) / SCALE  # and a quarter of a win for each side, as the virtual draws are
        return -(wins + 0.25) * math.log1p(math.exp(-lead)) - 0.25 * math.log1p(math.exp(lead))

    for bound in (found.lower, found.upper):
        assert likelihood(found.rating) - likelihood(bound) == pytest.approx(Z**2 / 2, abs=1e-6)
    assert found.upper - found.rating > 2 * (found.rating - found.lower), "how much stronger, nobody knows"


def test_the_other_of_two_has_the_same_interval_upside_down() -> None:
    found = rated(Cell("A", "B", "a", 7), Cell("B", "A", "a", 2), Cell("A", "B", "tie", 3))
    assert 2000 - found["A"].lower == pytest.approx(found["B"].upper)
    assert 2000 - found["A"].upper == pytest.approx(found["B"].lower)


def test_with_many_votes_the_bounds_are_as_far_on_both_sides_as_the_error_says() -> None:
    random = np.random.default_rng(3)
    seen = simulate.honest(random, simulate.strengths(random, 8, 150), 50_000)
    found = fitted(seen)
    known = intervals(found, seen, np.ones(seen.votes))
    error = np.sqrt(np.diag(found.covariance))
    assert known.upper - found.strengths == pytest.approx(Z * error, rel=0.05)
    assert found.strengths - known.lower == pytest.approx(Z * error, rel=0.05)


def test_among_several_the_bounds_are_those_of_the_whole_likelihood() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    random = np.random.default_rng(5)
    seen = simulate.honest(random, simulate.strengths(random, 3, 300.0), 20)
    found = fitted(seen)
    known = intervals(found, seen, np.ones(20))
    own = np.diag(found.uncertainty)
    limit = Z**2 / 2 * np.maximum(np.diag(found.covariance) / own, dispersion(found, seen, np.ones(20)))

    def unlikely(at: np.ndarray) -> float:
        return float((found.wins * np.logaddexp(0, at - at[:, None])).sum())

    for one, bounds in enumerate(zip(known.lower, known.upper, strict=True)):
        for bound in bounds:
            placed = np.insert([-bound / 2] * 2, one, bound)
            apart = np.insert([1.0, -1.0], one, 0.0)
            best = optimize.minimize_scalar(lambda x, placed=placed, apart=apart: unlikely(placed + x * apart)).fun
            assert best - unlikely(found.strengths) == pytest.approx(limit[one], rel=0.05)


def test_ties_make_surer_and_a_few_do_not_make_certain() -> None:
    even = [
        rated(Cell("A", "B", "a", n), Cell("A", "B", "b", n), Cell("A", "B", "tie", 40 - 2 * n)) for n in (20, 10, 0)
    ]
    widths = [found["A"].upper - found["A"].lower for found in even]
    assert widths[1] == pytest.approx(widths[0] * math.sqrt(0.5), rel=0.12), "half the variance"
    assert widths[2] > widths[0] / 6


@pytest.mark.parametrize("sides", [2, 3, 4])
def test_the_model_expects_of_whole_ballots_the_error_that_they_have(sides: int) -> None:
    seen = simulate.rankings(np.random.default_rng(2), np.zeros(6), sides, 600)
    found, weight = fitted(seen), weights(seen, None)
    own = dispersion(found, seen, weight) * np.diag(found.uncertainty)
    assert np.sqrt(own).mean() == pytest.approx(np.sqrt(np.diag(found.covariance)).mean(), rel=0.05)


def test_votes_are_sure_and_enough_by_what_they_weigh() -> None:
    again = [Cell("A", "B", "a", 1, voter="v", repeats=repeats) for repeats in [*range(7), *[7] * 17]]
    one = rated(*again)["A"]
    assert one.votes == 24
    assert one.weight == pytest.approx(4.72, abs=0.01)
    assert one.preliminary
    fresh = rated(Cell("A", "B", "a", 5))["A"]
    assert one.lower == pytest.approx(fresh.lower, abs=20)
    assert one.upper - one.lower == pytest.approx(fresh.upper - fresh.lower, rel=0.05)
    ballots = [Cell(a, b, "a", 7, sides=4) for a, b in ("AB", "AC", "AD", "BC", "BD", "CD")]
    assert all((row.votes, row.weight, row.preliminary) == (21, 10.5, True) for row in rated(*ballots).values())
    assert not rated(Cell("A", "B", "a", int(PRELIMINARY)))["A"].preliminary


def test_a_clear_record_is_above_and_bounds_that_do_not_touch_leave_no_other_rank() -> None:
    found = rated(Cell("A", "B", "a", 10))
    assert found["A"].lower > found["B"].upper
    assert (found["A"].rank_worst, found["B"].rank_best) == (1, 2)
    open_ = rated(Cell("A", "B", "a", 3))
    assert (open_["A"].rank_worst, open_["B"].rank_best) == (2, 1)


def test_votes_that_stray_more_than_they_should_leave_more_ranks_open() -> None:
    seen = of(Cell("A", "B", "a", 60), Cell("A", "B", "b", 30), Cell("B", "C", "a", 40), Cell("B", "C", "b", 40))
    found = fitted(seen)
    weight = np.ones(len(seen.what))
    assert intervals(found, seen, weight).above[0, 1]
    restless = msgspec.structs.replace(found, covariance=found.covariance * 4)
    assert not intervals(restless, seen, weight).above[0, 1]


def test_more_ties_than_the_strengths_let_expect_are_no_trouble() -> None:
    seen = of(Cell("A", "B", "tie", 40), Cell("B", "C", "a", 900), Cell("C", "A", "b", 900))
    unequal = msgspec.structs.replace(fitted(seen), strengths=np.array([6.0, 0.0, -6.0]))
    assert 0 < dispersion(unequal, seen, np.ones(3)) < 1


def test_who_is_above_whom_depends_on_their_difference_and_not_on_how_sure_each_is() -> None:
    # a and b know each other well, and the others hardly: where the two stand on the board is open, their order is not
    rows = [Cell("a", "b", "a", 300), Cell("a", "b", "b", 200)]
    rows += [Cell(one, other, "a", 1) for one, other in permutations("axy", 2)]
    found = rated(*rows)
    assert found["a"].lower < found["b"].upper
    tally = of(*rows)
    assert intervals(fitted(tally), tally, np.ones(len(rows))).above[0].tolist() == [False, True, False, False]


def test_one_alone_and_nobody_have_nothing_to_be_unsure_of() -> None:
    for names in ([], ["A"]):
        tally = Ledger().tally(names)
        known = intervals(fitted(tally), tally, np.ones(0))
        assert known.lower.tolist() == known.upper.tolist() == [0.0] * len(names)
        assert not known.above.any()


def test_models_that_no_votes_link_are_not_ranked_against_each_other() -> None:
    apart = (Cell("A", "B", "a", 500), Cell("C", "D", "a", 500), Cell("E", "D", "b", 500))
    ranks = {name: (row.rank_best, row.rank_worst) for name, row in rated(*apart).items()}
    assert ranks == {"A": (1, 4), "B": (2, 5), "C": (1, 3), "D": (2, 4), "E": (3, 5)}
    linked = rated(*apart, Cell("B", "C", "a", 500))
    assert [(name, row.rank_best, row.rank_worst) for name, row in linked.items()] == [
        (name, place, place) for place, name in enumerate("ABCDE", 1)
    ]


def test_the_best_of_one_group_is_not_above_the_worst_of_another() -> None:
    steps = [(f"{group}{at}", f"{group}{at + 1}") for group in "AX" for at in range(4)]
    known = rated(*(Cell(better, worse, "a", 500) for better, worse in steps))
    assert known["A0"].lower > known["X4"].upper, "only the virtual draws say so"
    for group in "AX":
        for at in range(5):
            row = known[f"{group}{at}"]
            assert (row.rank_best, row.rank_worst) == (1 + at, 10 - (4 - at))
